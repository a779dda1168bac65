"""Answers that contradict themselves are counted per dataset, before and after they are decided."""

import json
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import save_tiny_model

NAMES = ["Bald", "Bangs", "Male"]


@pytest.fixture
def run(load_benchmark, monkeypatch):
    program = load_benchmark("contradictions")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["contradictions.py", *map(str, arguments)])
        return program.finish(program.main)

    return run


def save_model(folder, rules):
    thresholds = {"attributes": NAMES, "thresholds": [0.001, 0.001, 0.5]}
    return save_tiny_model(folder, NAMES, **thresholds, exclusive_answers=rules)


@pytest.fixture
def data(tmp_path):
    """Ten faces, of which four are labelled bald with bangs."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (10, 48, 48, 3), dtype=np.uint8)
    rows = {
        "image": [Image.fromarray(image) for image in pixels],
        **{"Bald": [True] * 5 + [False] * 5, "Bangs": [True] * 4 + [False] * 6},
        "Male": [True, False] * 5,
    }
    features = dict.fromkeys(NAMES, datasets.Value("bool"))
    features = datasets.Features({"image": datasets.Image(), **features})
    folder = tmp_path / "faces"
    (folder / "data").mkdir(parents=True)
    rows = datasets.Dataset.from_dict(rows, features=features)
    rows.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def test_shares_are_written_per_dataset(run, data, tmp_path, capsys):
    model = save_model(tmp_path / "model", [["Bald", "Bangs"]])
    output = tmp_path / "contradictions.json"
    assert run("--model", model, "--data", data, "--output", output) == 0
    result = json.loads(output.read_text())
    faces = result["datasets"]["faces"]
    assert faces["num_images"] == 10
    shares = {
        name: faces[name]["share"] for name in faces if name not in ("num_images", "accuracy")
    }
    assert shares == {"labels": 0.4, "query_answers": 1.0, "answers": 1.0, "decided": 0.0}
    low, high = faces["accuracy"]["interval"]
    assert low <= faces["accuracy"]["difference"] <= high
    assert "faces, labels: 40.00% contradict" in capsys.readouterr().out


def test_a_model_without_rules_is_one_line(run, data, tmp_path, capsys):
    model = save_model(tmp_path / "model", [])
    assert run("--model", model, "--data", data, "--output", tmp_path / "x.json") == 2
    assert "has no rules about its attributes" in capsys.readouterr().err
