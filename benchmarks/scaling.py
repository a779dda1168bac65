"""What larger training sets cost, from measured rates: time, disk and memory.

    python benchmarks/scaling.py

The rate is that of the whole training loop of the recipe `celeba`, as `python benchmarks/loader.py`
measured it; bytes per image are those of an image of CelebA's official size. Everything else is
arithmetic, for CelebA's official training split and for a hundred million web faces, on one such
machine and on many, taken to scale in proportion: it is what the hardware allows at best.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from label2label.data.loading import CROP_FORMAT, load_split
from label2label.errors import UserError
from label2label.files import write_whole
from label2label.training.recipe import load_recipe

CELEBA_IMAGES = 162_770
CELEBA_SIZE = (178, 218)  # width and height of the official aligned images
WEB_IMAGES = 100_000_000
MACHINES = 64
LABELS_PER_IMAGE = 40


def measure_images(data: str, size: int = 112, sample: int = 500) -> dict[str, float]:
    """Bytes that an image of CelebA's official size takes, in the Parquet files and decoded.

    Args:
        data: Prepared dataset.
        size: Side of the model's crop, in pixels.
        sample: Number of training images to look at, evenly spread.

    Returns:
        `encoded_bytes`, the mean of the sample's bytes a pixel times the pixels of such an image
        (which is too much where the sample's images are smaller: they compress less), and
        `decoded_bytes`.
    """
    import datasets

    rows = load_split(data, "train").cast_column("image", datasets.Image(decode=False))
    rows = rows.select(range(0, len(rows), max(1, len(rows) // sample)))
    bytes_a_pixel = []
    for row in rows:
        width, height = datasets.Image().decode_example(row["image"]).size
        bytes_a_pixel.append(len(row["image"]["bytes"]) / (width * height))
    return {
        "encoded_bytes": statistics.mean(bytes_a_pixel) * math.prod(CELEBA_SIZE),
        "decoded_bytes": 3 * math.prod(round(ratio * size) for ratio in CROP_FORMAT),
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
        0, or 2 where the measured rate or the dataset cannot be read.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="celeba", help="of the measured loop")
    parser.add_argument("--loader", type=Path, default=Path("results/loader.json"))
    parser.add_argument("--data", default="data/celeba", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("results/scaling.json"))
    args = parser.parse_args(arguments)
    try:
        recipe = load_recipe(args.recipe)
        rate = json.loads(args.loader.read_text(encoding="utf-8"))["images_per_second"]["loop"]
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
