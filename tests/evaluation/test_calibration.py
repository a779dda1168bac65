import hashlib
import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from label2label import Label2LabelImageProcessor
from label2label.cli import main
from label2label.data.loading import attribute_frequencies
from label2label.evaluation.calibration import (
    BALANCE_WEIGHTS,
    Calibration,
    balanced_thresholds,
    calibration_effect,
    fit_calibration,
    fit_coupling,
    fit_temperature,
    negative_log_likelihood,
    to_logits,
)
from label2label.evaluation.metrics import overall_scores
from label2label.evaluation.predictions import Predictions
from label2label.prediction.backends import load_model
from safetensors.torch import load_file
from scipy.special import expit
from sklearn.metrics import log_loss

from .conftest import ATTRIBUTES


@pytest.fixture(scope="module")
def overconfident():
    """Logits twice as large as the truth's, of four attributes from rare to even, and labels."""
    generator = np.random.default_rng(0)
    true_logits = generator.normal([-4, -3, -1.5, 0], 2, (3000, 4))
    labels = (generator.random((3000, 4)) < 1 / (1 + np.exp(-true_logits))).astype(int)
    labels[generator.random((3000, 4)) < 0.1] = -100
    return 2 * true_logits, labels


def test_the_temperature_undoes_an_overconfidence_of_two(overconfident):
    assert fit_temperature(*overconfident) == pytest.approx(2, abs=0.1)


def test_no_other_temperature_is_more_likely(overconfident):
    logits, labels = overconfident
    best = fit_temperature(logits, labels)
    likelihoods = [
        negative_log_likelihood(expit(logits / t), labels, np.ones(len(labels)))
        for t in (0.9 * best, best, 1.1 * best)
    ]
    assert np.argmin(likelihoods) == 1


def test_negative_log_likelihood_is_scikit_learns(overconfident):
    logits, labels = overconfident
    probabilities = expit(logits / 2.0)
    known = labels != -100
    expected = log_loss(labels[known], probabilities[known])
    assert float(
        negative_log_likelihood(probabilities, labels, np.ones(len(labels)))
    ) == pytest.approx(expected)


def test_logits_of_certain_probabilities_are_finite():
    logits = np.array([-5.0, 0.0, 3.0])
    assert to_logits(expit(logits)) == pytest.approx(logits)
    assert to_logits(np.array([0.0, 1.0])).tolist() == [-30, 30]


def test_thresholds_run_from_one_half_to_the_frequency():
    frequency = np.array([0.02, 0.3, 0.5, 0.9])
    assert balanced_thresholds(frequency, 0.0).tolist() == [0.5] * 4
    assert balanced_thresholds(frequency, 1e9) == pytest.approx(frequency)
    between = balanced_thresholds(frequency, 0.1)
    assert (np.minimum(frequency, 0.5) <= between).all()
    assert (between <= np.maximum(frequency, 0.5)).all()


def test_no_other_threshold_has_a_better_expected_score():
    # Expected over calibrated probabilities that are spread evenly: by enumeration.
    probabilities = (np.arange(10_000) + 0.5) / 10_000 * 0.6
    frequency, weight = probabilities.mean(), 0.4
    candidates = np.linspace(0.01, 0.59, 59)
    scores = []
    for threshold in candidates:
        yes = probabilities >= threshold
        right = np.where(yes, probabilities, 1 - probabilities).mean()
        sensitivity = probabilities[yes].sum() / probabilities.sum()
        specificity = (1 - probabilities[~yes]).sum() / (1 - probabilities).sum()
        scores.append(right + weight * (sensitivity + specificity) / 2)
    (threshold,) = balanced_thresholds(np.array([frequency]), weight)
    assert candidates[np.argmax(scores)] == pytest.approx(threshold, abs=0.01)


