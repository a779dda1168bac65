"""The models that the Space offers: those whose files are there, with their size and speed here."""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from label2label.checkpoints import default_checkpoint
from label2label.errors import UserError
from label2label.export import FLOAT_FILE
from label2label.files import sha256
from label2label.prediction.backends import (
    UNKNOWN,
    WEIGHTS_FILE,
    WEIGHTS_KEY,
    Backend,
    OnnxBackend,
    Preprocessing,
    is_outdated,
    load_backend,
)
from safetensors import SafetensorError, safe_open

KINDS = ("fair", "tiny", "korean11")  # in a model's name; the page has a text for each
MODELS_VARIABLE = "LABEL2LABEL_SPACE_MODELS"
WARM_UP_RUNS, TIMED_RUNS = 2, 7
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """A model's predictions for a batch of faces.

    Args:
        probabilities: float32 (faces, attributes), 0 to 1.
        present: bool (faces, attributes), mutually consistent decisions.
        maps: float32 (faces, attributes, rows, columns), attention per attribute, scaled to a
            maximum of 1; None if the model does not return it.
    """

    probabilities: np.ndarray
    present: np.ndarray
    maps: np.ndarray | None


@dataclass(frozen=True)
class OfferedModel:
    """A loaded and timed model.

    Args:
        key: Name in the API: folder name or Hub id, for an ONNX file followed by its file name. An
            INT8 file of an offered model is named after that model's folder.
        kind: A kind that the page has a text for (`model.kind.KIND`), otherwise empty.
        int8: Whether the weights are 8-bit integers.
        parameters: Number of parameters; None if unknown.
        file: Weights or ONNX file.
        file_bytes: Size of that file.
        milliseconds: Median time per face on this machine, without face detection.
        backend: Backend that runs the model.
        tells_maps: Whether it returns attention maps.
        conditioned: Backend that known attributes condition, often `backend` itself; None if there
            is none.
    """

    key: str
    kind: str
    int8: bool
    parameters: int | None
    file: Path
    file_bytes: int
    milliseconds: float
    backend: Backend
    tells_maps: bool
    conditioned: Backend | None

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the model's preprocessing and thresholds."""
        return self.backend.preprocessing

    def predict(self, crops: np.ndarray, known: Mapping[str, bool] | None = None) -> Prediction:
        """Predict the attributes of a batch of faces.

        Args:
            crops: uint8 RGB (faces, crop_size, crop_size, 3), 0 to 255.
            known: Known attributes of all these faces; they keep the given value.
        """
        known = known or {}
        attributes = self.preprocessing.attributes
        row = [int(known[name]) if name in known else UNKNOWN for name in attributes]
        labels = np.tile(np.array(row, np.int64), (len(crops), 1))
        backend = self.conditioned if known and self.conditioned else self.backend
        probabilities, maps = run(backend, crops, labels)
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


