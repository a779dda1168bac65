"""What larger training sets cost, from measured rates: time, disk and memory.

    python benchmarks/scaling.py

The rate is the median over the epochs of a measured run of the recipe `celeba`; bytes per image are
those of the prepared dataset and of its decoded pixels. Everything else is arithmetic, for CelebA's
official training split and for a hundred million web faces, on one such machine and on many, taken
to scale in proportion: it is what the hardware allows at best.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from label2label.data.augmentation import LARGEST
from label2label.data.batching import load_split
from label2label.errors import UserError
from label2label.files import write_whole
from label2label.training.recipe import load_recipe

CELEBA_IMAGES = 162_770
WEB_IMAGES = 100_000_000
MACHINES = 64
LABELS_PER_IMAGE = 40


def measure_images(data: str, size: int = 112, sample: int = 500) -> dict[str, float]:
    """Bytes that an image takes, in the Parquet files and decoded.

    Args:
        data: Prepared dataset.
        size: Side of the model's crop, in pixels.
        sample: Number of training images to look at, evenly spread.

    Returns:
        `encoded_bytes` and `decoded_bytes`, means.
    """
    import datasets

    rows = load_split(data, "train").cast_column("image", datasets.Image(decode=False))
    rows = rows.select(range(0, len(rows), max(1, len(rows) // sample)))
    encoded, decoded = [], []
    for row in rows:
        width, height = datasets.Image().decode_example(row["image"]).size
        ratio = min(1.0, LARGEST * size / min(width, height))
        encoded.append(len(row["image"]["bytes"]))
        decoded.append(3 * round(ratio * width) * round(ratio * height))
    return {
        "encoded_bytes": statistics.mean(encoded),
        "decoded_bytes": statistics.mean(decoded),
    }


def extrapolate(
    images_per_second: float, images: int, epochs: int, size: dict[str, float]
) -> dict[str, Any]:
    """Time and space of a training set.

    Args:
        images_per_second: Of one machine.
        images: In the training set.
        epochs: Passes over it.
        size: As `measure_images`.

    Returns:
        Hours on one machine and on 64, gigabytes of Parquet and of decoded pixels, and gigabytes of
        memory that labels and one epoch's order take in every process.
    """
    hours = images * epochs / images_per_second / 3600
    return {
        "images": images,
        "epochs": epochs,
        "hours": hours,
        f"hours_on_{MACHINES}": hours / MACHINES,
        "days": hours / 24,
        "encoded_gigabytes": images * size["encoded_bytes"] / 1e9,
        "decoded_gigabytes": images * size["decoded_bytes"] / 1e9,
        "memory_gigabytes": images * (LABELS_PER_IMAGE + 8) / 1e9,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the arithmetic.

    Args:
        arguments: Of the command line; the process's own by default.

    Returns:
        0, or 2 where the measured run or the dataset cannot be read.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="celeba", help="of the measured run")
    parser.add_argument("--history", type=Path, default=Path("results/training_celeba.json"))
    parser.add_argument("--data", default="data/celeba", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("results/scaling.json"))
    args = parser.parse_args(arguments)
    try:
        recipe = load_recipe(args.recipe)
        history = json.loads(args.history.read_text(encoding="utf-8"))
        steps = [history[0]["step"]]
        steps += [b["step"] - a["step"] for a, b in pairwise(history)]
        rate = statistics.median(
            count * recipe.batch_size / entry["seconds"]
            for count, entry in zip(steps, history, strict=True)
        )
        size = measure_images(args.data)
        result = {
            "images_per_second": rate,
            **size,
            "machines": MACHINES,
            "celeba": extrapolate(rate, CELEBA_IMAGES, recipe.epochs, size),
            "web": extrapolate(rate, WEB_IMAGES, 1, size),
        }
        write_whole(args.output, json.dumps(result, indent=1) + "\n")
    except (UserError, OSError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
