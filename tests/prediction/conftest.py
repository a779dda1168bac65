"""A tiny random model, for the tests of prediction."""

import pytest
from label2label.faces import detection

from ..conftest import save_tiny_model

NAMES = ("Smiling", "Male", "Wearing_Hat", "No_Beard", "Young")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Return the folder of a tiny random model of five attributes."""
    return save_tiny_model(tmp_path_factory.mktemp("model"), NAMES)


@pytest.fixture(scope="session")
def exported(model_folder, tmp_path_factory):
    """Export the tiny model to a folder with one ONNX file."""
    pytest.importorskip("onnx")
    from label2label.export.onnx import export_onnx
    from label2label.prediction.backends import load_backend

    backend = load_backend(model_folder)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path)
    return path


@pytest.fixture(autouse=True)
def offline_detector(monkeypatch):
    """Detect faces by OpenCV's bundled cascade, so that no test depends on the network."""
    monkeypatch.delenv(detection.DETECTOR_VARIABLE, raising=False)
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)
