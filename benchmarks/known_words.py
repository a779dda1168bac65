"""Measure how much known words help: accuracy on attributes asked, by how many others are given.

    python benchmarks/known_words.py --data data/celeba --split test

The caller may know some of a face's attributes (`known_labels`), which then replace the image query
network's predictions in the sentence and condition the other words. For each image a random, fixed
half of the attributes is predicted, and the labels of the first 0, 1, 2, 5, 10 or 20 of the other
half, in random order, are given: all points of the curve score the same predictions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from common import finish, write_json
from label2label.checkpoints import find_checkpoint
from label2label.data.loading import label_array, load_split
from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.evaluate import identify_model, library_versions, short_name
from label2label.evaluation.intervals import (
    bootstrap_draws,
    clusters_of,
    interval_of,
    p_values,
)
from label2label.evaluation.metrics import ratio
from label2label.evaluation.plots import save_figure
from label2label.evaluation.scores import jsonable
from label2label.models import Label2LabelForImageClassification
from label2label.models.modeling_label2label import join_feature_maps
from label2label.prediction.backends import load_model
from matplotlib.figure import Figure
from tqdm import tqdm

GIVEN = (0, 1, 2, 5, 10, 20)
DRAWS = 5


class FeaturesAsImages(torch.nn.Module):
    """A replacement for the backbone that returns its cached features: only the head runs again."""

    def forward(self, features: torch.Tensor, return_dict: bool = True) -> SimpleNamespace:
        return SimpleNamespace(feature_maps=(features,))


def draw_questions(
    generator: np.random.Generator, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw for each image the attributes to predict, and the order in which others are given.

    Args:
        generator: Random generator.
        labels: (images, attributes), 1, 0 or -100.

    Returns:
        (images, attributes) each: `asked`, bool, half of the attributes; and `rank`, the position
        from 0 at which each of the others is given; those of unknown label are never given.
    """
    order = np.argsort(generator.random(labels.shape), axis=1)
    place = np.argsort(order, axis=1)  # (images, attributes), a permutation of each row
    asked = place < labels.shape[1] // 2
    candidates = np.where(asked | (labels == IGNORE_INDEX), np.inf, place)
    rank = np.argsort(np.argsort(candidates, axis=1, kind="stable"), axis=1).astype(float)
    rank[np.isinf(candidates)] = np.inf
    return asked & (labels != IGNORE_INDEX), rank


