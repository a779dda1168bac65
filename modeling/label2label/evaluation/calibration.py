"""Fit one temperature and one threshold per attribute (`label2label calibrate`).

The temperature (arXiv:1706.04599, section 4.2) divides the logits and minimises the negative
log-likelihood of held-out labels.

The thresholds follow from decision theory, because a separate search per attribute would overfit.
For calibrated probabilities, the threshold that maximises the expected
accuracy + w * balanced accuracy depends only on w and the attribute's frequency: w = 0 gives 0.5, a
large w gives the frequency. So a single w is chosen for all attributes: the largest with which the
accuracy on the same held-out labels stays within the permitted loss.
"""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from label2label.data.loading import attribute_frequencies, load_split
from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.evaluate import (
    collect_predictions,
    identify_model,
    library_versions,
    short_name,
)
from label2label.evaluation.intervals import Statistics, compare_paired
from label2label.evaluation.metrics import (
    THRESHOLD,
    FloatArray,
    IntArray,
    mean_accuracy,
    overall_scores,
    ratio,
)
from label2label.evaluation.predictions import Predictions
from label2label.evaluation.scores import jsonable
from label2label.files import prepare_output, replace_file, write_whole
from label2label.prediction.backends import TorchBackend, without_accelerator

BALANCE_WEIGHTS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
LOGIT_LIMIT = 30.0
DECISION_SCORES = ("accuracy", "balanced_accuracy", "f1")
COUPLING_STEPS = 500  # early stopping keeps the weights of rare attributes small
COUPLING_RIDGE = 1e-5  # factor of the sum of squared weights in the loss


@dataclass(frozen=True)
class Calibration:
    """Temperature and thresholds, fitted to held-out images."""

    temperature: float  # divisor of the logits, above 0
    thresholds: FloatArray  # least probability at which each attribute is present, (attributes,)
    balance_weight: float  # w, the weight of balanced accuracy, 0 or more


def calibrate_command(args: Namespace) -> int:
    """Run `label2label calibrate`: rewrite the calibration, and coupling, in a model's folder."""
    folder = Path(args.model)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: calibrate rewrites a model's files in place")
    if args.measure_on == args.split:
        raise UserError(
            f"--measure-on {args.split} is the split that is fitted to: choose another one"
        )
    if args.couple_on and args.couple_on in (args.split, args.measure_on):
        raise UserError(f"--couple-on {args.couple_on}: choose a split of its own, such as train")
    if args.output:
        prepare_output(Path(args.output))
    accelerator = Accelerator(cpu=without_accelerator())
    splits = (args.split, args.measure_on, args.couple_on)
    datasets = [load_split(args.data, split) if split else None for split in splits]
    model = TorchBackend.from_pretrained(folder)
    config: Any = model.model.config
    if args.couple_on and config.head_type != "label2label":
        raise UserError("--couple-on needs a label2label head: other heads take no known words")
    fitting, measured, coupled = (
        dataset and collect_predictions(model, dataset, (), args.batch_size, accelerator)
        for dataset in datasets
    )
    # Exiting before the process group is destroyed may abort the process.
    accelerator.end_training()
    if fitting is None:
        return 0
    # The fit needs logits at temperature 1, so the current division is undone.
    temperature = float(config.temperature)
    calibration = fit_calibration(
        to_logits(fitting.probabilities) * temperature, fitting.labels, args.accuracy_loss
    )
    effect = measured and calibration_effect(measured, temperature, calibration, args.bootstrap)
    if coupled:
        store_coupling(folder, coupled, temperature)
    result = {
        "model": identify_model(folder, model),
        "dataset": {"name": short_name(args.data)},
        "temperature": calibration.temperature,
        "balance_weight": calibration.balance_weight,
        "accuracy_loss": args.accuracy_loss,
        "thresholds": dict(zip(fitting.names, calibration.thresholds.round(4), strict=True)),
        "fitted_on": {"split": args.split, "num_images": len(fitting.labels)},
        "coupled_on": coupled and {"split": args.couple_on, "num_images": len(coupled.labels)},
        "measured_on": measured
        and {"split": args.measure_on, "num_images": len(measured.labels), "scores": effect},
        "versions": library_versions(),
    }
    store_calibration(folder, fitting.names, calibration)
    if args.output:
        text = json.dumps(jsonable(result), indent=1, allow_nan=False)
        write_whole(Path(args.output), text + "\n")
    print(summary(result))
    return 0


