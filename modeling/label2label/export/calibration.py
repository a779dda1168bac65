"""Faces to calibrate INT8 by: from a prepared dataset, or from a folder of face crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from label2label.errors import UserError
from label2label.prediction.photos import find_photos, read_photo
from label2label.prediction.preprocessing import Preprocessing


def load_calibration(folder: Path, preprocessing: Preprocessing, limit: int = 400) -> np.ndarray:
    """Read faces, spread evenly over all there are.

    Args:
        folder: a prepared dataset, whose training split is taken, or a folder of images that each
            are one face, framed as the model's training faces.
        preprocessing: the model's crop.
        limit: most faces to read.

    Returns:
        uint8 RGB crops (faces, crop_size, crop_size, 3), at least 2.

    Raises:
        UserError: the folder is missing or holds fewer than two faces, or an image cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--calibration {folder} is not a folder of faces")
    if any(folder.glob("data/train-*.parquet")):
        from label2label.data.batching import load_split

        images = load_split(folder, "train").select_columns(["image"])
        chosen = np.linspace(0, len(images) - 1, min(limit, len(images)), dtype=int)
        pixels = (np.asarray(images[int(i)]["image"].convert("RGB")) for i in chosen)
    else:
        photos = find_photos([folder])
        if photos == [folder]:
            raise UserError(f"--calibration {folder} is empty: it holds no image to calibrate by")
        chosen = np.linspace(0, len(photos) - 1, min(limit, len(photos)), dtype=int)
        pixels = (_read(photos[i]) for i in chosen)
    crops = [preprocessing.crop(image) for image in pixels]
    if len(crops) < 2:
        raise UserError(f"--calibration {folder} holds one face: it needs a few hundred")
    return np.stack(crops)


def _read(path: Path) -> np.ndarray:
    try:
        return read_photo(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