@torch.inference_mode()
def count_right(
    model: Label2LabelForImageClassification,
    processor: Any,
    images: Sequence[Any],
    labels: np.ndarray,
    given: tuple[int, ...] = GIVEN,
    draws: int = DRAWS,
    batch_size: int = 64,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Count correct predictions with more and more words given.

    Args:
        model: Model in evaluation mode, with an image-conditioned masked language model.
        processor: Its image processor.
        images: Faces, PIL images.
        labels: (images, attributes), 1, 0 or -100.
        given: Numbers of given words.
        draws: Draws of attributes per image.
        batch_size: Images per batch.
        seed: Random seed of the draws.

    Returns:
        `right`, (numbers of given words, images, attributes), the number of draws in which the
        attribute was predicted correctly; and `asked`, (images, attributes), the number of draws
        in which it was predicted.
    """
    backbone = model.label2label.backbone
    generators = [np.random.default_rng((seed, draw)) for draw in range(draws)]
    right, asked_often = [], []
    starts = range(0, len(labels), batch_size)
    try:
        for start in tqdm(starts, desc="known words", unit="batch"):
            truth = labels[start : start + batch_size].astype(np.int64)
            faces = [images[start + i] for i in range(len(truth))]
            pixels = processor(faces, return_tensors="pt").pixel_values
            features = join_feature_maps(backbone(pixels).feature_maps)
            model.label2label.backbone = FeaturesAsImages()
            counts = np.zeros((len(given), *truth.shape), np.int64)
            often = np.zeros(truth.shape, np.int64)
            for generator in generators:
                asked, rank = draw_questions(generator, truth)
                often += asked
                for index, count in enumerate(given):
                    words = np.where(rank < count, truth, IGNORE_INDEX)
                    logits = model(features, known_labels=torch.from_numpy(words)).logits
                    counts[index] += asked & ((logits.numpy() > 0) == (truth == 1))
            model.label2label.backbone = backbone
            right.append(counts)
            asked_often.append(often)
    finally:
        model.label2label.backbone = backbone
    return np.concatenate(right, axis=1), np.concatenate(asked_often)


def curve(
    right: np.ndarray,
    asked: np.ndarray,
    clusters: np.ndarray,
    given: tuple[int, ...] = GIVEN,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Compute accuracy by number of given words, and its gain over none, with 95 % intervals.

    Args:
        right, asked: As `count_right` returns them.
        clusters: (images,), the person in each image.
        given: Numbers of given words; the others are compared with the first.
        resamples: Number of bootstrap resamples.

    Returns:
        For each number: `given`, `accuracy`, its `interval`, `gain`, `gain_interval` and
        `gain_p_value`, the last three paired.
    """

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        accuracy = ratio(weights @ right.sum(2).T, (weights @ asked.sum(1))[..., None])
        return {"accuracy": accuracy, "gain": accuracy - accuracy[..., :1]}

    draws = bootstrap_draws(statistics, clusters, resamples)
    estimates = statistics(np.ones(len(asked)))
    intervals = {name: interval_of(draws[name], estimates[name]) for name in draws}
    chance = p_values(draws["gain"], estimates["gain"])
    return [
        {
            "given": count,
            "accuracy": estimates["accuracy"][i],
            "interval": intervals["accuracy"][:, i],
            "gain": estimates["gain"][i],
            "gain_interval": intervals["gain"][:, i],
            "gain_p_value": chance[i],
        }
        for i, count in enumerate(given)
    ]


def measure(model_name: str, data: str, split: str) -> dict[str, Any]:
    """Measure a model on a split.

    Args:
        model_name: Folder or Hub id.
        data: Folder of a prepared dataset.
        split: Name of the split.

    Returns:
        The model, the data and the settings, and `curve` as `curve()` returns it.

    Raises:
        UserError: The model or the data cannot be read, or the model takes no known labels.
    """
    model, processor = load_model(model_name)
    config: Any = model.config
    if config.head_type != "label2label":
        raise UserError(f"{model_name} has the head {config.head_type!r}, which reads no words")
    names = [config.id2label[i] for i in range(config.num_labels)]
    rows = load_split(data, split)
    labels = label_array(rows, names)
    if (labels == IGNORE_INDEX).all():
        raise UserError(f"{data} has no label for any of the model's attributes")
    right, asked = count_right(model, processor, rows["image"], labels)
    identities = rows["identity"] if "identity" in rows.column_names else [None] * len(rows)
    return {
        "model": identify_model(model_name, model),
        "dataset": {"name": short_name(data), "split": split},
        "num_images": len(rows),
        "num_questions": int(asked.sum()),
        "draws": DRAWS,
        "protocol": "half of the attributes asked, the same at every point; others given in "
        "random order, as they are labelled",
        "curve": curve(right, asked, clusters_of(list(identities))),
        "versions": library_versions(),
    }


def plot_curve(result: dict[str, Any]) -> Figure:
    """Plot accuracy by number of given words.

    Args:
        result: As `measure` returns it.

    Returns:
        A figure with the curve and its 95 % intervals, and the gain over no words.
    """
    points = result["curve"]
    given = [point["given"] for point in points]
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    gain = np.array([100 * point["gain"] for point in points])
    low, high = (100 * np.array([p["gain_interval"] for p in points])).T
    axes.fill_between(given, low, high, color="#2b6cb0", alpha=0.2, linewidth=0)
    axes.plot(given, gain, "o-", color="#2b6cb0")
    for end in (0, -1):  # labels of the other points would overlap
        label = f"accuracy {points[end]['accuracy']:.4f}"
        side = "left" if end == 0 else "right"
        axes.annotate(label, (given[end], gain[end]), (0, 8), textcoords="offset points", ha=side)
    axes.axhline(0, color="#8492a6", linewidth=0.8)
    axes.margins(x=0.06, y=0.15)
    axes.set_xticks(given)
    axes.set_xlabel("true attributes given")
    axes.set_ylabel("points gained on those asked")
    axes.set_title("accuracy when words of the sentence are known", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Write the results as JSON and the curve as SVG."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder, Hub id or name (default: the default model)")
    parser.add_argument("--data", default="data/celeba", help="prepared dataset")
    parser.add_argument("--split", default="validation", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results/known_words.json"))
    args = parser.parse_args()
    result = jsonable(measure(find_checkpoint(args.model), args.data, args.split))
    write_json(args.output, result)
    save_figure(plot_curve(result), args.output.parent, args.output.stem)
    for point in result["curve"]:
        low, high = point["gain_interval"]
        gain = f"gain {point['gain']:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"{point['given']:2} given: {point['accuracy']:.4f}, {gain}")


if __name__ == "__main__":
    sys.exit(finish(main))