def test_fitted_thresholds_gain_balanced_accuracy_and_cost_no_more_than_allowed(overconfident):
    logits, labels = overconfident
    calibration = fit_calibration(logits, labels, accuracy_loss=0.002)

    def scores(weight):
        thresholds = balanced_thresholds(attribute_frequencies(labels), weight)
        decisions = expit(logits / calibration.temperature) >= thresholds
        return overall_scores(decisions.astype(float), labels)

    half, chosen = scores(0.0), scores(calibration.balance_weight)
    assert calibration.balance_weight > 0
    assert chosen["accuracy"] >= half["accuracy"] - 0.002
    assert chosen["balanced_accuracy"] > half["balanced_accuracy"] + 0.01
    larger = [w for w in BALANCE_WEIGHTS if w > calibration.balance_weight]
    assert all(scores(w)["accuracy"] < half["accuracy"] - 0.002 for w in larger)


@pytest.mark.parametrize("label", [-100, 0, 1])
def test_an_attribute_whose_labels_are_unknown_or_all_the_same_keeps_one_half(overconfident, label):
    logits, labels = overconfident
    more = np.hstack([labels, np.full((3000, 1), label)])
    calibration = fit_calibration(np.hstack([logits, logits[:, :1]]), more, accuracy_loss=0.01)
    assert calibration.balance_weight > 0
    assert calibration.thresholds[-1] == 0.5


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture(scope="session")
def two_splits(dataset_folder, tmp_path_factory):
    """The noise images as validation and as test."""
    folder = tmp_path_factory.mktemp("datasets") / "two"
    (folder / "data").mkdir(parents=True)
    rows = datasets.Dataset.from_parquet(str(next(dataset_folder.glob("data/*.parquet"))))
    for split in ("validation", "test"):
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def calibrate(model, data, *more):
    return main(
        ["calibrate", "--model", str(model), "--data", str(data), "--bootstrap", "100", *more]
    )


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_folder_gets_a_temperature_and_thresholds_and_nothing_else_changes(
    folder, two_splits, tmp_path
):
    before = json.loads((folder / "config.json").read_text())
    weights = digest(folder)
    output = tmp_path / "calibration.json"
    assert calibrate(folder, two_splits, "--output", str(output), "--accuracy-loss", "0.3") == 0
    result = json.loads(output.read_text())
    after = json.loads((folder / "config.json").read_text())
    assert after.pop("temperature") == pytest.approx(result["temperature"], abs=1e-5)
    assert before.pop("temperature") == 1.0
    assert after == before
    assert digest(folder) == weights
    processor = Label2LabelImageProcessor.from_pretrained(folder)
    assert processor.attributes == ATTRIBUTES
    assert dict(zip(ATTRIBUTES, processor.thresholds, strict=True)) == result["thresholds"]
    assert sorted(path.name for path in folder.iterdir() if path.name[0] == ".") == []


def test_an_output_that_cannot_be_written_leaves_the_model_as_it_was(
    folder, two_splits, tmp_path, capsys
):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "file").write_text("")
    assert calibrate(folder, two_splits, "--output", str(tmp_path / "file" / "x.json")) == 2
    assert "file is not a folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_too_few_resamples_for_an_interval_are_refused(folder, two_splits, capsys):
    with pytest.raises(SystemExit):
        calibrate(folder, two_splits, "--bootstrap", "99")
    assert (
        "--bootstrap: 99 is out of range: give a number of at least 100" in capsys.readouterr().err
    )


def test_a_second_calibration_finds_the_same(folder, two_splits):
    calibrate(folder, two_splits)
    first = [(folder / name).read_text() for name in ("config.json", "preprocessor_config.json")]
    assert load_model(folder)[0].config.temperature != 1.0
    calibrate(folder, two_splits)
    second = [(folder / name).read_text() for name in ("config.json", "preprocessor_config.json")]
    assert json.loads(second[0])["temperature"] == pytest.approx(
        json.loads(first[0])["temperature"], abs=1e-4
    )
    assert second[1] == first[1]


