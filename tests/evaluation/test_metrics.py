import evaluate
import numpy as np
import pytest
from label2label.evaluation import MULTI_ATTRIBUTE, metrics
from sklearn import metrics as sklearn_metrics

# Two attributes, four images; the last label of the second attribute is unknown.
PROBABILITIES = np.array([[0.9, 0.2], [0.6, 0.7], [0.4, 0.8], [0.1, 0.9]])
LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, -100]])


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    probabilities = generator.random((300, 5)).round(2)  # rounded, so that some tie
    labels = (generator.random((300, 5)) < probabilities).astype(int)
    labels[generator.random((300, 5)) < 0.2] = -100
    return probabilities, labels


def test_mean_accuracy_is_over_images_and_attributes_and_skips_unknown_labels():
    # First attribute: right, wrong, wrong, right. Second: right, right, wrong, unknown.
    assert metrics.mean_accuracy(PROBABILITIES, LABELS) == pytest.approx(4 / 7)
    np.testing.assert_allclose(
        metrics.accuracy_per_attribute(PROBABILITIES, LABELS), [2 / 4, 2 / 3]
    )


def test_a_column_that_is_unknown_throughout_changes_no_overall_score():
    probabilities = np.hstack([PROBABILITIES, np.full((4, 1), 0.9)])
    labels = np.hstack([LABELS, np.full((4, 1), -100)])
    scores = metrics.overall_scores(probabilities, labels)
    for name, expected in metrics.overall_scores(PROBABILITIES, LABELS).items():
        assert scores[name] == pytest.approx(float(expected))
    for metric in metrics.PER_ATTRIBUTE.values():
        assert np.isnan(metric(probabilities, labels)[2])


def test_a_probability_of_one_half_predicts_absent():
    assert metrics.mean_accuracy(np.array([[0.5]]), np.array([[0]])) == 1


def test_balanced_accuracy_by_hand():
    # First: both rates 1/2. Second: the one present found, one of two absent found.
    np.testing.assert_allclose(
        metrics.balanced_accuracy_per_attribute(PROBABILITIES, LABELS), [0.5, 0.75]
    )


def test_balanced_accuracy_of_an_attribute_that_is_always_present_is_undefined():
    values = metrics.balanced_accuracy_per_attribute(np.array([[0.9], [0.8]]), np.array([[1], [1]]))
    assert np.isnan(values[0])


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (metrics.accuracy_per_attribute, sklearn_metrics.accuracy_score),
        (metrics.balanced_accuracy_per_attribute, sklearn_metrics.balanced_accuracy_score),
        (metrics.f1_per_attribute, sklearn_metrics.f1_score),
    ],
)
def test_decisions_are_scored_as_by_scikit_learn(predictions, metric, reference):
    probabilities, labels = predictions
    for a, value in enumerate(metric(probabilities, labels)):
        known = labels[:, a] != -100
        assert value == pytest.approx(reference(labels[known, a], probabilities[known, a] > 0.5))


def test_average_precision_with_ties_equals_scikit_learns(predictions):
    probabilities, labels = predictions
    for a, value in enumerate(metrics.average_precision_per_attribute(probabilities, labels)):
        known = labels[:, a] != -100
        reference = sklearn_metrics.average_precision_score(
            labels[known, a], probabilities[known, a]
        )
        assert value == pytest.approx(reference)


def test_calibration_error_by_hand():
    # One bin holds 0.81 and 0.82 with one present of two, another holds 0.1, absent.
    probabilities, labels = np.array([[0.81], [0.82], [0.1]]), np.array([[1], [0], [0]])
    expected = (2 * abs(0.815 - 0.5) + 1 * abs(0.1 - 0)) / 3
    value = metrics.calibration_error_per_attribute(probabilities, labels)[0]
    assert value == pytest.approx(expected)


def test_calibration_error_of_certain_and_right_predictions_is_zero():
    labels = np.array([[1], [0]])
    assert metrics.calibration_error_per_attribute(labels.astype(float), labels)[0] == 0


