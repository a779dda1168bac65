"""The models that the Space offers: those whose files are there, with their size and speed here."""

from __future__ import annotations

import logging
import os
import statistics
import timeit
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from label2label.checkpoints import checkpoint_names, default_checkpoint, find_checkpoint
from label2label.errors import UserError
from label2label.prediction.backends import (
    UNKNOWN,
    WEIGHTS_FILE,
    Backend,
    OnnxBackend,
    Preprocessing,
    fetch_model,
    is_int8,
    is_outdated,
    list_onnx,
    load_backend,
)

KINDS = ("tiny", "korean11")  # in a model's name; the page has a text for each
MODELS_VARIABLE = "LABEL2LABEL_SPACE_MODELS"
TIMED_RUNS = 7
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """A model's predictions for a batch of faces."""

    probabilities: np.ndarray  # float32 (faces, attributes), 0 to 1
    present: np.ndarray  # bool (faces, attributes), mutually consistent decisions
    # float32 (faces, attributes, rows, columns), attention, scaled to a maximum of 1, if returned
    maps: np.ndarray | None


@dataclass(frozen=True)
class OfferedModel:
    """A loaded and timed model."""

    key: str  # folder name or Hub id, for an ONNX file followed by its file name
    kind: str  # that the page has a text for (`model.kind.KIND`), otherwise empty
    int8: bool
    parameters: int | None
    file: Path  # weights or ONNX file
    file_bytes: int
    milliseconds: float  # median per face on this machine, without face detection
    backend: Backend
    tells_maps: bool
    conditioned: Backend | None  # that known attributes condition, often `backend` itself

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the model's preprocessing and thresholds."""
        return self.backend.preprocessing

    def predict(self, crops: np.ndarray, known: Mapping[str, bool] | None = None) -> Prediction:
        """Predict uint8 RGB crops (faces, size, size, 3); known attributes keep their value."""
        known = known or {}
        attributes = self.preprocessing.attributes
        row = [int(known[name]) if name in known else UNKNOWN for name in attributes]
        labels = np.tile(np.array(row, np.int64), (len(crops), 1))
        backend = self.conditioned if known and self.conditioned else self.backend
        probabilities, attention = backend.run(crops, labels)
        maps = None
        if attention is not None:
            side = round(attention.shape[-1] ** 0.5)  # crops are square, and so are feature maps
            maps = attention / attention.max(axis=-1, keepdims=True)
            maps = maps.reshape(*maps.shape[:2], side, side)
        is_known = labels != UNKNOWN
        probabilities = np.where(is_known, labels, probabilities).astype(np.float32)
        present = self.preprocessing.decide(probabilities)
        # Known values are kept even if they contradict each other.
        return Prediction(probabilities, np.where(is_known, labels == 1, present), maps)

    def describe(self) -> dict[str, Any]:
        """Return what the page and the API show of the model, in JSON types."""
        return {
            "key": self.key,
            "kind": self.kind,
            "int8": self.int8,
            "parameters": self.parameters,
            "file_bytes": self.file_bytes,
            "milliseconds": round(self.milliseconds, 1),
            "tells_maps": self.tells_maps,
            "takes_known": self.conditioned is not None,
            "attributes": self.preprocessing.attributes,
            "thresholds": self.preprocessing.thresholds,
        }


def load_catalogue() -> dict[str, OfferedModel]:
    """Load all available models by key, the default model first and INT8 files last.

    These are the folders beside the default checkpoint, the INT8 files in them, and the models that
    the environment variable lists: folders, ONNX files and Hub ids, separated by commas. A model
    that cannot be loaded is skipped with a warning in the log.

    Raises:
        UserError: No model can be loaded.
    """
    names = [find_checkpoint(name) for name in checkpoint_names()]
    names += [name.strip() for name in os.environ.get(MODELS_VARIABLE, "").split(",")]
    catalogue: dict[str, OfferedModel] = {}
    for name in filter(None, names):
        try:
            catalogue |= {model.key: model for model in load_models(name)}
        except UserError as error:
            logger.warning("%s is not offered: %s", name, error)
    if not catalogue:
        raise UserError(f"no model can be loaded: set {MODELS_VARIABLE} to a folder or a Hub id")
    return dict(sorted(catalogue.items(), key=lambda item: item[1].int8))


def load_models(name: str) -> list[OfferedModel]:
    """Load the model of a folder or Hub id with the INT8 files in it, or that of an ONNX file."""
    path, local = fetch_model(name), Path(name).absolute()
    if path.suffix == ".onnx":
        key = f"{local.parent.name}/{local.stem}" if local.exists() else name.removesuffix(".onnx")
        return [offer(path, key)]
    key, files = local.name if local.exists() else name, list_onnx(path)
    if not (path / WEIGHTS_FILE).exists():
        if not files:
            raise UserError(f"{name} has neither {WEIGHTS_FILE} nor an ONNX file")
        return [offer(file, f"{key}/{file.stem}") for file in files]
    is_default = path == Path(default_checkpoint())
    kind = "default" if is_default else next((kind for kind in KINDS if kind in key), "")
    models = [replace(offer(path, key), kind=kind)]
    for file in filter(is_int8, files):
        model = offer(file, f"{key}/{file.stem}")
        if is_outdated(model.backend, path):
            logger.warning("%s is not offered: export it again, the model changed", file)
        else:
            models.append(replace(model, kind=kind, parameters=models[0].parameters))
    return models


def offer(path: Path, key: str) -> OfferedModel:
    """Load and time the model of a folder or an ONNX file."""
    # One thread each, because as many photos are processed in parallel as there are cores.
    is_onnx = path.suffix == ".onnx"
    backend: Any = load_backend(path, "onnx" if is_onnx else "torch", threads=1)
    parameters = None if is_onnx else backend.model.num_parameters()
    conditioned = backend if backend.takes_known_labels else None
    # An export is faster than PyTorch, which then runs only if attributes are known.
    for file in () if is_onnx else list_onnx(path):
        fast = None if is_int8(file) else OnnxBackend(file, threads=1)
        if fast and len(fast.session.get_outputs()) > 1 and not is_outdated(fast, path):
            backend = fast
            break
    size = backend.preprocessing.crop_size
    crop = np.full((1, size, size, 3), 128, np.uint8)
    _, attention = backend.run(crop)
    seconds = timeit.repeat(lambda: backend.run(crop), number=1, repeat=1 + TIMED_RUNS)
    file = path if is_onnx else path / WEIGHTS_FILE
    return OfferedModel(
        key=key,
        kind="",
        int8=is_onnx and is_int8(path),
        parameters=parameters,
        file=file,
        file_bytes=file.stat().st_size,
        milliseconds=statistics.median(seconds[1:]) * 1e3,
        backend=backend,
        tells_maps=attention is not None,
        conditioned=conditioned,
    )
