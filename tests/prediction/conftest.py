"""A tiny random model and photos, for the tests of prediction."""

import pytest
import torch
from label2label.faces import detection
from label2label.models import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
)
from PIL import Image

NAMES = ("Smiling", "Male", "Wearing_Hat", "No_Beard", "Young")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Return the folder of a tiny random model of five attributes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    config = Label2LabelConfig(
        backbone_config={"model_type": "mobilefacenet", "width_multiplier": 0.25},
        hidden_size=16,
        intermediate_size=16,
        initializer_range=1.0,  # so that photos differ in more than the fourth decimal
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )
    Label2LabelForImageClassification(config).save_pretrained(folder)
    Label2LabelImageProcessor().save_pretrained(folder)
    return folder


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


@pytest.fixture(scope="session")
def portrait():
    """Return a public-domain portrait with one face, 512x600."""
    cbook = pytest.importorskip("matplotlib.cbook")
    return Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")
