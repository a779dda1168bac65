"""INT8 stays near float: the layers that hurt most are found, and kept in float."""

import numpy as np
import onnx
import pytest
from label2label.errors import UserError
from label2label.export.int8 import quantize_onnx
from label2label.export.onnx import export_onnx
from label2label.prediction.backends import OnnxBackend


@pytest.fixture(scope="module")
def exported(make_backend, tmp_path_factory):
    """A tiny model without the words, of few layers, and its ONNX file."""
    backend = make_backend(head_type="query2label")
    path = tmp_path_factory.mktemp("float") / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path)
    return path


@pytest.fixture(scope="module")
def whole(exported, faces):
    """What quantising every layer changes, and the file."""
    output = exported.with_name("int8.onnx")
    return quantize_onnx(exported, output, faces[:24], tolerance=1.0), output


def float_convolutions(path):
    """Convolutions whose weights are not dequantised from INT8."""
    model = onnx.load(path)
    weights = {initializer.name for initializer in model.graph.initializer}
    return [n.name for n in model.graph.node if n.op_type == "Conv" and n.input[1] in weights]


def test_within_the_tolerance_everything_is_quantised_and_nothing_searched(whole):
    report, output = whole
    assert report["float_layers"] == []
    assert report["sensitivity"] == {}
    assert float_convolutions(output) == []
    assert OnnxBackend(output).preprocessing.attributes[0] == "Smiling"


def test_search_keeps_the_most_sensitive_layers_in_float(whole, exported, faces, tmp_path):
    total = whole[0]["change"]
    output = tmp_path / "int8.onnx"
    report = quantize_onnx(exported, output, faces[:24], tolerance=0.7 * total)
    assert 0 < report["change"] <= 0.7 * total
    changes = list(report["sensitivity"].values())
    assert changes == sorted(changes, reverse=True)
    assert report["float_layers"] == list(report["sensitivity"])[: len(report["float_layers"])]
    convolutions = [n.name for n in onnx.load(exported).graph.node if n.op_type == "Conv"]
    kept = [name for name in report["float_layers"] if name in convolutions]
    assert len(float_convolutions(output)) >= len(kept)


def test_tolerance_that_cannot_be_met_is_an_error_and_leaves_no_file(exported, faces, tmp_path):
    with pytest.raises(UserError, match="calibrate with more faces"):
        quantize_onnx(exported, tmp_path / "int8.onnx", faces[:8], tolerance=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_known_labels_change_int8_as_they_change_float(backend, faces, tmp_path):
    paths = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    export_onnx(backend.model, backend.preprocessing, paths[0], known_labels=True)
    quantize_onnx(*paths, faces[:24], tolerance=1.0)
    changes = []
    for model in map(OnnxBackend, paths):
        inputs = model.prepare(faces[:8])
        (before,) = model.session.run(["probabilities"], inputs)
        inputs["known_labels"][:, :2] = 1, 0
        (after,) = model.session.run(["probabilities"], inputs)
        changes.append((after - before)[:, 2:])
    assert np.abs(changes[0]).mean() > 0.05
    assert np.abs(changes[1] - changes[0]).mean() < 0.5 * np.abs(changes[0]).mean()
