"""What runs the model: PyTorch, or ONNX Runtime without importing torch or transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError
from label2label.prediction.preprocessing import Preprocessing


class Backend(Protocol):
    """A model, wherever it runs."""

    preprocessing: Preprocessing

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 RGB image (height, width, 3) to uint8 RGB crop (crop_size, crop_size, 3)."""

    def predict(self, crops: np.ndarray) -> np.ndarray:
        """uint8 RGB crops (batch, crop_size, crop_size, 3) to probabilities (batch, attributes)."""


def load_backend(name: str | os.PathLike[str] | None = None, threads: int = 0) -> Backend:
    """Load a model with the library that its files are for.

    Args:
        name: an ONNX file, a folder that holds one and no `config.json`, a model's folder, a Hub
            id, or the name of a model that ships with the package; the default one where `None`.
        threads: of one inference by ONNX Runtime; its own choice by default.

    Returns:
        The backend; a PyTorch model is on a GPU where there is one.

    Raises:
        UserError: the model cannot be loaded, or a folder holds several ONNX files.
    """
    name = find_checkpoint(name)
    path = Path(name)
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.onnx"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UserError(f"{name} holds {names}: give the path of one of them")
        path = files[0] if files else path
    if path.suffix == ".onnx":
        from label2label.prediction.onnx_backend import OnnxBackend

        return OnnxBackend(path, threads)
    from label2label.prediction.torch_backend import TorchBackend

    return TorchBackend.from_pretrained(name)
