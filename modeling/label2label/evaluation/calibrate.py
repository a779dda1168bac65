"""`label2label calibrate`: temperature, thresholds and the coupling of known words into a model's
folder; all other weights stay."""

import json
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

from label2label.data.batching import load_split
from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.bootstrap import bootstrap_intervals, clusters_of
from label2label.evaluation.calibration import (
    FOLDS,
    Calibration,
    decision_scores,
    fit_calibration,
    negative_log_likelihood,
    to_logits,
    to_probabilities,
)
from label2label.evaluation.coupling import fit_coupling
from label2label.evaluation.evaluate import collect_predictions
from label2label.evaluation.metrics import (
    THRESHOLD,
    FloatArray,
    balanced_accuracy_per_attribute,
    calibration_error_per_attribute,
    overall_scores,
    reliability_curve,
)
from label2label.evaluation.plots import reliability_plot, save_figure
from label2label.evaluation.provenance import (
    identify_model,
    library_versions,
    short_name,
)
from label2label.evaluation.report import markdown_table
from label2label.evaluation.scores import Predictions, jsonable
from label2label.files import prepare_output, write_whole
from label2label.prediction.loading import load_model
from label2label.prediction.processes import without_accelerator


def calibrate_command(args: Namespace) -> int:
    """Run `label2label calibrate`.

    Args:
        args: `model` (folder), `data` (dataset folder or Hub id), `split` to fit to, `measure_on`
            (another split, or None), `couple_on` (the training split, to which the coupling of
            known words is fitted, or None), `output` (JSON file or None; what is measured is also
            drawn beside it, as PNG and SVG), `accuracy_loss` (0 to 1), `batch_size`, `bootstrap`
            (resamples).

    Returns:
        The exit status, 0.

    Raises:
        UserError: for a model that is no folder, a dataset or split that cannot be read, or too
            few images to fit to.
    """
    folder = Path(args.model)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: calibrate rewrites the files of a model's folder")
    if args.measure_on == args.split:
        raise UserError(
            f"--measure-on {args.split} is the split that is fitted to: measure on another"
        )
    if args.couple_on and args.couple_on in (args.split, args.measure_on):
        raise UserError(f"--couple-on {args.couple_on}: couple on a split of its own, as train")
    if args.output:
        prepare_output(Path(args.output))
    accelerator = Accelerator(cpu=without_accelerator())
    coupled_on = load_split(args.data, args.couple_on) if args.couple_on else None
    fitted_on = load_split(args.data, args.split)
    measured_on = load_split(args.data, args.measure_on) if args.measure_on else None
    model, processor = load_model(folder)
    if args.couple_on and model.config.head_type != "label2label":
        raise UserError("--couple-on is for the label2label head: others take no known words")
    # What the logits are divided by now; the fit starts from none.
    temperature = float(model.config.temperature)
    options = {"batch_size": args.batch_size, "accelerator": accelerator}
    fitting = collect_predictions(model, processor, fitted_on, **options)
    measured = (
        collect_predictions(model, processor, measured_on, **options) if measured_on else None
    )
    coupling = collect_predictions(model, processor, coupled_on, **options) if coupled_on else None
    # A process that ends while its group lives may be aborted.
    accelerator.end_training()
    if fitting is None:
        return 0
    calibration = calibrate(fitting, temperature, args.accuracy_loss)
    resamples = args.bootstrap or 1000
    effect = calibration_effect(measured, temperature, calibration, resamples) if measured else None
    if coupling is not None:
        store_coupling(folder, couple(coupling, temperature))
    result = {
        "model": identify_model(folder, model),
        "dataset": {"name": short_name(args.data)},
        "temperature": calibration.temperature,
        "balance_weight": calibration.balance_weight,
        "accuracy_loss": args.accuracy_loss,
        "thresholds": dict(zip(fitting.names, calibration.thresholds.round(4), strict=True)),
        "fitted_on": {
            "split": args.split,
            "num_images": len(fitting.labels),
            "cross_validation": calibration.cross_validation,
        },
        "coupled_on": coupling and {"split": args.couple_on, "num_images": len(coupling.labels)},
        "measured_on": effect and {"split": args.measure_on, **effect},
        "versions": library_versions(),
    }
    store_calibration(folder, fitting.names, calibration)
    if args.output:
        text = json.dumps(jsonable(result), indent=1, allow_nan=False) + "\n"
        output = Path(args.output)
        write_whole(output, text)
        if result["measured_on"]:
            save_figure(reliability_before_and_after(result), output.parent, output.stem)
    print(summary(result))
    return 0


