"""What programs get from the Space, by gradio_client."""

import re
import shutil
import time
from pathlib import Path

import pytest
from api import EXAMPLE
from label2label.checkpoints import checkpoint_names, default_checkpoint
from label2label.prediction.predictor import AttributePredictor

from .conftest import ROOT, SPACE, find_detector

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(space_url):
    gradio_client = pytest.importorskip("gradio_client")
    return gradio_client.Client(space_url, verbose=False)


@pytest.fixture(scope="module")
def predict(client):
    from gradio_client import handle_file

    def call(path, model="", known=None, maps=False):
        photo = handle_file(str(path)) if path else None
        return client.predict(photo, model, known, maps, api_name="/predict")

    return call


def test_attributes_are_those_that_the_package_predicts(predict, photo_files, monkeypatch):
    answer = predict(photo_files["portrait.jpg"])
    detector = find_detector()
    if detector is None:
        pytest.skip("no YuNet file: the Space and this test would each warn of the cascade")
    monkeypatch.setenv("LABEL2LABEL_FACE_DETECTOR", detector)
    # The package's own default is the INT8 file beside it, which the Space offers as another model.
    predictor = AttributePredictor.from_pretrained(Path(default_checkpoint(), "model.onnx"))
    (expected,) = predictor(str(photo_files["portrait.jpg"]))
    (face,) = answer["faces"]
    assert face["box"] == pytest.approx(expected["box"], abs=1)
    for name in ("size", "roll", "warnings"):
        assert face[name] == expected[name]
    present = {name for name, entry in face["attributes"].items() if entry["present"]}
    assert present == set(expected["present"])
    told = {name: entry["probability"] for name, entry in face["attributes"].items()}
    assert told == pytest.approx(expected["attributes"], abs=1e-3)
    assert face["attributes"]["Wearing_Hat"]["present"] is True
    assert answer["notes"] == []


def test_known_attributes_and_maps_on_request(predict, photo_files):
    answer = predict(photo_files["portrait.jpg"], "random-tiny", {"Young": True}, True)
    attributes = answer["faces"][0]["attributes"]
    assert answer["model"] == "random-tiny"
    assert attributes["Young"] == {**attributes["Young"], "probability": 1, "present": True}
    for entry in attributes.values():
        assert max(map(max, entry["map"])) == 1


def test_the_models_are_listed_with_their_size_and_speed(client):
    first, *others = client.predict(api_name="/models")
    assert first["kind"] == "default"
    assert len(first["attributes"]) == len(first["thresholds"]) == 41
    assert first["parameters"] < 2_000_000
    assert first["milliseconds"] > 0
    whole = [model["key"] for model in others if not model["int8"]]
    assert whole[-1] == "random-tiny"
    assert all(model["int8"] for model in others[len(whole) :])


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (None, {}, "no photo yet"),
        ("no_face.png", {}, "No face was found"),
        ("not_an_image.jpg", {}, "not a photo that can be read"),
        ("hundred_megapixels.png", {}, "the limit is 50 megapixels"),
        ("portrait.jpg", {"model": "other"}, f"Choose one of: {checkpoint_names()[0]}"),
        ("portrait.jpg", {"known": {"Halo": True}}, "no attribute Halo"),
        ("portrait.jpg", {"known": {"Young": 3}}, "must be true or false"),
        ("portrait.jpg", {"known": [1, 2]}, "What is known must be an object"),
    ],
)
def test_bad_requests_get_a_sentence(predict, photo_files, name, options, text):
    with pytest.raises(Exception, match=text):
        predict(name and photo_files[name], **options)


def test_files_of_programs_are_deleted_again(predict, photo_files, uploads):
    predict(photo_files["portrait.jpg"])
    deadline = time.monotonic() + 75
    while any(path.is_file() and path.name != ".lock" for path in uploads.rglob("*")):
        assert time.monotonic() < deadline, "a file outlived the minute that the page tells"
        time.sleep(2)


def code_block(page):
    """The Python example of a page, which needs a Space that runs."""
    (code,) = re.findall(r"^```py(?:thon)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return code


@pytest.mark.parametrize(
    "code",
    [code_block(ROOT / "docs" / "space.md"), code_block(SPACE / "README.md"), EXAMPLE],
    ids=["docs", "readme", "page"],
)
def test_the_examples_that_pages_show_run(
    client, code, space_url, photo_files, tmp_path, monkeypatch, capsys
):
    shutil.copy(photo_files["portrait.jpg"], tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code, replaced = re.subn(r'Client\("[^"]+"', f'Client("{space_url}"', code)
    assert replaced == 1
    exec(compile(code, "example", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"\{'probability': [\d.]+, 'present': (True|False)", printed)
    assert (checkpoint_names()[1] in printed) == ('"/models"' in code)