def test_reliability_curve_pools_the_known_labels():
    curve = metrics.reliability_curve(PROBABILITIES, LABELS)
    assert sum(curve["count"]) == 7
    assert curve["predicted"] == sorted(curve["predicted"])


def test_answers_contradict_each_other_where_two_of_a_group_are_present():
    present = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 1], [0, 1, 1]], dtype=bool)
    rules = [["Bald", "Bangs"], ["Bangs", "Goatee", "Unknown"]]
    contradictory = metrics.contradictory(present, ["Bald", "Bangs", "Goatee"], rules)
    assert contradictory.tolist() == [True, False, False, True]
    assert not metrics.contradictory(present, ["a", "b", "c"], rules).any()


@pytest.mark.parametrize("name", metrics.PER_ATTRIBUTE)
def test_a_weight_of_two_counts_an_image_twice(predictions, name):
    probabilities, labels = predictions
    metric = metrics.PER_ATTRIBUTE[name]
    weights = np.random.default_rng(1).integers(0, 3, size=(2, 300))
    weighted = metric(probabilities, labels, weights)
    for draw, values in zip(weights, weighted, strict=True):
        repeated = metric(probabilities.repeat(draw, axis=0), labels.repeat(draw, axis=0))
        np.testing.assert_allclose(values, repeated)


def test_majority_accuracy_by_hand():
    # First attribute 2 of 4 either way, second absent in 2 of 3.
    assert metrics.majority_accuracy(LABELS) == pytest.approx(4 / 7)


@pytest.fixture
def sparse():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (50, 3))
    labels[generator.random((50, 3)) < 0.3] = -100
    labels[:, 2] = -100
    return generator.random((50, 3)).astype(np.float32), labels


def test_loads_from_its_path_without_a_network_and_scores_as_the_functions(
    sparse, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    probabilities, labels = sparse
    scores = evaluate.load(MULTI_ATTRIBUTE, cache_dir=str(tmp_path)).compute(
        predictions=probabilities, references=labels
    )
    for name, expected in metrics.overall_scores(probabilities, labels).items():
        assert scores[name] == pytest.approx(float(expected), abs=1e-6)
    accuracy = scores["per_attribute"]["accuracy"]
    assert len(accuracy) == 3
    assert np.isnan(accuracy[2])


def test_batches_add_up_to_the_whole(sparse, tmp_path):
    probabilities, labels = sparse
    metric = evaluate.load(MULTI_ATTRIBUTE, cache_dir=str(tmp_path))
    for start in range(0, 50, 16):
        batch = slice(start, start + 16)
        metric.add_batch(predictions=probabilities[batch], references=labels[batch])
    whole = metrics.mean_accuracy(probabilities, labels)
    assert metric.compute()["accuracy"] == pytest.approx(float(whole))


@pytest.mark.parametrize("references", [[[1, 0]], [[1], [0]], [[1, 0], [1]]])
def test_predictions_of_another_length_are_refused(references, tmp_path):
    with pytest.raises(ValueError, match=r"not of the same|Mismatch|mismatch"):
        evaluate.load(MULTI_ATTRIBUTE, cache_dir=str(tmp_path)).compute(
            predictions=[[0.5, 0.5], [0.5, 0.5]], references=references
        )


@pytest.mark.slow
def test_under_accelerate_launch_no_sample_counts_twice(sparse, launch_two_processes, tmp_path):
    # 50 samples in batches of 8 over two processes: the last batches are padded.
    probabilities, labels = sparse
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


@pytest.mark.parametrize("probability", [float("nan"), 1.5])
def test_what_is_no_probability_is_refused(probability, tmp_path):
    with pytest.raises(ValueError, match="must be probabilities"):
        evaluate.load(MULTI_ATTRIBUTE, cache_dir=str(tmp_path)).compute(
            predictions=[[probability]], references=[[1]]
        )
