"""A model's folder as a Hub model repository that loads, and is served, without this package."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import logging

import label2label
from label2label import models
from label2label.errors import UserError, join_lines
from label2label.hub.measurements import read_json
from label2label.hub.model_card import card_for_repository
from label2label.hub.refusals import Content, refuse_unsafe_files
from label2label.hub.repository import Repository, check_repo_id, list_folder
from label2label.prediction.backends import load_model

PACKAGE = Path(label2label.__file__).parent

# What each Auto class is in a config's `auto_map`.
AUTO_CLASSES: dict[str, dict[str, type]] = {
    "label2label": {
        "AutoConfig": models.Label2LabelConfig,
        "AutoModel": models.Label2LabelModel,
        "AutoModelForImageClassification": models.Label2LabelForImageClassification,
    },
    "mobilefacenet": {
        "AutoBackbone": models.MobileFaceNetBackbone,
        "AutoConfig": models.MobileFaceNetConfig,
        "AutoModel": models.MobileFaceNetModel,
    },
}
PROCESSOR_CLASS: dict[str, type] = {"AutoImageProcessor": models.Label2LabelImageProcessor}

# The part of the package that handler.py needs beside transformers.
HANDLER_MODULES = (
    "data/__init__.py",
    "data/images.py",
    "errors.py",
    "faces/__init__.py",
    "faces/alignment.py",
    "faces/detection.py",
    "prediction/__init__.py",
    "prediction/photos.py",
)
# An endpoint's container brings torch, built for its accelerator.
HANDLER_REQUIREMENTS = ("numpy", "opencv-python-headless", "pillow", "safetensors", "transformers")


def model_repository(folder: Path, repo_id: str, onnx: Path | None = None) -> Repository:
    """Describe the repository of a model or a backbone.

    Args:
        folder: what `label2label train` or `convert` wrote, or `save_pretrained`.
        repo_id: `owner/name`.
        onnx: a folder that `label2label export` wrote from this model.

    Returns:
        The repository: the folder's files, the code of `models/`, the model card, ONNX files in
        `onnx/`, and for a model of attributes `handler.py` with what it needs.

    Raises:
        UserError: the folder is no whole model, the ONNX files are of another model, or a file
            looks like a secret, a pickle, data or an image of a restricted set.
    """
    repo_id = check_repo_id(repo_id)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in AUTO_CLASSES:
        raise UserError(f"{folder} holds a model of type {kind!r}, not {' or '.join(AUTO_CLASSES)}")
    held = list_folder(folder)
    refuse_unsafe_files(held)
    if "model.safetensors" not in held:
        raise UserError(f"{folder} has no model.safetensors: only safetensors are uploaded")
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what is wrong with a folder is said in one line
    load_model(folder) if kind == "label2label" else _load_backbone(folder)

    processor = read_json(folder / "preprocessor_config.json")
    files: dict[str, Content] = {
        path: content for path, content in held.items() if not path.endswith((".py", ".onnx"))
    }
    files["config.json"] = _config_bytes(config, AUTO_CLASSES[kind])
    files["preprocessor_config.json"] = _config_bytes(processor, PROCESSOR_CLASS)
    files["README.md"] = card_for_repository(folder, repo_id).encode()
    files |= _code_files([*AUTO_CLASSES[kind].values(), *PROCESSOR_CLASS.values()])
    if kind == "label2label":
        files |= _handler_files()
    files |= _onnx_files(folder, held, onnx, kind)
    refuse_unsafe_files(files)
    return Repository(
        kind="model",
        repo_id=repo_id,
        files=dict(sorted(files.items())),
        # Weights, exports and code of an earlier push would not fit this one's.
        owned=("*.py", "*.safetensors", "*.safetensors.index.json", "onnx/*", "*.onnx"),
        mark=f"configuration_{kind}.py",
        message=f"{folder.resolve().name}, by label2label {label2label.__version__}",
    )


def _load_backbone(folder: Path) -> None:
    """Refuse a backbone whose weights do not fit its config; transformers would only warn."""
    try:
        loaded: Any = models.MobileFaceNetModel.from_pretrained(folder, output_loading_info=True)
    except Exception as error:  # config and weights each raise errors of their own kinds
        raise UserError(f"cannot load the backbone {folder}: {join_lines(error)}") from error
    wrong = sorted([*loaded[1]["missing_keys"], *loaded[1]["unexpected_keys"]])
    if wrong:
        raise UserError(f"{folder}: its weights do not match its config.json ({wrong[0]})")


def _config_bytes(config: dict[str, Any], classes: Mapping[str, type]) -> bytes:
    """A config that names its code, and no folder of the machine that it was made on."""
    public = _without_paths(config)
    public["auto_map"] = {
        name: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for name, cls in classes.items()
    }
    return (json.dumps(public, indent=2) + "\n").encode()


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if k != "_name_or_path"}
    return value


def _code_files(classes: list[type]) -> dict[str, Content]:
    """The modules of these classes, and those that they import, at the repository's root."""
    paths: set[Path] = set()
    for cls in classes:
        path = PACKAGE / "models" / f"{cls.__module__.rpartition('.')[2]}.py"
        paths |= {path, *map(Path, get_relative_import_files(path))}
    return {path.name: path for path in paths}


def _handler_files() -> dict[str, Content]:
    lines = [
        line.partition(";")[0].strip()
        for line in requires("label2label") or []
        if re.split(r"[<>=!~ \[;]", line)[0].lower() in HANDLER_REQUIREMENTS and "extra" not in line
    ]
    files: dict[str, Content] = {
        "handler.py": PACKAGE / "hub" / "handler.py",
        "requirements.txt": ("\n".join(sorted(lines)) + "\n").encode(),
    }
    return files | {f"label2label/{name}": PACKAGE / name for name in HANDLER_MODULES}


def _onnx_files(
    folder: Path, held: dict[str, Content], onnx: Path | None, kind: str
) -> dict[str, Content]:
    found = {Path(path).name: folder / path for path in held if path.endswith(".onnx")}
    if onnx is not None:
        exported = {path.name: path for path in sorted(onnx.glob("*.onnx"))}
        if not exported:
            raise UserError(f"--onnx {onnx} holds no ONNX files: `label2label export` writes them")
        found |= exported
    if found and kind != "label2label":
        raise UserError("ONNX files go with a model of attributes, not with a backbone")
    if found:
        from label2label.hub.onnx_check import refuse_foreign_exports

        refuse_foreign_exports(folder, list(found.values()))
    return {f"onnx/{name}": path for name, path in found.items()}