def test_the_effect_is_measured_on_the_other_split(folder, two_splits, tmp_path, capsys):
    output = tmp_path / "calibration.json"
    calibrate(folder, two_splits, "--measure-on", "test", "--output", str(output))
    result = json.loads(output.read_text())
    measured = result["measured_on"]
    assert (result["fitted_on"]["split"], measured["split"]) == ("validation", "test")
    assert measured["num_images"] == 67
    # The same images here: a fitted temperature cannot be less likely than none.
    assert measured["scores"]["negative_log_likelihood"]["difference"] <= 1e-6
    assert "expected calibration error" in capsys.readouterr().out


def test_the_effect_by_hand():
    # Logits of 2 that are right half of the time; a threshold of 0.9 turns every yes into a no.
    predictions = Predictions(
        names=["Male"],
        probabilities=np.full((100, 1), 1 / (1 + np.exp(-2))),
        labels=np.array([1, 0] * 50)[:, None],
    )
    effect = calibration_effect(predictions, 1.0, Calibration(1e6, np.array([0.9]), 0.0), 10)
    error, f1 = effect["expected_calibration_error"], effect["f1"]
    assert error["other"] == pytest.approx(1 / (1 + np.exp(-2)) - 0.5)
    assert error["model"] == pytest.approx(0, abs=1e-5)
    assert (f1["model"], f1["other"]) == (0, pytest.approx(2 / 3))
    assert effect["accuracy"]["difference"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "user/model"}, "user/model is not a folder"),
        ({"more": ["--measure-on", "validation"]}, "the split that is fitted to"),
        ({"more": ["--split", "train"]}, "has no split 'train'"),
        ({"more": ["--measure-on", "train"]}, "has no split 'train'"),
    ],
)
def test_what_cannot_be_calibrated_changes_nothing(folder, two_splits, change, message, capsys):
    before = (folder / "config.json").read_text()
    assert calibrate(change.get("model", folder), two_splits, *change.get("more", ())) == 2
    assert message in capsys.readouterr().err
    assert (folder / "config.json").read_text() == before


def test_a_coupling_is_fitted_to_another_split_and_all_else_stays(folder, two_splits):
    before = load_file(folder / "model.safetensors")
    assert calibrate(folder, two_splits, "--couple-on", "test") == 0
    after = load_file(folder / "model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"coupling.weight"}
    assert load_model(folder)[0].coupling.weight.diagonal().abs().max() == 0
    assert sorted(path.name for path in folder.iterdir() if path.name[0] == ".") == []


def test_a_coupling_on_the_split_of_the_thresholds_is_refused(folder, two_splits, capsys):
    assert calibrate(folder, two_splits, "--couple-on", "validation") == 2
    assert "choose a split of its own" in capsys.readouterr().err


def draw(images: int, seed: int) -> np.ndarray:
    """Labels of three attributes: the second is mostly the first, the third is no one's."""
    rng = np.random.default_rng(seed)
    first = rng.random(images) < 0.5
    second = np.where(rng.random(images) < 0.9, first, ~first)
    return np.stack([first, second, rng.random(images) < 0.5], axis=1).astype(int)


def test_it_finds_which_words_tell_of_which():
    labels = draw(4000, 0)
    nothing = np.zeros(labels.shape)  # a model that sees nothing in the image
    weight = fit_coupling(nothing, nothing, labels).numpy()
    assert weight.diagonal() == pytest.approx(0)
    # A surprise of one half either way says 0.9 or 0.1, a logit of 2.2; the fit stops on its way.
    assert 3.0 < weight[0, 1] < 4.4
    assert 3.0 < weight[1, 0] < 4.4
    assert np.abs(weight[[0, 1, 2, 2], [2, 2, 0, 1]]).max() < 0.5


def test_unknown_labels_are_neither_given_nor_asked():
    labels = draw(4000, 1)
    nothing = np.zeros(labels.shape)
    labels[:, 1] = -100
    weight = fit_coupling(nothing, nothing, labels).numpy()
    assert np.abs(weight[1]).max() == np.abs(weight[:, 1]).max() == 0
