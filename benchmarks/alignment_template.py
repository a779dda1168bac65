"""Measure where the five landmarks of training faces lie in the model's crop.

The means are the image processor's `alignment_template`: photos aligned to it look like the crops
that the model was trained on.

    python benchmarks/alignment_template.py celeba_dataset
    python benchmarks/alignment_template.py img_align_celeba.zip

From a dataset folder, written by `datasets_scripts/`, the train split is read; from a zip archive,
the train images according to `list_eval_partition.txt` in the same folder, or all images if that
file does not exist.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from label2label.errors import UserError
from label2label.faces.detection import FaceDetector
from label2label.models import Label2LabelImageProcessor
from PIL import Image
from tqdm import tqdm


def read_zip(path: Path, count: int) -> Iterator[Image.Image]:
    """Yield `count` random images of a zip, from its train split if a partition file exists."""
    partition_file = path.parent / "list_eval_partition.txt"
    train = None
    if partition_file.is_file():
        lines = (line.split() for line in partition_file.read_text().splitlines())
        train = {name for name, split in lines if split == "0"}
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")]
        names = [n for n in names if train is None or Path(n).name in train]
        for name in random.Random(0).sample(names, min(count, len(names))):
            yield Image.open(io.BytesIO(archive.read(name)))


def read_dataset(path: Path, count: int) -> Iterator[Image.Image]:
    """Yield `count` random images of a prepared dataset's train split."""
    from datasets import load_dataset

    dataset = load_dataset(str(path), split="train").shuffle(seed=0)
    for row in dataset.select(range(min(count, len(dataset)))):
        yield row["image"]


def map_to_crop(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Map points through the processor's resize and centre crop.

    Args:
        points: (n, 2) of [x, y] in pixels of the image.
        size: The image's width and height in pixels.

    Returns:
        (n, 2) of [x, y] in pixels of the crop.
    """
    processor = Label2LabelImageProcessor()
    side = processor.crop_size["height"]
    scale = processor.size["shortest_edge"] / min(size)
    resized = np.array([int(edge * scale) for edge in size])
    return points * resized / size - (resized - side) // 2


def measure_template(images: Iterator[Image.Image]) -> dict:
    """Compute the mean landmarks of images of equal size with one face each.

    Args:
        images: RGB images of aligned faces.

    Returns:
        `image_size` [width, height], `mean` and `std` in its pixels, `alignment_template` in the
        crop's, and `num_faces`, the number of images in which exactly one face was found.

    Raises:
        UserError: No image holds exactly one face, or the sizes differ.
    """
    detector = FaceDetector()
    landmarks, sizes = [], set()
    for image in images:
        sizes.add(image.size)
        faces = detector(np.asarray(image.convert("RGB")))
        if len(faces) == 1 and faces[0].landmarks is not None:
            landmarks.append(faces[0].landmarks)
    if not landmarks or len(sizes) != 1:
        raise UserError("needs images of one size, with one face each that YuNet finds")
    points, size = np.array(landmarks), sizes.pop()
    return {
        "image_size": list(size),
        "mean": points.mean(axis=0).round(2).tolist(),
        "std": points.std(axis=0).round(2).tolist(),
        "alignment_template": map_to_crop(points.mean(axis=0), size).round(2).tolist(),
        "num_faces": len(points),
    }


def main() -> int:
    """Print the template of a dataset as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a prepared dataset's folder, or a zip of images")
    parser.add_argument("--count", type=int, default=600, help="images to measure")
    args = parser.parse_args()
    read = read_zip if args.source.is_file() else read_dataset
    try:
        template = measure_template(tqdm(read(args.source, args.count), total=args.count))
    except (UserError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(template, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
