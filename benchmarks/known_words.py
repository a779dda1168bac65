"""Measure how much known words help: accuracy on attributes asked, by how many others are given.

    python benchmarks/known_words.py --data data/celeba --split test

The caller may know some of a face's attributes (`known_labels`), which then replace the attribute
query network's (AQN) predictions in the sentence and condition the other words. For each image a
random, fixed half of the attributes is predicted, and the labels of the first 0, 1, 5, 10 or 20 of
the other half, in random order, are given: all points of the curve score the same predictions.
Intervals are paired, over people.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command_line, finish, write_json
from label2label.checkpoints import find_checkpoint
from label2label.data.loading import label_array, load_split
from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.evaluate import (
    identify_model,
    library_versions,
    read_column,
    short_name,
)
from label2label.evaluation.intervals import clusters_of, compare_paired
from label2label.evaluation.metrics import ratio
from label2label.evaluation.scores import jsonable
from label2label.prediction.backends import TorchBackend
from tqdm import trange

GIVEN = (0, 1, 5, 10, 20)
DRAWS = 5
BATCH_SIZE = 64


def draw_questions(
    generator: np.random.Generator, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw for each image the attributes to predict, and the order in which others are given.

    Labels and both results are (images, attributes): `asked`, bool, half of the attributes; and
    `rank`, the position from 0 at which each of the others is given, unless its label is unknown.
    """
    order = np.argsort(generator.random(labels.shape), axis=1)
    place = np.argsort(order, axis=1)  # (images, attributes), a permutation of each row
    asked = place < labels.shape[1] // 2
    candidates = np.where(asked | (labels == IGNORE_INDEX), np.inf, place)
    rank = np.argsort(np.argsort(candidates, axis=1, kind="stable"), axis=1).astype(float)
    rank[np.isinf(candidates)] = np.inf
    return asked & (labels != IGNORE_INDEX), rank


@torch.inference_mode()
def predict(
    model: TorchBackend,
    images: Sequence[Any],
    labels: np.ndarray,
    given: tuple[int, ...] = GIVEN,
    draws: int = DRAWS,
) -> dict[str, np.ndarray]:
    """Predict without words, and count correct predictions with more and more words given.

    Labels are (images, attributes). `given` are the numbers of words, the first of them 0.

    Returns:
        In how many of the draws an attribute was `asked`, (images, attributes), and predicted
        `right`, (images, numbers of given words, attributes).
    """
    network = model.model
    generators = [np.random.default_rng((0, draw)) for draw in range(draws)]
    batches: list[dict[str, np.ndarray]] = []
    for start in trange(0, len(labels), BATCH_SIZE, desc="known words", unit="batch"):
        truth = labels[start : start + BATCH_SIZE].astype(np.int64)
        faces = [images[start + i] for i in range(len(truth))]
        pixels = model.processor(faces, return_tensors="pt").pixel_values.to(network.device)
        alone = network(pixels).logits.cpu().numpy() > 0
        asked_often = np.zeros(truth.shape, np.int64)
        right = np.zeros((len(truth), len(given), truth.shape[1]), np.int64)
        for generator in generators:
            asked, rank = draw_questions(generator, truth)
            asked_often += asked
            right[:, 0] += asked & (alone == (truth == 1))
            for index, count in enumerate(given[1:], start=1):
                words = torch.from_numpy(np.where(rank < count, truth, IGNORE_INDEX))
                logits = network(pixels, known_labels=words.to(network.device)).logits
                right[:, index] += asked & ((logits.cpu().numpy() > 0) == (truth == 1))
        batches.append({"right": right, "asked": asked_often})
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def curve(
    right: np.ndarray, asked: np.ndarray, clusters: np.ndarray, resamples: int = 1000
) -> list[dict[str, Any]]:
    """Compute accuracy by number of given words, and its paired gain over the first number.

    `right` and `asked` are as `predict` returns them; clusters, (images,), are the people.
    """

    def accuracy(weights: np.ndarray) -> np.ndarray:
        return ratio(weights @ right.sum(axis=2), (weights @ asked.sum(axis=1))[..., None])

    gain = compare_paired(
        lambda weights: {"accuracy": accuracy(weights)},
        lambda weights: {"accuracy": accuracy(weights)[..., :1].repeat(right.shape[1], axis=-1)},
        *(clusters, resamples),
    )["accuracy"]
    return [
        {
            "accuracy": gain["model"][i],
            "gain": gain["difference"][i],
            "gain_interval": gain["interval"][:, i],
            "gain_p_value": gain["p_value"][i],
        }
        for i in range(right.shape[1])
    ]


def measure(model_name: str, data: str, split: str) -> dict[str, Any]:
    """Measure a model on a split: the model, the data, the settings and the `curve`.

    Raises:
        UserError: The model or the data cannot be read, or the model takes no known labels.
    """
    model = TorchBackend.from_pretrained(model_name)
    config: Any = model.model.config
    if config.head_type != "label2label":
        raise UserError(f"{model_name} has the head {config.head_type!r}, which reads no words")
    rows = load_split(data, split)
    labels = label_array(rows, model.preprocessing.attributes)
    if (labels == IGNORE_INDEX).all():
        raise UserError(f"{data} has no label for any of the model's attributes")
    found = predict(model, rows["image"], labels)
    clusters = clusters_of(read_column(rows, "identity") or [None] * len(rows))
    points = curve(found["right"], found["asked"], clusters)
    return {
        "model": identify_model(model_name, model),
        "dataset": {"name": short_name(data), "split": split},
        "num_images": len(rows),
        "num_questions": int(found["asked"].sum()),
        "draws": DRAWS,
        "protocol": "half of the attributes asked, the same at every point; others given in "
        "random order, as they are labelled",
        "curve": [{"given": n, **row} for n, row in zip(GIVEN, points, strict=True)],
        "versions": library_versions(),
    }


def main() -> None:
    """Write and print the results."""
    parser = command_line(__doc__)
    parser.add_argument("--model", help="folder, Hub id or name (default: the default model)")
    parser.add_argument("--data", default="data/celeba", help="prepared dataset")
    parser.add_argument("--split", default="validation", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results/known_words.json"))
    args = parser.parse_args()
    result = jsonable(measure(find_checkpoint(args.model), args.data, args.split))
    write_json(args.output, result)
    for point in result["curve"]:
        low, high = point["gain_interval"]
        gain = f"gain {point['gain']:+.4f} [{low:+.4f}, {high:+.4f}]"
        print(f"{point['given']:2} given: {point['accuracy']:.4f}, {gain}")


if __name__ == "__main__":
    sys.exit(finish(main))
