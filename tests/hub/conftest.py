"""A Hub on this machine, and small things to push to it."""

import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import constants, utils
from huggingface_hub.utils import _http
from label2label import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
    MobileFaceNetConfig,
    MobileFaceNetModel,
)
from label2label.cli import main
from PIL import Image

from .hub_server import HubServer

TOKEN = "token-of-someone"
ATTRIBUTES = ["Bald", "Eyeglasses", "Male", "Smiling", "Young"]


@pytest.fixture
def hub(monkeypatch):
    """Start a fake Hub where `someone` may write, and point this process's client at it."""
    with HubServer() as server:
        server.add_user("someone", token=TOKEN, organisations=("studio",))
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between its own retries
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def push(capsys):
    """Run `label2label push`; return the exit code, standard output and standard error.

    Standard error is without the bars of uploads.
    """

    def run(*arguments):
        utils.disable_progress_bars()
        code = main(["push", *map(str, arguments)])
        utils.enable_progress_bars()
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
    """Save a tiny random model by `save_pretrained`."""
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
    """Write a dataset of drawn images as the programs of datasets_scripts/ do."""

    def make(name="faces", rows=4, source="drawn", redistributable=True, terms="Free."):
        features = {"image": datasets.Image(), "Eyeglasses": datasets.Value("bool")}
        features |= dict.fromkeys(("identity", "source"), datasets.Value("string"))
        for split, numbers in (("train", range(rows - 1)), ("test", [rows - 1])):
            table = {
                "image": [Image.new("RGB", (16, 16), (10 * i,) * 3) for i in numbers],
                "Eyeglasses": [i % 2 == 0 for i in numbers],
                "identity": [str(i) for i in numbers],
                "source": [source for _ in numbers],
            }
            data = datasets.Dataset.from_dict(table, features=datasets.Features(features))
            (tmp_path / name / "data").mkdir(parents=True, exist_ok=True)
            data.to_parquet(tmp_path / name / f"data/{split}-00000-of-00001.parquet")
        description = {"title": "Faces", "terms": terms, "redistributable": redistributable}
        record = {"label2label": "0.1.0", "description": description}
        (tmp_path / name / "preparation.json").write_text(json.dumps(record))
        (tmp_path / name / "skipped.csv").write_text("image,reason\n")
        (tmp_path / name / "README.md").write_text("---\nlicense: cc0-1.0\n---\n\n# Faces\n")
        return tmp_path / name

    return make
