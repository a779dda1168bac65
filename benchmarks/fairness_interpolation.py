"""Between a model and its mitigated successor: what weights on the way from one to the other do.

    python benchmarks/fairness_interpolation.py

Weights interpolated between a model and the one fine-tuned from it often keep much of what
fine-tuning gained and little of what it cost (WiSE-FT, arXiv:2109.01903). Here the two are the
default model and the mitigated one that ships; for each share of the way, CelebA's accuracy and
that of `Male` and `Young` on UTKFace's shifted faces, both on validation. Writes a JSON file and a
picture of the trade.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from label2label.checkpoints import find_checkpoint
from label2label.data.batching import label_array, load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import identify_model, library_versions
from label2label.evaluation.intervals import bootstrap_intervals, clusters_of
from label2label.evaluation.metrics import mean_accuracy
from label2label.evaluation.plots import BLUE, STYLE, save_figure
from label2label.files import write_whole
from label2label.models import Label2LabelForImageClassification
from label2label.prediction.backends import load_model
from label2label.prediction.labelled import predict_dataset
from matplotlib import rc_context
from matplotlib.figure import Figure

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SPLIT = "validation"


def interpolate(
    model: Label2LabelForImageClassification,
    before: dict[str, torch.Tensor],
    after: dict[str, torch.Tensor],
    share: float,
) -> None:
    """Give a model weights between those of two others (WiSE-FT, equation 1).

    Args:
        model: whose weights are replaced.
        before: the state of the one.
        after: the state of the other, of the same shapes.
        share: of the way from the one to the other; 0 is the one, 1 the other.

    Raises:
        UserError: the two are not models of the same shape.
    """
    shapes = [{k: v.shape for k, v in state.items()} for state in (before, after)]
    if shapes[0] != shapes[1]:
        raise UserError("the two models differ in shape: one must go on from the other")
    model.load_state_dict(
        {
            name: torch.lerp(value, after[name], share) if value.is_floating_point() else value
            for name, value in before.items()
        }
    )


def score(
    model: torch.nn.Module, processor: Any, dataset: datasets.Dataset, names: Sequence[str]
) -> dict[str, Any]:
    """Mean accuracy on a dataset's known labels.

    Args:
        model: in evaluation mode.
        processor: its image processor.
        dataset: labelled rows.
        names: of the model's attributes.

    Returns:
        `value`, 0 to 1, and its 95 % `interval`.
    """
    labels = label_array(dataset, names)
    probabilities, _ = predict_dataset(Accelerator(cpu=True), model, processor, dataset)
    identities = dataset["identity"] if "identity" in dataset.column_names else None
    clusters = clusters_of(list(identities or [None] * len(dataset)))
    ends = bootstrap_intervals(
        lambda weights: {"accuracy": mean_accuracy(probabilities, labels, weights)}, clusters
    )
    value = float(mean_accuracy(probabilities, labels))
    return {"value": round(value, 6), "interval": np.round(ends["accuracy"], 6).tolist()}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Score every share of the way.

    Args:
        args: the command line.

    Returns:
        `before` and `after` (which weights), `split`, `shifted`, the numbers of images, and
        `points`: each its `share` and scores on `celeba` and on the `shifted` faces.

    Raises:
        UserError: a model or a dataset cannot be read, or the models differ in shape.
    """
    folders = [find_checkpoint(name) for name in (args.before, args.after)]
    (model, processor), (after, _) = map(load_model, folders)
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    ends = [{k: v.clone() for k, v in m.state_dict().items()} for m in (model, after)]
    celeba, utkface = load_split(args.celeba, SPLIT), load_split(args.utkface, SPLIT)
    shifted = utkface.select(np.flatnonzero(np.array(utkface["race"]) == args.shifted))
    if not len(shifted):
        raise UserError(f"{args.utkface}: no {SPLIT} image of race {args.shifted}")
    points = []
    for share in SHARES:
        interpolate(model, *ends, share)
        points.append(
            {
                "share": share,
                "celeba": score(model, processor, celeba, names),
                "shifted": score(model, processor, shifted, names),
            }
        )
    return {
        "before": identify_model(folders[0], model),
        "after": identify_model(folders[1], after),
        "split": SPLIT,
        "shifted": args.shifted,
        "num_images": {"celeba": len(celeba), "shifted": len(shifted)},
        "points": points,
        "versions": library_versions(),
    }


def plot(result: dict[str, Any]) -> Figure:
    """The shifted faces' accuracy over CelebA's, a dot a share.

    Args:
        result: as it is written.

    Returns:
        A figure.
    """
    celeba, shifted = (
        np.array([point[domain]["value"] for point in result["points"]])
        for domain in ("celeba", "shifted")
    )
    with rc_context(STYLE):
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot(celeba, shifted, "o-", color=BLUE)
        for x, y, point in zip(celeba, shifted, result["points"], strict=True):
            axes.annotate(f"{point['share']:g}", (x, y), (6, 4), textcoords="offset points")
        axes.margins(0.12)
        axes.set_xlabel(f"accuracy on CelebA, {result['split']}")
        axes.set_ylabel(f"Male and Young, {result['shifted']} faces")
        axes.set_title("share of the way from the default to the mitigated weights", fontsize=10)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print a line a share.

    Args:
        arguments: of the command line; the process's own by default.

    Returns:
        0, or 2 where something that it needs is not there.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="celeba-mobilefacenet", metavar="MODEL")
    parser.add_argument("--after", default="celeba-mobilefacenet-fair", metavar="MODEL")
    parser.add_argument("--celeba", default="data/celeba", metavar="DIR", help="prepared CelebA")
    parser.add_argument("--utkface", default="data/utkface", metavar="DIR", help="prepared UTKFace")
    parser.add_argument("--shifted", default="Asian", metavar="RACE", help="the shifted domain")
    parser.add_argument("--output", type=Path, default=Path("results/fairness_interpolation.json"))
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
        write_whole(args.output, json.dumps(result, indent=1) + "\n")
        save_figure(plot(result), args.output.parent, args.output.stem)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for point in result["points"]:
        print(
            f"{point['share']:4.2f}: CelebA {point['celeba']['value']:.4f}, "
            f"{args.shifted} {point['shifted']['value']:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
