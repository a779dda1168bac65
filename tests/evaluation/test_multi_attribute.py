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


@pytest.mark.parametrize("name", metrics.PER_ATTRIBUTE)
def test_each_score_loads_alone(name, predictions, tmp_path):
    probabilities, labels = predictions
    metric = evaluate.load(MULTI_ATTRIBUTE, name, cache_dir=str(tmp_path))
    scores = metric.compute(predictions=probabilities, references=labels)
    assert set(scores) == {name, "per_attribute"}
    assert scores[name] == pytest.approx(
        float(metrics.overall_scores(probabilities, labels)[name]), abs=1e-6
    )


def test_a_score_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no score 'beauty'"):
        evaluate.load(MULTI_ATTRIBUTE, "beauty", cache_dir=str(tmp_path))


@pytest.mark.parametrize("references", [[[1, 0]], [[1], [0]], [[1, 0], [1]]])
def test_predictions_of_another_length_are_refused(references, tmp_path):
    with pytest.raises(ValueError, match=r"not of the same|Mismatch|mismatch"):
        load(cache_dir=str(tmp_path)).compute(
            predictions=[[0.5, 0.5], [0.5, 0.5]], references=references
        )


@pytest.mark.slow
def test_under_accelerate_launch_no_sample_counts_twice(
    predictions, launch_two_processes, tmp_path
):
    # 50 samples in batches of 8 over two processes: the last batches are padded.
    probabilities, labels = predictions
    np.savez(tmp_path / "predictions.npz", probabilities=probabilities, labels=labels)
    program = tmp_path / "program.py"
    program.write_text("""
import sys
import evaluate, numpy, torch
from accelerate import Accelerator
from label2label.evaluation import MULTI_ATTRIBUTE
data = numpy.load(sys.argv[1] + "/predictions.npz")
tensors = [torch.from_numpy(data[name]) for name in ("probabilities", "labels")]
accelerator = Accelerator()
assert accelerator.num_processes == 2
assert torch.distributed.get_backend() == "gloo"
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), batch_size=8)
metric = evaluate.load(MULTI_ATTRIBUTE, cache_dir=sys.argv[1] + f"/{accelerator.process_index}")
count = 0
for batch in accelerator.prepare(loader):
    probabilities, labels = accelerator.gather_for_metrics(batch)
    count += len(labels)
    metric.add_batch(predictions=probabilities, references=labels)
scores = metric.compute()
if accelerator.is_main_process:
    print("scores:", count, scores["accuracy"], scores["f1"])
""")
    printed = launch_two_processes(program, tmp_path)
    (line,) = (line for line in printed.splitlines() if line.startswith("scores:"))
    count, accuracy, f1 = line.split()[1:]
    assert int(count) == 50
    expected = metrics.overall_scores(probabilities, labels)
    assert float(accuracy) == pytest.approx(float(expected["accuracy"]))
    assert float(f1) == pytest.approx(float(expected["f1"]), abs=1e-6)


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
