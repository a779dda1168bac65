"""An exported file is scored by the command as the model that it came from."""

import json

import onnx
import pytest
from label2label.cli import main

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=["float", "uint8"])
def onnx_file(request, model_folder, tmp_path_factory):
    from label2label.export.onnx_export import export_onnx
    from label2label.prediction.torch_backend import TorchBackend

    backend = TorchBackend.from_pretrained(model_folder)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path, uint8_input=request.param == "uint8")
    return path


def evaluate(model, dataset_folder, output):
    arguments = ["evaluate", "--model", model, "--data", dataset_folder, "--output", output]
    assert main([*map(str, arguments), "--bootstrap", "100"]) == 0
    return json.loads(output.read_text())


def test_scores_are_those_of_torch(onnx_file, model_folder, dataset_folder, tmp_path):
    expected = evaluate(model_folder, dataset_folder, tmp_path / "torch.json")
    found = evaluate(onnx_file, dataset_folder, tmp_path / "onnx.json")
    assert found["num_images"] == expected["num_images"]
    for measure in ("accuracy", "balanced_accuracy", "expected_calibration_error"):
        assert found[measure] == pytest.approx(expected[measure], abs=1e-4)
    assert found["model"]["name"] == "model.onnx"
    assert len(found["model"]["weights_sha256"]) == 64
    assert found["model"]["weights_sha256"] != expected["model"]["weights_sha256"]


def test_file_of_another_model_is_one_line(dataset_folder, tmp_path, capsys):
    path = tmp_path / "other.onnx"
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([node], "other", [value], [output])
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    assert main(["evaluate", "--model", str(path), "--data", str(dataset_folder)]) == 2
    error = capsys.readouterr().err
    assert "is not an exported label2label model" in error
    assert error.count("\n") == 1