def couple(predictions: Predictions, temperature: float) -> torch.Tensor:
    """Fit the coupling of known words to the predictions of the training images.

    Args:
        predictions: of the model as it is, its query network's too.
        temperature: that these were made with.

    Returns:
        float32 (attributes, attributes), as `Label2LabelCoupling` has it.
    """
    assert predictions.query_probabilities is not None
    logits = to_logits(predictions.probabilities) * temperature
    query_logits = to_logits(predictions.query_probabilities)
    return fit_coupling(logits, query_logits, predictions.labels)


def store_coupling(folder: Path, weight: torch.Tensor) -> None:
    """Write the coupling's weights into a model's folder; all others stay.

    Args:
        folder: with `model.safetensors`.
        weight: to store.
    """
    file, draft = folder / "model.safetensors", folder / ".model.safetensors.part"
    save_file({**load_file(file), "coupling.weight": weight}, draft, metadata={"format": "pt"})
    os.replace(draft, file)


def calibrate(predictions: Predictions, temperature: float, accuracy_loss: float) -> Calibration:
    """Fit a calibration to the predictions of held-out images.

    Args:
        predictions: of the model as it is.
        temperature: that these were made with.
        accuracy_loss: as for `fit_calibration`.

    Returns:
        The calibration; its thresholds have four decimals, as they are stored.

    Raises:
        UserError: for fewer people than folds of the cross-validation.
    """
    labelled = (predictions.labels != IGNORE_INDEX).any(axis=1)
    identities = predictions.identities or [None] * len(labelled)
    clusters = clusters_of([i for i, known in zip(identities, labelled, strict=True) if known])
    if len(clusters) == 0 or clusters.max() + 1 < FOLDS:
        raise UserError(f"too few people with labels to calibrate by: {FOLDS} are the least")
    logits = to_logits(predictions.probabilities[labelled]) * temperature
    return fit_calibration(logits, predictions.labels[labelled], clusters, accuracy_loss)


def calibration_effect(
    predictions: Predictions, temperature: float, calibration: Calibration, resamples: int = 1000
) -> dict[str, Any]:
    """Scores before and after a calibration, on images that it was not fitted to.

    Args:
        predictions: of the model as it is.
        temperature: that these were made with.
        calibration: to measure.
        resamples: of the bootstrap.

    Returns:
        `num_images`; `before` (temperature 1, thresholds of 0.5), `after` and `difference`, each
        score to `value` and 95 % `interval`: `accuracy`, `balanced_accuracy`, `f1`,
        `expected_calibration_error`, `negative_log_likelihood`; `per_attribute` (balanced accuracy
        and calibration error before and after); `reliability` before and after.
    """
    labels = predictions.labels
    logits = to_logits(predictions.probabilities) * temperature
    before = to_probabilities(logits, 1.0)
    after = to_probabilities(logits, calibration.temperature)
    decided_before = (before > THRESHOLD).astype(float)
    decided_after = (after >= calibration.thresholds.round(4)).astype(float)

    def scored(
        probabilities: FloatArray, decisions: FloatArray
    ) -> Callable[[FloatArray], dict[str, FloatArray]]:
        def scores(weights: FloatArray) -> dict[str, FloatArray]:
            error = overall_scores(probabilities, labels, weights)["expected_calibration_error"]
            return decision_scores(decisions, labels, weights) | {
                "expected_calibration_error": error,
                "negative_log_likelihood": negative_log_likelihood(probabilities, labels, weights),
            }

        return scores

    first, second = scored(before, decided_before), scored(after, decided_after)

    def difference(weights: FloatArray) -> dict[str, FloatArray]:
        earlier, later = first(weights), second(weights)
        return {name: later[name] - earlier[name] for name in later}

    clusters = clusters_of(predictions.identities or [None] * len(labels))
    once = np.ones(len(labels))

    def measured(scores: Callable[[FloatArray], dict[str, FloatArray]]) -> dict[str, Any]:
        intervals = bootstrap_intervals(scores, clusters, resamples)
        return {
            name: {"value": float(value), "interval": intervals[name]}
            for name, value in scores(once).items()
        }

    per_attribute = {
        "balanced_accuracy_before": balanced_accuracy_per_attribute(decided_before, labels),
        "balanced_accuracy_after": balanced_accuracy_per_attribute(decided_after, labels),
        "calibration_error_before": calibration_error_per_attribute(before, labels),
        "calibration_error_after": calibration_error_per_attribute(after, labels),
    }
    return {
        "num_images": len(labels),
        "before": measured(first),
        "after": measured(second),
        "difference": measured(difference),
        "per_attribute": {
            name: {score: values[a] for score, values in per_attribute.items()}
            for a, name in enumerate(predictions.names)
        },
        "reliability": {
            "before": reliability_curve(before, labels),
            "after": reliability_curve(after, labels),
        },
    }


