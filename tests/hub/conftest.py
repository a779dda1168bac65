"""A Hub on this machine, and small things to push to it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _http
from label2label import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
    MobileFaceNetConfig,
    MobileFaceNetModel,
)
from label2label.cli import main
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from preparation.card import DatasetDescription
from preparation.framing import encode_image
from preparation.writing import write_dataset

from .hub_server import HubServer

TOKEN = "token-of-someone"
ATTRIBUTES = ["Bald", "Eyeglasses", "Male", "Smiling", "Young"]


@pytest.fixture
def hub(monkeypatch):
    """A Hub where `someone` may write, which this process's client takes for the real one."""
    with HubServer() as server:
        server.add_user("someone", token=TOKEN, organisations=("studio",))
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between its own retries
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def push(capsys):
    """Run `label2label push`; exit code, standard output and standard error."""

    def run(*arguments):
        code = main(["push", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def tiny_backbone_config() -> MobileFaceNetConfig:
    return MobileFaceNetConfig(
        stem_channels=8,
        stages=[[2, 8, 2, 2], [2, 16, 1, 2], [2, 16, 1, 2]],
        feature_channels=24,
        embedding_size=12,
    )


def save_model(folder: Path, seed: int = 0, attributes: Sequence[str] = ATTRIBUTES) -> Path:
    """A tiny random model, as `save_pretrained` leaves it."""
    torch.manual_seed(seed)
    config = Label2LabelConfig(
        backbone_config=tiny_backbone_config(),
        id2label=dict(enumerate(attributes)),
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
    )
    Label2LabelForImageClassification(config).eval().save_pretrained(folder)
    Label2LabelImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def model_folder(tmp_path):
    return save_model(tmp_path / "tiny")


@pytest.fixture
def backbone_folder(tmp_path):
    torch.manual_seed(0)
    MobileFaceNetModel(tiny_backbone_config()).eval().save_pretrained(tmp_path / "backbone")
    Label2LabelImageProcessor().save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


@pytest.fixture
def space_folder(tmp_path):
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "app.py").write_text("import gradio as gr\n")
    (folder / "requirements.txt").write_text("gradio==6.31.0\n")
    (folder / "README.md").write_text(
        "---\ntitle: Faces\nemoji: 🙂\ncolorFrom: blue\ncolorTo: gray\nsdk: gradio\n"
        "sdk_version: 6.31.0\napp_file: app.py\n---\n\nA demo.\n"
    )
    return folder


@pytest.fixture
def make_dataset(tmp_path):
    """Prepare a dataset of drawn images; keyword arguments go to its description."""

    def make(name="faces", rows=4, source="drawn", **kwargs):
        texts = dict.fromkeys(("title", "summary", "origin", "terms", "process", "biases"), "Drawn")
        description = DatasetDescription(
            **{**texts, "redistributable": True, "program": "test", "license": "cc0-1.0", **kwargs}
        )
        samples = [
            Sample(
                key=f"{i}.png",
                split="test" if i == rows - 1 else "train",
                source=source,
                identity=str(i),
                attributes={"Eyeglasses": i % 2 == 0},
            )
            for i in range(rows)
        ]
        images = {
            sample.key: encode_image(np.full((16, 16, 3), 10 * i, np.uint8))
            for i, sample in enumerate(samples)
        }
        write_dataset(
            samples,
            lambda sample: [(sample, images[sample.key])],
            get_vocabulary("korean-11"),
            description,
            tmp_path / name,
            workers=1,
        )
        return tmp_path / name

    return make