def fit_calibration(
    logits: FloatArray, labels: IntArray, accuracy_loss: float = 0.0005
) -> Calibration:
    """Fit the temperature to logits at temperature 1, and thresholds for balanced accuracy.

    The weight is the largest in `BALANCE_WEIGHTS` with which the mean accuracy is at most
    `accuracy_loss` below that of thresholds of 0.5.
    """
    temperature = fit_temperature(logits, labels)
    probabilities = expit(logits / temperature)
    # Where all labels are the same, balanced accuracy is undefined: the threshold stays 0.5.
    both = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    frequency = np.where(both, attribute_frequencies(labels), 0.5)
    accuracies = {}
    for weight in BALANCE_WEIGHTS:
        decisions = probabilities >= balanced_thresholds(frequency, weight)
        accuracies[weight] = mean_accuracy(decisions.astype(float), labels)
    least = accuracies[0.0] - accuracy_loss
    weight = max(weight for weight, accuracy in accuracies.items() if accuracy >= least)
    return Calibration(temperature, balanced_thresholds(frequency, weight), weight)


def fit_temperature(logits: FloatArray, labels: IntArray) -> float:
    """Find the temperature in 0.05..20 that minimises the negative log-likelihood."""
    known = labels != IGNORE_INDEX
    values, present = logits[known], labels[known]

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - scaled * present).mean())

    bounds = (np.log(0.05), np.log(20))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def balanced_thresholds(frequency: FloatArray, balance_weight: float) -> FloatArray:
    """Find the thresholds that maximise expected accuracy + weight * balanced accuracy.

    With probability p and frequency f of the attribute, predicting "present" gains
    p (1 + w / (2 f)) on average, and "absent" gains (1 - p) (1 + w / (2 (1 - f))). The threshold is
    the p at which the two are equal.
    """
    yes = 1 + balance_weight / (2 * frequency)
    no = 1 + balance_weight / (2 * (1 - frequency))
    return no / (yes + no)


def to_logits(probabilities: FloatArray) -> FloatArray:
    """Convert probabilities to logits, clipped to -30..30."""
    return np.clip(logit(probabilities), -LOGIT_LIMIT, LOGIT_LIMIT)


def negative_log_likelihood(
    probabilities: FloatArray, labels: IntArray, weights: FloatArray
) -> FloatArray:
    """Average the negative log-likelihood over known labels: (...)."""
    known = labels != IGNORE_INDEX
    likelihood = np.where(labels == 1, probabilities, 1 - probabilities)
    losses = np.where(known, -np.log(np.maximum(likelihood, np.finfo(float).tiny)), 0)
    return ratio(weights @ losses.sum(1), weights @ known.sum(1))


def calibration_effect(
    predictions: Predictions, temperature: float, calibration: Calibration, resamples: int = 1000
) -> dict[str, Any]:
    """Score predictions before and after calibration, on images that were not used for the fit.

    Args:
        predictions: Predictions before calibration.
        temperature: That of these predictions.
        calibration: The calibration to measure.

    Returns:
        `accuracy`, `balanced_accuracy`, `f1`, `expected_calibration_error` and
        `negative_log_likelihood`, each as by `compare_paired`: `model` is after, `other` before
        (temperature 1, thresholds of 0.5).
    """
    labels, clusters = predictions.labels, predictions.clusters
    logits = to_logits(predictions.probabilities) * temperature

    def scores(probabilities: FloatArray, present: npt.NDArray[np.bool_]) -> Statistics:
        decisions = present.astype(float)
        return lambda weights: {
            **overall_scores(decisions, labels, weights, DECISION_SCORES),
            **overall_scores(probabilities, labels, weights, ["expected_calibration_error"]),
            "negative_log_likelihood": negative_log_likelihood(probabilities, labels, weights),
        }

    first, second = expit(logits), expit(logits / calibration.temperature)
    before = scores(first, first > THRESHOLD)
    after = scores(second, second >= calibration.thresholds.round(4))  # rounded as when stored
    return compare_paired(after, before, clusters, resamples)


