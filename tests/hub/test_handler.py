"""`handler.py` as Inference Endpoints' toolkit calls it, from a checkout of a model repository."""

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification
from label2label.checkpoints import default_checkpoint
from label2label.faces import detection
from label2label.hub.repositories import model_repository
from label2label.prediction.predictor import AttributePredictor
from PIL import Image
from transformers import pipeline

from .conftest import ATTRIBUTES, save_model

HOPPER = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"


def check_out(model, folder):
    """What `snapshot_download` would leave of the model's repository."""
    for path, content in model_repository(model, "someone/faces").files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def load_handler(folder):
    """The toolkit's `check_and_register_custom_pipeline_from_directory`."""
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.EndpointHandler(str(folder))


def serve(handler, body, content_type="application/json"):
    """The toolkit's `predict`: a request's body in, what is answered out."""
    if content_type.startswith("image/"):
        data = {"inputs": Image.open(io.BytesIO(body)).convert("RGB")}
    else:
        data = json.loads(body)
    try:
        return 200, json.loads(json.dumps(handler(data)))
    except Exception as error:
        return 400, {"error": str(error)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint")
    return check_out(save_model(folder / "tiny"), folder / "checkout")


@pytest.fixture(scope="module")
def loaded(checkout):
    return load_handler(checkout)


@pytest.fixture
def handler(loaded):
    return loaded[1]


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def face():
    """A drawn PNG of 60x50 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    return encode(Image.fromarray(pixels))


@pytest.fixture(scope="module")
def expected(checkout, face):
    """What transformers' own pipeline says, highest first."""
    classify = pipeline("image-classification", model=str(checkout), trust_remote_code=True)
    return classify(Image.open(io.BytesIO(face)), top_k=len(ATTRIBUTES))


def request(body, **parameters):
    text = base64.b64encode(body).decode()
    return json.dumps({"inputs": text, **({"parameters": parameters} if parameters else {})})


def assert_same(answer, expected):
    assert [entry["label"] for entry in answer] == [entry["label"] for entry in expected]
    scores = [entry["score"] for entry in expected]
    assert [entry["score"] for entry in answer] == pytest.approx(scores, abs=1e-6)


def test_image_bodies_bytes_base64_and_data_urls_answer_like_the_pipeline(handler, face, expected):
    status, answer = serve(handler, face, "image/png")
    assert status == 200
    assert_same(answer, expected)
    assert_same(serve(handler, request(face))[1], expected)
    assert_same(handler({"inputs": face, "parameters": None}), expected)
    text = base64.b64encode(face).decode()
    assert_same(handler({"inputs": f"data:image/png;base64,{text}"}), expected)


def test_weights_of_half_precision_answer_too(tmp_path, face):
    folder = check_out(save_model(tmp_path / "tiny"), tmp_path / "checkout")
    half = Label2LabelForImageClassification.from_pretrained(folder, dtype=torch.float16)
    half.save_pretrained(folder)
    assert serve(load_handler(folder)[1], request(face))[0] == 200


def test_the_parameters_of_the_hubs_task_are_taken(checkout, handler, face, expected):
    assert_same(
        serve(handler, request(face, function_to_apply="sigmoid", top_k=2))[1], expected[:2]
    )
    parameters = {"top_k": "2", "threshold": None, "detect_faces": None}
    assert_same(handler({"inputs": face, "parameters": parameters}), expected[:2])
    classify = pipeline("image-classification", model=str(checkout), trust_remote_code=True)
    for function in ("softmax", "none"):
        answer = serve(handler, request(face, function_to_apply=function))[1]
        image = Image.open(io.BytesIO(face))
        assert_same(answer, classify(image, top_k=None, function_to_apply=function))


def test_threshold_and_known_labels(handler, face, expected):
    middle = (expected[1]["score"] + expected[2]["score"]) / 2
    assert_same(serve(handler, request(face, threshold=middle))[1], expected[:2])
    answer = serve(handler, request(face, known_labels={"Male": True, "Young": False}))[1]
    before = {entry["label"]: entry["score"] for entry in expected}
    after = {entry["label"]: entry["score"] for entry in answer}
    assert max(abs(before[name] - after[name]) for name in ("Bald", "Smiling")) > 1e-6


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"instances": []}, "has no `inputs`"),
        ({"inputs": None}, "has no `inputs`"),
        ({"inputs": "no base64!"}, "is not base64"),
        ({"inputs": base64.b64encode(b"no image").decode()}, "not an image"),
        ({"inputs": 7}, "give an image as its bytes"),
        ({"inputs": "file:///etc/passwd"}, "is not base64"),
        ({"inputs": "http://8.8.8.8/face.png"}, "URLs are not fetched"),
        ({"inputs": "", "parameters": {"top_k": 0}}, "top_k must be 1 or more"),
        ({"inputs": "", "parameters": {"top_k": float("inf")}}, "must be numbers"),
        ({"inputs": "", "parameters": {"threshold": "high"}}, "must be numbers"),
        ({"inputs": "", "parameters": {"function_to_apply": "tanh"}}, "function_to_apply must be"),
        ({"inputs": "", "parameters": 5}, "parameters must be an object"),
        (
            {"inputs": "", "parameters": {"detect_faces": "yes"}},
            "detect_faces must be true or false",
        ),
        ({"inputs": "", "parameters": {"colour": 1}}, "unknown parameter 'colour'"),
        ({"inputs": "", "parameters": {"known_labels": {"Tall": True}}}, "no attribute 'Tall'"),
        ({"inputs": "", "parameters": {"known_labels": {"Bald": 2}}}, "must be true or false"),
    ],
)
def test_a_bad_request_ends_in_one_line(handler, request_, message):
    with pytest.raises(ValueError, match=message) as error:
        handler(request_)
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_an_error_entry_and_the_order_stays(handler, face, expected):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x09\0\0\0\xff\xff\0\0"
    damaged_exif = encode(Image.new("RGB", (64, 64)), "JPEG", exif=exif)  # is read all the same
    answers = handler({"inputs": [face, None, damaged_exif, face[:99], "no base64!", face]})
    assert_same(answers[0], expected)
    assert_same(answers[-1], expected)
    assert answers[1] == {"error": "give an image as its bytes or their base64 text"}
    assert [isinstance(answer, dict) for answer in answers] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
    assert all("\n" not in answer["error"] for answer in answers if isinstance(answer, dict))
    assert handler({"inputs": []}) == []