def run(
    backend: Backend, crops: np.ndarray, known_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run a model with known labels, and return where it looked.

    Args:
        backend: Backend of the model.
        crops: uint8 RGB (faces, crop_size, crop_size, 3), 0 to 255.
        known_labels: int64 (faces, attributes), 1, 0 or -100 if unknown; ignored by a model that
            takes none.

    Returns:
        Probabilities and maps, as in `Prediction`.
    """
    if isinstance(backend, OnnxBackend):
        inputs = backend.prepare(crops)
        if "known_labels" in inputs:
            inputs["known_labels"] = known_labels
        probabilities, *attentions = backend.session.run(None, inputs)
        attention = attentions[0] if attentions else None
    else:
        probabilities, attention = _run_torch(backend, crops, known_labels)
    if attention is None:
        return probabilities, None
    side = round(attention.shape[-1] ** 0.5)  # crops are square, and so are feature maps
    maps = attention / attention.max(axis=-1, keepdims=True)
    return probabilities, maps.reshape(*maps.shape[:2], side, side)


def _run_torch(
    backend: Any, crops: np.ndarray, known_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return probabilities, and attention (faces, attributes, cells) as in exported files."""
    import torch

    inputs = {"pixel_values": torch.from_numpy(backend.preprocessing.normalize(crops))}
    if backend.model.config.head_type != "fc":
        inputs["output_attentions"] = True
    if backend.model.config.head_type == "label2label" and (known_labels != UNKNOWN).any():
        inputs["known_labels"] = torch.from_numpy(known_labels)
    with torch.inference_mode():
        outputs = backend.model(**inputs)
        probabilities = outputs.logits.float().sigmoid().numpy()
        if not outputs.cross_attentions:
            return probabilities, None
        # Both decoders attend to the image: combine their attention.
        return probabilities, torch.stack(outputs.cross_attentions).mean(dim=(0, 2)).numpy()


def load_catalogue() -> dict[str, OfferedModel]:
    """Load all available models.

    These are the folders beside the default checkpoint, the INT8 files in them, and the models that
    the environment variable lists: folders, ONNX files and Hub ids, separated by commas. A model
    that cannot be loaded is skipped with a warning in the log.

    Returns:
        Models by key, the default model first and INT8 files last.

    Raises:
        UserError: No model can be loaded.
    """
    shipped = Path(default_checkpoint())
    found = sorted(shipped.parent.glob("*/config.json"))
    folders = sorted(found, key=lambda path: path.parent != shipped)
    names = [str(path.parent) for path in folders]
    names += [name.strip() for name in os.environ.get(MODELS_VARIABLE, "").split(",")]
    catalogue: dict[str, OfferedModel] = {}
    for name in filter(None, names):
        try:
            for model in load_models(name, name == str(shipped), list(catalogue.values())):
                catalogue[model.key] = model
        except UserError as error:
            logger.warning("%s is not offered: %s", name, error)
    if not catalogue:
        raise UserError(f"no model can be loaded: set {MODELS_VARIABLE} to a folder or a Hub id")
    return dict(sorted(catalogue.items(), key=lambda item: item[1].int8))


def load_models(
    name: str, is_default: bool = False, others: Iterable[OfferedModel] = ()
) -> list[OfferedModel]:
    """Load the model of a folder or Hub id, and the INT8 files beside its weights.

    Args:
        name: A folder, an ONNX file, or a Hub id.
        is_default: Whether it is the default model.
        others: Models loaded before, from which ONNX files may have been exported.

    Returns:
        The models, at least one.

    Raises:
        UserError: A file is missing or damaged, or the Hub cannot be reached.
    """
    path = Path(name).absolute()
    key = f"{path.parent.name}/{path.stem}" if path.suffix == ".onnx" else path.name
    if not path.exists():
        path, key = download(name), name.removesuffix(".onnx")
    if path.suffix == ".onnx":
        return [name_export(offer(path, key, "", None), others)]
    kind = "default" if is_default else next((k for k in KINDS if k in key), "")
    weights = path / WEIGHTS_FILE
    parameters = count_parameters(weights) if weights.exists() else None
    models = [offer(path, key, kind, parameters)] if weights.exists() else []
    pattern = "*int8*.onnx" if models else "*.onnx"
    for file in sorted([*path.glob(pattern), *path.glob(f"onnx/{pattern}")]):
        model = offer(file, f"{key}/{file.stem}", kind, parameters)
        models.append(model if weights.exists() else name_export(model, others))
    if not models:
        raise UserError(f"{name} has neither {WEIGHTS_FILE} nor an ONNX file")
    return models


def offer(path: Path, key: str, kind: str, parameters: int | None) -> OfferedModel:
    """Load one model and time it.

    Args:
        path: Folder of a model, or an ONNX file.
        key, kind, parameters: As in `OfferedModel`.

    Raises:
        UserError: The model cannot be loaded.
    """
    # One thread each, because as many photos are processed in parallel as there are cores.
    is_onnx, exported = path.suffix == ".onnx", path / FLOAT_FILE
    backend = load_backend(path, "onnx" if is_onnx else "torch", threads=1)
    conditioned = backend if takes_known(backend) else None
    if not is_onnx and exported.is_file():
        # The export is faster than PyTorch, which then runs only if attributes are known.
        fast = OnnxBackend(exported, threads=1)
        if len(fast.session.get_outputs()) > 1 and not is_outdated(fast, path):
            backend = fast
    preprocessing = backend.preprocessing
    crop = np.full((1, preprocessing.crop_size, preprocessing.crop_size, 3), 128, np.uint8)
    nothing_known = np.full((1, len(preprocessing.attributes)), UNKNOWN, np.int64)
    seconds = []
    for _ in range(WARM_UP_RUNS + TIMED_RUNS):
        start = time.perf_counter()
        _, maps = run(backend, crop, nothing_known)
        seconds.append(time.perf_counter() - start)
    file = path if path.is_file() else path / WEIGHTS_FILE
    return OfferedModel(
        key=key,
        kind=kind,
        int8=is_onnx and "int8" in path.stem,
        parameters=parameters,
        file=file,
        file_bytes=file.stat().st_size,
        milliseconds=statistics.median(seconds[WARM_UP_RUNS:]) * 1e3,
        backend=backend,
        tells_maps=maps is not None,
        conditioned=conditioned,
    )


def takes_known(backend: Any) -> bool:
    """Return whether a model's predictions depend on known labels."""
    if isinstance(backend, OnnxBackend):
        return len(backend.session.get_inputs()) > 1
    return backend.model.config.head_type == "label2label"


def name_export(model: OfferedModel, others: Iterable[OfferedModel]) -> OfferedModel:
    """Name an ONNX file after the model that it was exported from.

    Args:
        model: Model of an ONNX file; `label2label export --int8` records its source weights in it.
        others: Models loaded before.

    Returns:
        The model with the key, kind and parameters of the model with these weights; unchanged if
        the file records none or no such model is loaded.
    """
    session: Any = model.backend.session  # type: ignore[attr-defined]
    made_from = session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY)
    for other in others if made_from else ():
        if other.file.name == WEIGHTS_FILE and json.dumps(sha256(other.file)) == made_from:
            key = f"{other.key}/{model.file.stem}"
            return replace(model, key=key, kind=other.kind, parameters=other.parameters)
    return model


def download(name: str) -> Path:
    """Download a model from the Hub: its folder, or one ONNX file by `user/name/file.onnx`.

    Args:
        name: A Hub id, or a Hub id and a file in it.

    Returns:
        The local path.

    Raises:
        UserError: The model does not exist, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    user, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    try:
        if file:
            return Path(hf_hub_download(f"{user}/{repository}", file))
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.onnx"]))
    except Exception as error:  # the Hub's client raises errors of many kinds
        raise UserError(f"cannot fetch {name} from the Hub: {error}") from error


def count_parameters(weights: Path) -> int:
    """Count the parameters in a safetensors file from its header, without BatchNorm's statistics.

    Raises:
        UserError: The file is damaged.
    """
    statistics_of = ("running_mean", "running_var", "num_batches_tracked")
    try:
        with safe_open(weights, framework="numpy") as file:
            return sum(
                math.prod(file.get_slice(name).get_shape())
                for name in file.keys()  # noqa: SIM118 - not a dictionary
                if not name.endswith(statistics_of)
            )
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights} is not a safetensors file: {error}") from error
