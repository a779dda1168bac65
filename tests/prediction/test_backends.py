"""Prediction by ONNX Runtime without torch is that of PyTorch; bad files get one clear line."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from label2label.checkpoints import checkpoint_names, find_checkpoint
from label2label.errors import UserError
from label2label.models import Label2LabelImageProcessor
from label2label.prediction.backends import (
    OnnxBackend,
    Preprocessing,
    TorchBackend,
    find_onnx,
    load_backend,
)
from label2label.prediction.predictor import AttributePredictor
from PIL import Image
from transformers.utils import logging

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("size", [(600, 512), (109, 89), (113, 240), (40, 31), (112, 112)])
def test_crop_is_the_image_processors(size):
    processor = Label2LabelImageProcessor()
    crop = Preprocessing.from_processor(processor, ["Smiling"]).crop
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = processor(pixels, do_rescale=False, do_normalize=False, return_tensors="np")
    assert np.array_equal(crop(pixels), expected.pixel_values[0].transpose(1, 2, 0))


@pytest.mark.parametrize("upright", [True, False])
def test_of_a_long_strip_only_the_centre_is_resized(upright, monkeypatch):
    sizes, resize = [], Image.Image.resize

    def watched(self, size, *rest):
        sizes.append(size)
        return resize(self, size, *rest)

    monkeypatch.setattr(Image.Image, "resize", watched)
    strip = np.zeros((16, 100_000, 3), np.uint8)
    strip[:, 49_996:50_004] = 255
    crop = Preprocessing.from_processor(Label2LabelImageProcessor(), ["Smiling"]).crop
    cropped = crop(strip.transpose(1, 0, 2) if upright else strip)
    cropped = cropped.transpose(1, 0, 2) if upright else cropped
    assert max(sizes[0]) == 8 * 112
    assert (cropped[:, 32:80] == 255).all()
    assert (cropped[:, [0, 111]] == 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_mean": 0.5, "image_std": 0.25},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [127.5, 120.0, 110.0], "image_std": [127.5] * 3},
        {"rescale_factor": 1 / 127.5},
    ],
)
def test_normalized_pixels_are_the_image_processors(settings):
    processor = Label2LabelImageProcessor(**settings)
    asked = Preprocessing.from_processor(processor, ["Smiling"])
    pixels = np.random.default_rng(1).integers(0, 256, (240, 113, 3), dtype=np.uint8)
    expected = processor(pixels, return_tensors="np").pixel_values
    assert np.abs(asked.normalize(asked.crop(pixels)[None]) - expected).max() < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"do_resize": False},
        {"size": {"height": 112, "width": 112}},
        {"resample": 3},
        {"do_center_crop": False},
        {"crop_size": {"height": 112, "width": 96}},
    ],
)
def test_a_processor_that_crops_otherwise_is_refused(settings):
    processor = Label2LabelImageProcessor(**settings)
    with pytest.raises(UserError, match=f"fix '{next(iter(settings))}' in preprocessor_config"):
        Preprocessing.from_processor(processor, ["Smiling"])


def test_loading_a_model_leaves_the_log_of_transformers_as_it_was(model_folder):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    assert before != (logging.ERROR, False)
    TorchBackend.from_pretrained(model_folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        TorchBackend.from_pretrained(model_folder)
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()


@pytest.mark.parametrize("align", [True, False])
def test_faces_are_those_of_torch(align, model_folder, exported, portrait):
    (expected,) = AttributePredictor.from_pretrained(model_folder, align=align)(portrait)
    (face,) = AttributePredictor.from_pretrained(exported.parent, align=align)(portrait)
    assert face["box"] == expected["box"]
    assert face["attributes"] == pytest.approx(expected["attributes"], abs=2e-4)


@pytest.mark.parametrize("name", checkpoint_names())
def test_shipped_onnx_files_are_of_the_shipped_weights(name):
    # `label2label export --model NAME --output OUT` writes the file that ships.
    onnx_backend = OnnxBackend(Path(find_checkpoint(name), "model.onnx"))
    torch_backend, default = load_backend(name, "torch"), load_backend(name)
    assert isinstance(default, OnnxBackend)
    assert isinstance(torch_backend, TorchBackend)
    assert onnx_backend.preprocessing == default.preprocessing == torch_backend.preprocessing
    crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    expected = torch_backend.predict(crops)
    assert np.abs(onnx_backend.predict(crops) - expected).max() < 1e-4
    assert np.abs(default.predict(crops) - expected).mean() < 0.05  # in INT8, if it ships so


def test_onnx_file_of_other_weights_or_configs_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(find_checkpoint(checkpoint_names()[-1]), folder)
    assert isinstance(load_backend(folder), OnnxBackend)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {}  # what uploading writes changes no prediction
    (folder / "config.json").write_text(json.dumps(config))
    assert isinstance(load_backend(folder), OnnxBackend)
    config["temperature"] = 2.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="was not exported from the weights and configs beside it"):
        assert isinstance(load_backend(folder), TorchBackend)
    with pytest.raises(UserError, match="export it again"):
        load_backend(folder, "onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="export it again"):
        load_backend(folder)


def test_unknown_backend_is_refused():
    with pytest.raises(UserError, match="backend is one of onnx, torch, not tensorflow"):
        load_backend(backend="tensorflow")


def test_weights_without_torch_name_the_extra(model_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install label2label with its extra \[torch\]"):
        load_backend(model_folder)


def test_predict_imports_neither_torch_nor_transformers(exported, portrait, tmp_path):
    portrait.save(tmp_path / "portrait.png")
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'datasets'): sys.modules[name] = None  # blocked\n"
        "from label2label.cli import main\n"
        f"code = main(['predict', '--json', '--model', {str(exported)!r},"
        f" {str(tmp_path / 'portrait.png')!r}])\n"
        "sys.exit(code)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["faces"][0]["attributes"]) == 5


def write_text(path):
    path.write_text("no model")
    return "is not an ONNX file that can run"


def write_truncated(path, exported):
    path.write_bytes(exported.read_bytes()[:5000])
    return "is not an ONNX file that can run"


def write_other_model(path):
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "relu", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return "is not an exported label2label model"


@pytest.mark.parametrize("write", [write_text, write_truncated, write_other_model])
def test_file_that_is_no_exported_model_is_one_line(write, exported, tmp_path):
    path = tmp_path / "other.onnx"
    message = write(path, exported) if write is write_truncated else write(path)
    with pytest.raises(UserError, match=message) as error:
        load_backend(path)
    assert "\n" not in str(error.value)


def metadata_of(path):
    return {item.key: item.value for item in onnx.load(path).metadata_props}


def test_metadata_of_another_model_are_refused(exported, tmp_path):
    model = onnx.load(exported)
    properties = {**metadata_of(exported), "label2label.crop_size": "96"}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="its metadata belong to another model"):
        load_backend(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("attributes", "5", "attributes cannot be 5"),
        ("attributes", '["a", "a"]', r"attributes cannot be \['a', 'a'\]"),
        ("thresholds", "[]", "thresholds: 0 for 5 attributes"),
        ("thresholds", "[0, 0, 0, 0, NaN]", "thresholds cannot be"),
        ("image_mean", "null", "image_mean cannot be None"),
        ("image_std", "[0, 0, 0]", r"image_std cannot be \[0, 0, 0\]"),
        ("crop_size", "20000", "crop_size cannot be 20000"),
        ("crop_size", "[" * 5000, "have a damaged crop_size"),
        ("shortest_edge", "true", "shortest_edge cannot be True"),
        ("exclusive_answers", "5", "exclusive_answers cannot be 5"),
        ("alignment_template", "[[1, 1], [1, 1], [1, 1], [1, 1], [1, 1]]", "alignment_template"),
    ],
)
def test_metadata_out_of_range_are_refused(key, text, problem, exported):
    metadata = {**metadata_of(exported), f"label2label.{key}": text}
    with pytest.raises(UserError, match=problem):
        Preprocessing.from_metadata(metadata)


def test_an_exported_file_decides_by_its_rules(exported):
    metadata = metadata_of(exported)
    names = json.dumps(["Bald", "Bangs", "c", "d", "e"])
    metadata |= {"label2label.attributes": names, "label2label.thresholds": "[0.5,0.5,0.5,0.5,0.5]"}
    asked = Preprocessing.from_metadata(metadata)
    probabilities = np.array([[0.8, 0.7, 0.9, 0.1, 0.6]])
    assert asked.decide(probabilities).tolist() == [[True, False, True, False, True]]
    assert asked.decide(probabilities, 0.75).tolist() == [[True, False, True, False, False]]
    free = Preprocessing.from_metadata({**metadata, "label2label.exclusive_answers": "[]"})
    assert free.decide(probabilities).tolist() == [[True, True, True, False, True]]
    del metadata["label2label.exclusive_answers"]  # a file of before
    assert Preprocessing.from_metadata(metadata) == asked


@pytest.mark.hostile
def test_a_thousand_mutations_of_the_metadata_end_in_one_line_or_in_a_preprocessing(exported):
    draw = random.Random(0)
    metadata = metadata_of(exported)
    values = ["null", "5", "-1", "1e999", "NaN", '"x"', "[]", "{}", "[[]]", "true", "9" * 400, "["]
    crops = np.zeros((1, 112, 112, 3), np.uint8)
    refused = 0
    for _ in range(1000):
        mutant = dict(metadata)
        key = draw.choice([key for key in metadata if "sha256" not in key])
        text = mutant[key]
        place = draw.randrange(len(text))
        mutant[key] = draw.choice(
            [
                draw.choice(values),
                text[:place] + draw.choice(values) + text[place:],
                text[:place] + text[place + 1 :],
                text[:place] + chr(draw.randrange(1, 256)) + text[place + 1 :],
            ]
        )
        if draw.random() < 0.1:
            del mutant[key]
        try:
            asked = Preprocessing.from_metadata(mutant)
        except UserError as error:
            refused += 1
            message = str(error)
            if "\n" in message or len(message) > 200:
                pytest.fail(message)
        else:
            assert np.isfinite(asked.normalize(crops)).all()
            assert len(asked.attributes) == len(asked.thresholds)
    assert 500 < refused < 1000


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_probabilities_that_are_none_are_an_error(backend, model_folder, exported, monkeypatch):
    loaded = load_backend(exported if backend == "onnx" else model_folder)
    nothing = np.full((1, 3, 112, 112), np.nan, np.float32)
    monkeypatch.setattr(Preprocessing, "normalize", lambda self, crops: nothing)
    with pytest.raises(UserError, match="NaN in place of probabilities"):
        loaded.predict(np.zeros((1, 112, 112, 3), np.uint8))


def test_missing_file_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_backend(tmp_path / "gone.onnx")


def test_folder_of_several_files_asks_for_one(exported, tmp_path):
    for name in ("model.onnx", "model_int8.onnx"):
        (tmp_path / name).write_bytes(exported.read_bytes())
    with pytest.raises(UserError, match=r"holds model\.onnx, model_int8\.onnx: give the path"):
        load_backend(tmp_path)


def test_int8_file_of_a_model_folder_is_preferred(tmp_path):
    (tmp_path / "config.json").touch()
    assert find_onnx(tmp_path) is None
    for name in ("onnx/model.onnx", "model.onnx", "model_int8.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert find_onnx(tmp_path) == tmp_path / name
