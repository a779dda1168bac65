"""The demo as a Hub Space."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import yaml
from huggingface_hub import SpaceCard

import label2label
from label2label.errors import UserError
from label2label.hub.refusals import Content, refuse_unsafe_files
from label2label.hub.repository import Repository, check_repo_id, list_folder


def default_space() -> Path:
    """The folder of the demo in a checkout of the project: `spaces_app`."""
    return Path(label2label.__file__).parents[2] / "spaces_app"


def space_repository(
    folder: Path, repo_id: str, model: Path | None = None, onnx: Path | None = None
) -> Repository:
    """Describe the repository of a Space.

    A Space whose `requirements.txt` names label2label carries the package instead, so that it runs
    the code that it was pushed with, wherever that was installed from; and the results that lie
    beside its folder, which its audit shows. What the Space will do without is warned of.

    Args:
        folder: holds `README.md` with the Space's metadata, and the app that it names.
        repo_id: `owner/name`.
        model: folder of the model that `onnx` was exported from.
        onnx: a folder that `label2label export` wrote, whose INT8 file goes beside the weights.

    Returns:
        The repository: the folder as it stands, the package with the INT8 file, and the results.

    Raises:
        UserError: the folder is no Space, or holds a secret, a pickle, data or an image of a
            restricted set; or the INT8 file is of another model.
    """
    repo_id = check_repo_id(repo_id)
    card = folder / "README.md"
    if not card.is_file():
        raise UserError(f"{folder} holds no Space: it has no README.md; give its folder as --space")
    try:
        data = SpaceCard.load(card).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{card}: its metadata cannot be read: {reason}") from error
    sdk, app = data.get("sdk"), data.get("app_file", "app.py")
    if not sdk:
        raise UserError(f"{card} names no sdk in its metadata: a Gradio Space has `sdk: gradio`")
    files = list_folder(folder)
    if sdk == "gradio" and app not in files:
        raise UserError(f"{folder} has no {app}, which README.md names as the Space's app")
    files |= _package(folder / "requirements.txt")
    if model is not None and onnx is not None:
        files |= _int8_file(model, onnx, files)
    if "on_device/index.html" in files and "on_device/assets/page.json" not in files:
        assets = folder / "on_device" / "assets"
        warnings.warn(
            "the Space goes without its tab On device, whose files git does not keep: "
            f"`label2label export --web --output {assets}` makes them",
            stacklevel=2,
        )
    if not any(path.startswith("results/") for path in files):
        results = folder.parent / "results"
        paths = sorted(results.rglob("*.json"))
        files |= {f"results/{path.relative_to(results).as_posix()}": path for path in paths}
    refuse_unsafe_files(files)
    return Repository(
        kind="space",
        repo_id=repo_id,
        files=dict(sorted(files.items())),
        owned=("*.py", "label2label/*", "results/*"),
        mark=app if sdk == "gradio" else "README.md",
        message=f"The demo of label2label {label2label.__version__}",
        sdk=sdk,
    )


def _package(requirements: Path) -> dict[str, Content]:
    """The package's files and the requirements without it, where they name it."""
    if not requirements.is_file():
        return {}
    lines = requirements.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if re.split(r"[^\w.\-]", line.strip())[0] != "label2label"]
    if kept == lines:
        return {}
    package = list_folder(Path(label2label.__file__).parent)
    files: dict[str, Content] = {f"label2label/{path}": file for path, file in package.items()}
    return {**files, "requirements.txt": ("\n".join(kept) + "\n").encode()}


def _int8_file(model: Path, onnx: Path, files: Mapping[str, Content]) -> dict[str, Content]:
    """The INT8 export of a model that the Space carries, where its catalogue looks for it."""
    from label2label.hub.onnx_check import INT8_FILE, refuse_foreign_exports

    export = onnx / INT8_FILE
    if not export.is_file():
        warnings.warn(
            f"the Space takes nothing from {onnx}, which holds no {INT8_FILE}: "
            "`label2label export --int8` writes it",
            stacklevel=3,
        )
        return {}
    config = (model / "config.json").resolve()
    for path, content in files.items():
        if isinstance(content, Path) and content.resolve() == config:
            refuse_foreign_exports(model, [export])
            return {f"{PurePosixPath(path).parent}/onnx/{INT8_FILE}": export}
    warnings.warn(
        f"the Space does not offer {export}, as it does not carry {model}: name the model's Hub id "
        "in the Space's variable LABEL2LABEL_SPACE_MODELS",
        stacklevel=3,
    )
    return {}