def store_calibration(folder: Path, names: Sequence[str], calibration: Calibration) -> None:
    """Write temperature and thresholds into a model's folder and keep all other settings."""
    changes = {
        "config.json": {"temperature": round(calibration.temperature, 6)},
        "preprocessor_config.json": {
            "attributes": list(names),
            "thresholds": calibration.thresholds.round(4).tolist(),
        },
    }
    for file, changed in changes.items():
        settings = json.loads((folder / file).read_text(encoding="utf-8")) | changed
        text = json.dumps(settings, indent=2) + "\n"
        (folder / f".{file}.part").write_text(text, encoding="utf-8")
    # Both files are written before either is renamed, so a full disk does not damage the model.
    for file in changes:
        os.replace(folder / f".{file}.part", folder / file)


def store_coupling(folder: Path, predictions: Predictions, temperature: float) -> None:
    """Fit the coupling of known words to training images and add it to the folder's weights."""
    assert predictions.query_probabilities is not None
    weight = fit_coupling(
        to_logits(predictions.probabilities) * temperature,
        to_logits(predictions.query_probabilities),
        predictions.labels,
    )
    file = folder / "model.safetensors"
    with replace_file(file) as draft:
        save_file({**load_file(file), "coupling.weight": weight}, draft, metadata={"format": "pt"})


def fit_coupling(logits: FloatArray, query_logits: FloatArray, labels: IntArray) -> torch.Tensor:
    """Fit the coupling of known words: a logistic regression on their residuals.

    The residual of a known word is its label minus the query network's probability. The weighted
    sum of the residuals is added to the model's logits. At each step, a random share of each
    image's labels, from none to all, is known and the loss is computed on the others, so that the
    weights suit any number of known words.

    Args:
        logits: The model's logits without known words, (images, attributes).
        query_logits: The query network's logits, (images, attributes).
        labels: (images, attributes); unknown ones are ignored.

    Returns:
        float32 weights, (known attributes, predicted attributes); the diagonal is 0.
    """
    start, target = torch.tensor(logits).float(), torch.tensor(labels).float()
    residual = target - torch.tensor(query_logits).float().sigmoid()
    labelled = target >= 0
    pairs = 1 - torch.eye(target.shape[1])
    weight = torch.zeros_like(pairs, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(COUPLING_STEPS):
        share = torch.rand(len(target), 1, generator=generator)
        given = (torch.rand(target.shape, generator=generator) < share) & labelled
        asked = (labelled & ~given).float()
        conditioned = start + (residual * given) @ (weight * pairs)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            conditioned, target.clamp(min=0), reduction="none"
        )
        loss = (losses * asked).sum() / asked.sum().clamp(min=1)
        loss = loss + COUPLING_RIDGE * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (weight * pairs).detach()


def summary(result: dict[str, Any]) -> str:
    """Summarise the fit and its effect for the terminal."""
    values = result["thresholds"].values()
    text = (
        f"temperature {result['temperature']:.4f}, thresholds {min(values):.2f} to "
        f"{max(values):.2f}, fitted to {result['fitted_on']['num_images']:,} images of "
        f"{result['fitted_on']['split']}"
    )
    if measured := result["measured_on"]:
        rows = [
            (f"{s['other']:.4f}", f"{s['model']:.4f}", "[{:+.4f}, {:+.4f}]".format(*s["interval"]))
            for s in measured["scores"].values()
        ]
        names = [name.replace("_", " ") for name in measured["scores"]]
        columns = ["before", "after", "95 % interval of the difference"]
        table = pandas.DataFrame(rows, names, columns).to_string()
        text += f"\n\n{measured['split']}, {measured['num_images']:,} images\n{table}"
    return text