def test_a_request_has_a_limit_of_images_and_of_pixels_in_all(loaded, monkeypatch):
    module, handler = loaded
    flat = encode(Image.new("RGB", (16, 16)))
    with pytest.raises(ValueError, match="1,000 images: send at most 128"):
        handler({"inputs": [flat] * 1000})
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    assert len(handler({"inputs": [flat] * 3})) == 3
    with pytest.raises(ValueError, match="megapixels in all"):
        handler({"inputs": [flat] * 4})


def test_the_model_runs_in_chunks_and_a_strip_is_not_resized_as_a_whole(loaded, monkeypatch):
    _, handler = loaded
    shapes = []
    hook = handler.model.register_forward_pre_hook(
        lambda model, args, kwargs: shapes.append(tuple(kwargs["pixel_values"].shape)),
        with_kwargs=True,
    )
    resized = []
    process = handler.processor.__class__.__call__
    monkeypatch.setattr(
        handler.processor.__class__,
        "__call__",
        lambda self, image, **options: (
            resized.append(image.size) or process(self, image, **options)
        ),
    )
    strip = encode(Image.new("RGB", (100_000, 16)))
    answers = handler({"inputs": [strip] + [encode(Image.new("RGB", (16, 16)))] * 39})
    hook.remove()
    assert len(answers) == 40
    assert [shape[0] for shape in shapes] == [32, 8]
    assert resized[0] == (128, 16)


@pytest.fixture
def haar(monkeypatch):
    """Faces by OpenCV's cascade, which needs no file."""
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)


@pytest.mark.filterwarnings("ignore:cannot get")
@pytest.mark.parametrize("shortest_edge", [112, 128])
def test_faces_are_found_aligned_and_scored_as_the_predictor_does(haar, tmp_path, shortest_edge):
    file = check_out(Path(default_checkpoint()), tmp_path) / "preprocessor_config.json"
    size = {"size": {"shortest_edge": shortest_edge}}  # of whole images; aligned faces are cut
    file.write_text(json.dumps(json.loads(file.read_text()) | size))
    _, handler = load_handler(tmp_path)
    (face,) = serve(handler, request(HOPPER.read_bytes(), detect_faces=True))[1]
    (expected,) = AttributePredictor.from_pretrained(tmp_path, backend="torch")(HOPPER)
    assert list(face["box"].values()) == [round(x) for x in expected["box"]]
    assert face["score"] == pytest.approx(expected["score"], abs=1e-4)
    scores = {entry["label"]: entry["score"] for entry in face["labels"]}
    assert scores == pytest.approx(expected["attributes"], abs=1e-4)


@pytest.mark.filterwarnings("ignore:cannot get")
def test_a_photo_without_a_face_gives_an_empty_list(haar, handler, face):
    handler._detector = None
    assert serve(handler, request(face, detect_faces=True)) == (200, [])


ALONE = """
import importlib.util, json, sys
assert importlib.util.find_spec("label2label") is None
folder, photo = sys.argv[1:]
sys.path.insert(0, folder)  # as the toolkit does
spec = importlib.util.spec_from_file_location("handler", folder + "/handler.py")
module = importlib.util.module_from_spec(spec)
sys.modules["handler"] = module
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
data = open(photo, "rb").read()
faces = handler({"inputs": data, "parameters": {"detect_faces": True}})
print(json.dumps({"whole": handler({"inputs": data}), "faces": faces}))
import label2label.faces.detection
assert label2label.faces.detection.__file__.startswith(folder)
"""


@pytest.mark.slow
def test_it_runs_where_the_package_is_not_installed(handler, checkout, tmp_path):
    site = str(Path(np.__file__).parents[1])
    if (Path(site) / "label2label").exists():
        pytest.skip("the package is installed beside its dependencies, so cannot be left out")
    done = subprocess.run(
        [sys.executable, "-S", "-c", ALONE, str(checkout), str(HOPPER)],
        capture_output=True,
        text=True,
        # -S leaves out what an editable installation puts on the path.
        env={
            **os.environ,
            "PYTHONPATH": site,
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": "http://127.0.0.1:9",
        },
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert_same(result["whole"], handler({"inputs": HOPPER.read_bytes()}))
    assert len(result["faces"]) == 1
    assert len(result["faces"][0]["labels"]) == len(ATTRIBUTES)
