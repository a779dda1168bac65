"""The card of a folder of labels: what its columns hold, and how `load_dataset` reads it."""

from __future__ import annotations

from label2label import __version__
from label2label.prediction.label_run import LabelRun
from label2label.prediction.label_shards import whole_file

CARD = """---
configs:
- config_name: default
  data_files: data/*.parquet
tags: [facial-attributes, label2label]
---
# Facial attributes of {images} images

Predicted by label2label {version}, not annotated: {how}. A row a face, {faces} in all. An image
without a face ({without_face}) or that could not be read ({unreadable}) has one row.

| column | what it holds |
| :--- | :--- |
| `index` | of the image in the collection, from 0 |
| `image` | path of the image, or its name in a dataset |
| `split` | of the dataset; null for files |
| `face` | from left to right, from 0; null where none was found |
| `box` | x0, y0, x1, y1, in pixels of the upright image |
| `score` | of the face detector, 0 to 1 |
| `error` | why the image could not be read; else null |
| {names} | probability, 0 to 1 |
"""


def write_label_card(run: LabelRun, attributes: list[str], counts: dict[str, int]) -> None:
    """Write `README.md` beside the labels.

    Args:
        run: finished.
        attributes: names of the model's attributes.
        counts: as `count_labels` returns them.
    """
    detector = {"yunet": "YuNet", "haar": "OpenCV's Haar cascade"}.get(run.settings.detector or "")
    how = f"faces found by {detector} and aligned" if detector else "each image taken as one face"
    names = ", ".join(f"`{name}`" for name in attributes)
    text = CARD.format(version=__version__, how=how, names=names, **counts)
    with whole_file(run.folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
