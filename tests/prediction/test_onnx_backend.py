"""Prediction from an exported file, without torch; files that are none get one clear line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from label2label.errors import UserError
from label2label.prediction.backend import load_backend
from label2label.prediction.predictor import AttributePredictor

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("size", [(600, 512), (109, 89), (113, 240), (40, 31), (112, 112)])
def test_crop_is_the_image_processors(size, model_folder, exported):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    torch_crop, onnx_crop = (load_backend(x).crop(pixels) for x in (model_folder, exported))
    assert onnx_crop.shape == (112, 112, 3)
    assert np.array_equal(torch_crop, onnx_crop)


def test_normalized_pixels_are_the_image_processors(model_folder):
    backend = load_backend(model_folder)
    pixels = np.random.default_rng(1).integers(0, 256, (240, 113, 3), dtype=np.uint8)
    expected = backend.processor(pixels, return_tensors="np").pixel_values
    assert (
        np.abs(backend.preprocessing.normalize(backend.crop(pixels)[None]) - expected).max() < 1e-5
    )


@pytest.mark.parametrize("align", [True, False])
def test_faces_are_those_of_torch(align, model_folder, exported, portrait):
    (expected,) = AttributePredictor.from_pretrained(model_folder, align=align)(portrait)
    (face,) = AttributePredictor.from_pretrained(exported.parent, align=align)(portrait)
    assert face["box"] == expected["box"]
    assert face["attributes"] == pytest.approx(expected["attributes"], abs=2e-4)


def test_predict_imports_neither_torch_nor_transformers(exported, portrait, tmp_path):
    portrait.save(tmp_path / "portrait.png")
    program = (
        "import sys; sys.argv[0] = 'label2label'\n"
        "from label2label.cli import main\n"
        f"code = main(['predict', '--json', '--model', {str(exported)!r},"
        f" {str(tmp_path / 'portrait.png')!r}])\n"
        "loaded = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else code)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["faces"][0]["attributes"]) == 5


def write_text(path):
    path.write_text("no model")
    return "is no ONNX file that can run"


def write_truncated(path, exported):
    path.write_bytes(exported.read_bytes()[:5000])
    return "is no ONNX file that can run"


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


@pytest.mark.parametrize(
    ("key", "value"),
    [("attributes", ["Smiling", "Male"]), ("crop_size", 96), ("attributes", ["Smiling"] * 40)],
)
def test_metadata_of_another_model_are_refused(key, value, exported, tmp_path):
    model = onnx.load(exported)
    properties = {item.key: item.value for item in model.metadata_props}
    properties[f"label2label.{key}"] = json.dumps(value)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="its metadata are of another model"):
        load_backend(tmp_path / "other.onnx")


def test_missing_file_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_backend(tmp_path / "gone.onnx")


def test_folder_of_several_files_asks_for_one(exported, tmp_path):
    for name in ("model.onnx", "model_int8.onnx"):
        (tmp_path / name).write_bytes(exported.read_bytes())
    with pytest.raises(UserError, match=r"holds model\.onnx, model_int8\.onnx: give the path"):
        load_backend(tmp_path)
