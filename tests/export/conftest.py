"""A tiny random model, exported, for the tests of export and of what runs its files."""

import numpy as np
import pytest
import torch
from label2label.models import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
)
from label2label.prediction.backends import TorchBackend

pytest.importorskip("onnx")
NAMES = ("Smiling", "Male", "Wearing_Hat", "No_Beard", "Young")


def random_model(out_features=None, **options):
    """Build a tiny model whose BatchNorms and temperature differ from their initial values."""
    torch.manual_seed(0)
    config = Label2LabelConfig(
        backbone_config={
            "model_type": "mobilefacenet",
            "width_multiplier": 0.25,
            "hidden_act": "relu6",
            "stages": [[2, 64, 2, 2], [2, 128, 1, 2], [2, 128, 1, 2]],
            "out_features": out_features,
        },
        hidden_size=16,
        intermediate_size=16,
        initializer_range=1.0,
        temperature=1.7,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
        **options,
    )
    model = Label2LabelForImageClassification(config)
    for name, tensor in model.state_dict().items():
        if "normalization" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    if model.config.head_type == "label2label":
        torch.nn.init.normal_(model.coupling.weight)
    return model.eval()


@pytest.fixture(scope="session")
def make_backend():
    """Make a tiny model in PyTorch, with options of its config."""
    return lambda **options: TorchBackend(random_model(**options), Label2LabelImageProcessor())


@pytest.fixture(scope="session")
def backend(make_backend):
    """Return the tiny model in PyTorch."""
    return make_backend()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, backend):
    """Return the tiny model's folder."""
    folder = tmp_path_factory.mktemp("model")
    backend.model.save_pretrained(folder)
    backend.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def faces():
    """Return random pixels, uint8 (64, 112, 112, 3)."""
    return np.random.default_rng(0).integers(0, 256, (64, 112, 112, 3), dtype=np.uint8)
