"""OpenVINO says of our ONNX files what PyTorch says, of one image and of several."""

import numpy as np
import pytest
from label2label.checkpoints import checkpoint_names, find_checkpoint
from label2label.export.onnx import export_onnx
from label2label.prediction.backends import TorchBackend

pytestmark = pytest.mark.slow

openvino = pytest.importorskip("openvino")


def greatest_difference(backend, faces, path):
    """Of the probabilities by PyTorch and by OpenVINO, in a batch of these faces."""
    pixels = backend.preprocessing.normalize(faces)
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(pixels.shape))
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pixels)[0]
    assert found.std() > 0.01
    return np.abs(found - backend.predict(faces)).max()


@pytest.mark.parametrize("head_type", ["fc", "query2label", "label2label"])
def test_batches_are_answered_as_single_images_are(head_type, make_backend, faces, tmp_path):
    backend = make_backend(head_type=head_type)
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    for batch in (1, 2, 5):
        assert greatest_difference(backend, faces[:batch], tmp_path / "model.onnx") < 1e-4


@pytest.mark.parametrize("name", checkpoint_names())
def test_models_that_ship_are_answered_as_by_torch(name, faces, tmp_path):
    backend = TorchBackend.from_pretrained(find_checkpoint(name))
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    for batch in (1, 32):
        assert greatest_difference(backend, faces[:batch], tmp_path / "model.onnx") < 1e-4


def test_a_batch_of_any_size_is_answered_without_a_new_shape(make_backend, faces, tmp_path):
    backend = make_backend()
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.compile_model(core.read_model(tmp_path / "model.onnx"), "CPU", properties)
    for batch in (3, 1):
        found = model(backend.preprocessing.normalize(faces[:batch]))[0]
        assert np.abs(found - backend.predict(faces[:batch])).max() < 1e-4
