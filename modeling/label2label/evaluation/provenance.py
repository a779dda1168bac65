"""What was measured on what."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from label2label.files import sha256

_LIBRARIES = ("label2label", "torch", "transformers", "datasets", "accelerate", "numpy")


def describe_model(model: Any) -> dict[str, Any]:
    """Name a model's parts and count their parameters.

    Args:
        model: a `Label2LabelForImageClassification`, or an `ExportedModel`, which has no parts.

    Returns:
        `backbone` (its model type), `head` (its kind), `parameters` of `backbone`, `head`, `all`;
        nothing of an `ExportedModel`.
    """
    if not isinstance(model, PreTrainedModel):
        return {}
    base_model: Any = model.base_model
    everything = model.num_parameters()
    backbone = sum(parameter.numel() for parameter in base_model.backbone.parameters())
    return {
        "backbone": model.config.backbone_config.model_type,
        "head": model.config.head_type,
        "parameters": {"backbone": backbone, "head": everything - backbone, "all": everything},
    }


def identify_model(reference: str | os.PathLike[str], model: Any) -> dict[str, Any]:
    """Say which model was measured.

    Args:
        reference: folder, Hub id or ONNX file that it was loaded from.
        model: a `Label2LabelForImageClassification` or an `ExportedModel`.

    Returns:
        `name`, `weights_sha256` (None for a Hub id), and what `describe_model` returns.
    """
    weights = Path(reference)
    if weights.suffix != ".onnx":
        weights /= "model.safetensors"
    digest = sha256(weights) if weights.is_file() else None
    return {"name": short_name(reference), "weights_sha256": digest, **describe_model(model)}


def short_name(reference: str | os.PathLike[str]) -> str:
    """A folder's or file's own name, or the Hub id as it is; never a path of this machine."""
    path = Path(reference)
    return path.resolve().name if path.exists() else str(reference)


def library_versions() -> dict[str, str]:
    """Versions of what figures depend on, by name."""
    return {library: version(library) for library in _LIBRARIES}