def reliability_before_and_after(result: dict[str, Any]) -> Figure:
    """How often "present" is true at each predicted probability, before and after.

    Args:
        result: of the command, measured on a split.

    Returns:
        The figure.
    """
    measured = result["measured_on"]
    before, after = (
        measured[when]["expected_calibration_error"]["value"] for when in ("before", "after")
    )
    return reliability_plot(
        {
            "before": measured["reliability"]["before"],
            f"after, temperature {result['temperature']:.3f}": measured["reliability"]["after"],
        },
        f"expected calibration error {before:.3f} to {after:.3f}\n(mean over attributes)",
    )


def store_calibration(folder: Path, names: Sequence[str], calibration: Calibration) -> None:
    """Write temperature and thresholds into a model's folder; every other setting stays.

    Args:
        folder: with `config.json` and `preprocessor_config.json`.
        names: of the attributes, in the model's order.
        calibration: to store.
    """
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
    # Both are written before either is renamed: a full disk leaves the model as it was.
    for file in changes:
        os.replace(folder / f".{file}.part", folder / file)


def summary(result: dict[str, Any]) -> str:
    """What was fitted and measured, as a few lines for the terminal.

    Args:
        result: of the command.

    Returns:
        Markdown.
    """
    values = list(result["thresholds"].values())
    table = result["fitted_on"]["cross_validation"]
    chosen = next(r for r in table if r["balance_weight"] == result["balance_weight"])
    lines = [
        f"temperature {result['temperature']:.4f}, thresholds {min(values):.2f} to "
        f"{max(values):.2f}, fitted to {result['fitted_on']['num_images']:,} images of "
        f"{result['fitted_on']['split']}",
        "",
        markdown_table(
            ("cross-validated", "thresholds of 0.5", "fitted thresholds"),
            (
                (name.replace("_", " "), f"{table[0][name]:.4f}", f"{chosen[name]:.4f}")
                for name in ("accuracy", "balanced_accuracy", "f1")
            ),
        ),
    ]
    measured = result["measured_on"]
    if measured:
        rows = (
            (
                name.replace("_", " "),
                f"{measured['before'][name]['value']:.4f}",
                f"{measured['after'][name]['value']:.4f}",
                "[{:+.4f}, {:+.4f}]".format(*change["interval"]),
            )
            for name, change in measured["difference"].items()
        )
        header = (f"{measured['split']}, {measured['num_images']:,} images", "before", "after")
        lines += ["", markdown_table((*header, "95 % interval of the difference"), rows)]
    return "\n".join(lines)
