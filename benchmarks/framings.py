"""Measure models on faces that are framed tighter or looser than they were trained on.

    python benchmarks/framings.py --data data/celeba mobilefacenet mobilefacenet-tiny

Images that nobody aligned, given with `--no-align` or to a widget of the Hub, show faces larger or
smaller than the model's crop does. Each test image is cropped about its centre at several zooms,
beyond its edge with the edge's pixels repeated, and scored as it is; differences from the framing
that `predict` makes, zoom 1, are paired, with intervals over people.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, finish, write_json
from known_words import curve
from label2label.data.loading import label_array, load_split
from label2label.evaluation.evaluate import read_column
from label2label.evaluation.intervals import clusters_of
from label2label.evaluation.scores import jsonable
from label2label.prediction.backends import Backend, load_backend
from tqdm import trange

ZOOMS = (1.0, 0.8, 1.25, 1.5, 2.0)
BATCH_SIZE = 64


def zoom_in(image: np.ndarray, zoom: float) -> np.ndarray:
    """Cut the square about the centre of a uint8 RGB image whose side is the shorter / `zoom`.

    Beyond the image its edge pixels repeat.
    """
    height, width = image.shape[:2]
    side = round(min(height, width) / zoom)
    rows = np.arange(side) + (height - side) // 2
    columns = np.arange(side) + (width - side) // 2
    return image[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)]


def count_right(model: Backend, images: Any, labels: np.ndarray) -> np.ndarray:
    """Find which answers are right at each zoom: bool (images, zooms, attributes).

    `images` are PIL images; `labels`, (images, attributes), are 1, 0 or -100 if unknown.
    """
    right = np.zeros((len(labels), len(ZOOMS), labels.shape[1]), bool)
    for start in trange(0, len(labels), BATCH_SIZE, desc="framings", unit="batch"):
        batch = slice(start, start + BATCH_SIZE)
        pixels = [np.asarray(image.convert("RGB")) for image in images[batch]]
        for index, zoom in enumerate(ZOOMS):
            crops = [model.preprocessing.crop(zoom_in(image, zoom)) for image in pixels]
            present = model.predict(np.stack(crops)) > 0.5
            right[batch, index] = present == (labels[batch] == 1)
    return right & (labels >= 0)[:, None]


def main() -> None:
    """Measure each model, print and write the results."""
    parser = command_line(__doc__)
    parser.add_argument("models", nargs="*", default=["mobilefacenet"], metavar="[NAME=]MODEL")
    parser.add_argument("--data", default="data/celeba", help="prepared dataset, aligned")
    parser.add_argument("--output", type=Path, default=Path("results/framings.json"))
    args = parser.parse_args()
    rows = load_split(args.data, "test")
    clusters = clusters_of(read_column(rows, "identity") or [None] * len(rows))
    models = {}
    for given in args.models:
        name, _, folder = given.rpartition("=")
        model = load_backend(folder, threads=1)
        labels = label_array(rows, model.preprocessing.attributes)
        right = count_right(model, rows["image"], labels)
        models[name or folder] = [
            {"zoom": zoom, **row}
            for zoom, row in zip(ZOOMS, curve(right, labels >= 0, clusters), strict=True)
        ]
        for row in models[name or folder]:
            print(f"{name or folder}, zoom {row['zoom']}: {row['accuracy']:.4f}")
    result = {"data": Path(args.data).name, "num_images": len(rows), "models": models}
    write_json(args.output, jsonable(result))


if __name__ == "__main__":
    sys.exit(finish(main))
