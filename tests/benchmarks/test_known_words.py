"""The benchmark of known words asks the same questions at every point of its curve."""

import json
import sys

import datasets
import numpy as np
import pytest
import torch
from label2label.data.loading import label_array
from label2label.prediction.backends import TorchBackend

from tests.evaluation.conftest import ATTRIBUTES, dataset_folder, model_folder  # noqa: F401


@pytest.fixture
def benchmark_module(load_benchmark):
    return load_benchmark("known_words")


def test_what_is_asked_is_never_given_and_unknown_labels_are_neither(benchmark_module):
    labels = np.random.default_rng(0).integers(0, 2, (200, 10))
    labels[:, 3] = -100
    asked, rank = benchmark_module.draw_questions(np.random.default_rng(1), labels)
    assert not (asked & np.isfinite(rank)).any()
    assert not asked[:, 3].any()
    assert np.isinf(rank[:, 3]).all()
    half = asked.sum(1)
    assert set(half[:].tolist()) == {4, 5}
    for row in rank:
        given = np.sort(row[np.isfinite(row)])
        assert given.tolist() == list(range(len(given)))


def test_more_words_only_ever_add_to_those_given(benchmark_module):
    labels = np.ones((50, 10), dtype=int)
    _, rank = benchmark_module.draw_questions(np.random.default_rng(0), labels)
    assert ((rank < 2).sum(1) == 2).all()
    assert ((rank < 2) <= (rank < 5)).all()


def test_without_words_it_counts_what_the_plain_model_tells(
    benchmark_module,
    dataset_folder,  # noqa: F811
    model_folder,  # noqa: F811
):
    model = TorchBackend.from_pretrained(model_folder)
    rows = datasets.Dataset.from_parquet(str(next(dataset_folder.glob("data/*.parquet"))))
    labels = label_array(rows, ATTRIBUTES)
    found = benchmark_module.predict(model, rows["image"], labels, (0, 1), 5)
    with torch.inference_mode():
        outputs = model.model(**model.processor(list(rows["image"]), return_tensors="pt"))
    present = outputs.logits.numpy() > 0
    # An attribute that is right is so in every draw that asks for it.
    assert (found["right"][:, 0] == found["asked"] * (present == (labels == 1))).all()
    assert (found["asked"][labels == -100] == 0).all()


def test_a_word_that_decides_the_others_shows_in_the_curve(benchmark_module):
    # 100 images with one question each in ten draws: right in 5 of 10 without, in 9 with words.
    right = np.stack([np.full((100, 1), 5), np.full((100, 1), 9)], axis=1)
    right[:50, 1] = 10
    right[50:, 1] = 8
    asked, people = np.full((100, 1), 10), np.arange(100)
    points = benchmark_module.curve(right, asked, people, resamples=200)
    assert [point["accuracy"] for point in points] == pytest.approx([0.5, 0.9])
    assert points[0]["gain"] == 0
    assert points[1]["gain"] == pytest.approx(0.4)
    assert points[1]["gain_interval"] == pytest.approx([0.38, 0.42], abs=0.01)
    assert points[1]["gain_p_value"] <= 0.01


def test_the_command_writes_what_it_prints(
    benchmark_module,
    model_folder,  # noqa: F811
    dataset_folder,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
):
    output = tmp_path / "results" / "known_words.json"
    arguments = ["--model", model_folder, "--data", dataset_folder, "--split", "test"]
    monkeypatch.setattr(sys, "argv", ["known_words", *map(str, arguments), "--output", str(output)])
    assert benchmark_module.finish(benchmark_module.main) == 0
    result = json.loads(output.read_text())
    assert [point["given"] for point in result["curve"]] == [0, 1, 5, 10, 20]
    assert result["num_images"] == 67
    assert "20 given" in capsys.readouterr().out


def test_data_that_are_not_there_end_in_one_line(benchmark_module, monkeypatch, capsys, tmp_path):
    output = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["known_words", "--data", "/no/such", "--output", str(output)])
    assert benchmark_module.finish(benchmark_module.main) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not output.exists()
