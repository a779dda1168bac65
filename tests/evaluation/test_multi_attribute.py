import os
import subprocess
import sys
from pathlib import Path

import evaluate
import label2label
import numpy as np
import pytest
from label2label.evaluation import MULTI_ATTRIBUTE, metrics


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (50, 3))
    labels[generator.random((50, 3)) < 0.3] = -100
    labels[:, 2] = -100
    return generator.random((50, 3)).astype(np.float32), labels


def load(**options):
    return evaluate.load(MULTI_ATTRIBUTE, **options)


def test_loads_from_its_path_without_a_network_and_scores_as_the_functions(
    predictions, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    probabilities, labels = predictions
    scores = load(cache_dir=str(tmp_path)).compute(predictions=probabilities, references=labels)
    for name, expected in metrics.overall_scores(probabilities, labels).items():
        assert scores[name] == pytest.approx(float(expected), abs=1e-6)
    accuracy = scores["per_attribute"]["accuracy"]
    assert len(accuracy) == 3
    assert np.isnan(accuracy[2])


def test_batches_add_up_to_the_whole(predictions, tmp_path):
    probabilities, labels = predictions
    metric = load(cache_dir=str(tmp_path))
    for start in range(0, 50, 16):
        batch = slice(start, start + 16)
        metric.add_batch(predictions=probabilities[batch], references=labels[batch])
    whole = metrics.mean_accuracy(probabilities, labels)
    assert metric.compute()["accuracy"] == pytest.approx(float(whole))


@pytest.mark.slow
def test_two_processes_add_up_to_the_whole(predictions, tmp_path):
    probabilities, labels = predictions
    np.savez(tmp_path / "predictions.npz", probabilities=probabilities, labels=labels)
    program = """
import sys
import evaluate, numpy
from label2label.evaluation import MULTI_ATTRIBUTE
folder, process = sys.argv[1], int(sys.argv[2])
metric = evaluate.load(MULTI_ATTRIBUTE, num_process=2, process_id=process, experiment_id="pair",
                       cache_dir=folder)
data = numpy.load(folder + "/predictions.npz")
mine = slice(0, 20) if process == 0 else slice(20, 50)
metric.add_batch(predictions=data["probabilities"][mine], references=data["labels"][mine])
scores = metric.compute()
print(scores["accuracy"] if process == 0 else scores)
"""
    source = str(Path(label2label.__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(process)],
            env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    first, second = (process.communicate(timeout=120)[0].strip() for process in processes)
    assert second == "None"
    whole = metrics.mean_accuracy(probabilities, labels)
    assert float(first) == pytest.approx(float(whole))
