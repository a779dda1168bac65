"""The files of model, Space and dataset repositories on the Hub; nothing else is uploaded.

`MODEL_FILES`, `SPACE_FILES` and `DATASET_FILES` list the names. A folder with any other file, or
with a symbolic link out of it, is rejected. `check_content` validates what the listed files hold.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import requires
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import yaml
from huggingface_hub import ModelCard, SpaceCard, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement
from PIL import Image
from safetensors import SafetensorError, safe_open
from transformers.dynamic_module_utils import get_relative_import_files

import label2label
from label2label import models
from label2label.errors import UserError, join_lines
from label2label.files import sha256
from label2label.hub.model_card import (
    EVALUATION_KEYS,
    SOURCES,
    explain_results,
    model_card,
    read_evaluation,
    read_json,
)
from label2label.prediction.backends import (
    BACKBONE_FILE,
    FLOAT_FILE,
    INT8_FILE,
    METADATA_PREFIX,
    WEIGHTS_KEY,
    Preprocessing,
    TorchBackend,
    load_weights,
    open_exported,
)
from label2label.prediction.photos import read_photo

PACKAGE = Path(label2label.__file__).parent
Card = TypeVar("Card", ModelCard, SpaceCard)
Content = Path | bytes
"""A file to upload: its path or its bytes."""

ONNX_FILES = (FLOAT_FILE, INT8_FILE, BACKBONE_FILE)
MODEL_FILES = (
    *("config.json", "preprocessor_config.json", "model.safetensors", "README.md", "LICENSE"),
    *("plots/*.svg", *ONNX_FILES, *(f"onnx/{name}" for name in ONNX_FILES)),
)
# Files that each push generates: those in a folder that was downloaded from the Hub are ignored.
MODEL_FILES_WRITTEN_ANEW = ("*.py", "requirements.txt", "label2label/**")
SPACE_FILES = (
    *("README.md", "requirements.txt", "packages.txt", "LICENSE", "*.py", "texts/*.json"),
    *("page/*.html", "page/*.js", "page/*.css"),
    *("on_device/README.md", "on_device/*.html", "on_device/*.js", "on_device/*.css"),
    *("on_device/icon.svg", "on_device/example.jpg", "on_device/assets/page.json"),
    *("on_device/assets/*.onnx", "on_device/assets/*.mjs", "on_device/assets/*.wasm"),
    *("results/*.json", "results/*/*.json"),
)
DATASET_FILES = (
    *("README.md", "LICENSE", "preparation.json", "counts.csv", "skipped.csv"),
    *("data/train-*.parquet", "data/validation-*.parquet", "data/test-*.parquet"),
)
PACKAGE_FILES = (
    *("*.py", "*/*.py", "py.typed", "*/*_template.*", "training/recipes/*.yaml"),
    *("hub/sources.yaml", "prediction/attribute_names.*"),
    *("checkpoints/*/config.json", "checkpoints/*/preprocessor_config.json"),
    *("checkpoints/*/model.safetensors", "checkpoints/*/*.onnx", "checkpoints/*/onnx/*.onnx"),
)
# What `handler.py` imports of the package, directly and indirectly.
HANDLER_FILES = (
    *("errors.py", "data/__init__.py", "data/images.py", "faces/*.py"),
    *("prediction/__init__.py", "prediction/photos.py"),
)
# Ignored in every folder: neither uploaded nor rejected.
LEFT_OUT = (".git", ".gitattributes", ".cache", "__pycache__", ".DS_Store", "Thumbs.db")

# Auto classes in a config's `auto_map`, by model type.
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
# Without torch: an endpoint's container has it, built for its accelerator.
HANDLER_REQUIREMENTS = (
    *("numpy", "onnxruntime", "opencv-python-headless", "pillow", "safetensors", "transformers"),
)

# Access keys and passwords that someone may have pasted into a text file.
_SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|(AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|sk-[\w\-]{32,}"
    r"|github_pat_\w{50,}|AIza[\w\-]{35}|xox[abprs]-[\w\-]{10,})|PRIVATE KEY-----"
    r"|://[^\s/:@\"'<>]+:[^\s/:@\"'<>{}$]{6,}@"
    r"|(?i:api_?key|secret|token|passw(or)?d)\w*[\"']?\s*[:=]\s*[\"']?"
    r"(?=[A-Za-z+/_\-]*\d)[A-Za-z0-9+/_\-]{20,}"
)

_RESTRICTED_SIZES = ((178, 218), (89, 109))  # CelebA's aligned images, full and half size


@dataclass(frozen=True)
class Repository:
    """A repository as it should be after the push."""

    kind: Literal["model", "dataset", "space"]
    repo_id: str  # OWNER/NAME
    files: Mapping[str, Content]  # by path in the repository
    owned: tuple[str, ...]  # patterns of paths that are deleted if an earlier push wrote them
    mark: str  # a path that every push writes; a repository without it is not touched
    message: str  # of the commit
    sdk: str | None = None  # of a Space


def is_listed(path: str, patterns: Sequence[str]) -> bool:
    """Return whether a path matches a pattern: `*` within one name, `/**` for a whole folder."""
    names = path.split("/")
    return any(
        path.startswith(pattern[:-2])
        if pattern.endswith("/**")
        else len(names) == pattern.count("/") + 1
        and all(map(fnmatchcase, names, pattern.split("/")))
        for pattern in patterns
    )


def check_repo_id(repo_id: str) -> str:
    """Return a repository's name; raise UserError if it is not a valid `owner/name`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is not a repository name: {join_lines(error)}") from error
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} has no owner: give OWNER/NAME, such as your-name/{repo_id}")
    return repo_id


def list_files(
    folder: Path, kind: str, patterns: Sequence[str], ignored: Sequence[str] = ()
) -> dict[str, Content]:
    """List a folder's files by their paths below it, sorted.

    Args:
        folder: Folder to list.
        kind: Kind of repository, for the error message.
        patterns: Files to upload, as in `is_listed`.
        ignored: Files that may be present but are not uploaded.

    Raises:
        UserError: Another file is present, a link leads out of the folder, or a file has unexpected
            content.
    """
    files: dict[str, Path] = {}
    refused: list[str] = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        folders[:] = sorted(set(folders) - {*LEFT_OUT, *links})
        for name in sorted({*names, *links} - {*LEFT_OUT}):
            path = Path(place, name)
            title = path.relative_to(folder).as_posix()
            if not path.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{path} is a symbolic link out of the folder: nothing is uploaded")
            if is_listed(title, ignored):
                continue
            if is_listed(title, patterns) and path.is_file():
                files[title] = path
            else:
                refused.append(title)
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise UserError(
            f"{folder} holds {refused[0]!r}{more}, which does not belong in a {kind} repository: "
            "move it elsewhere; nothing is uploaded"
        )
    for title, path in files.items():
        check_content(title, path)
    return dict(sorted(files.items()))


def check_content(title: str, content: Content) -> None:
    """Raise UserError if a file is not what its name says, or holds metadata or secrets."""
    suffix = PurePosixPath(title).suffix
    problem = None
    if suffix == ".safetensors":
        problem = _problem_of_weights(content)
    elif suffix == ".jpg":
        problem = _problem_of_image(content)
    elif suffix not in (".onnx", ".wasm", ".parquet"):
        problem = _problem_of_text(content)
    if problem:
        raise UserError(f"{title} {problem}: nothing is uploaded")


def _problem_of_weights(content: Content) -> str | None:
    try:
        with safe_open(content, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, TypeError) as error:
        return f"is not a safetensors file ({join_lines(error)})"
    if extra := sorted(set(metadata.items()) - {("format", "pt")}):
        return f"has metadata ({extra[0][0]!r}) beside format=pt: remove it"
    return None


def _problem_of_image(content: Content) -> str | None:
    data = content if isinstance(content, bytes) else content.read_bytes()
    try:
        read_photo(data)
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            size, kept = image.size, image.info
    except UserError as error:
        return f"cannot be read as an image ({error})"
    except (OSError, SyntaxError, ValueError) as error:
        return f"cannot be read as an image ({join_lines(error)})"
    texts = [key for key, value in kept.items() if isinstance(value, str | bytes)]
    if extra := sorted(set(texts) - {"icc_profile"}):
        return f"has metadata ({extra[0]!r}): remove it"
    if size in _RESTRICTED_SIZES:
        return "has the size of an image of CelebA, which may not be redistributed"
    return None


def _problem_of_text(content: Content) -> str | None:
    data = content if isinstance(content, bytes) else content.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    if "\0" in text:
        return "is not text"
    token = get_token()
    for part in (text, *_decode_base64(text)):
        if (token and token in part) or _SECRET.search(part):
            return (
                "holds what looks like a key, token or password; remove it, and revoke a real one"
            )
    return None


def _decode_base64(text: str) -> Iterator[str]:
    """Yield what base64 in a text may hold: its lines joined, from each of four first letters."""
    joined = re.sub(r"\s+", "", text).translate(str.maketrans("-_", "+/"))
    for run in re.findall(r"[A-Za-z0-9+/]{24,}", joined):
        for start in range(4):
            part = run[start : len(run) - ((len(run) - start) % 4 == 1)]
            decoded = base64.b64decode(part + "=" * (-len(part) % 4))
            yield decoded.replace(b"\0", b"").decode("ascii", "replace")  # also of UTF-16


def model_repository(
    folder: Path,
    repo_id: str,
    onnx: Path | None = None,
    results: Sequence[Path] = (),
    trained_on: Sequence[str] | None = None,
) -> Repository:
    """Describe the repository of a model or a backbone.

    Args:
        folder: Written by `label2label train`, `label2label convert` or `save_pretrained`.
        repo_id: `owner/name`.
        onnx: Folder with this model's ONNX files, written by `label2label export`.
        results: Evaluations for the model card. A README.md in the folder is used as it is instead.
        trained_on: Training data for the model card, as in `model_card`.

    Returns:
        The repository: weights, configs, the code of `models/`, the model card with plots, ONNX
        files in `onnx/`, and, if the model predicts attributes, `handler.py` with its modules.

    Raises:
        UserError: The folder is no complete model, or holds other files or another model's exports.
    """
    repo_id = check_repo_id(repo_id)
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in AUTO_CLASSES:
        raise UserError(f"{folder} holds a model of type {kind!r}, not {' or '.join(AUTO_CLASSES)}")
    held = list_files(folder, "model", MODEL_FILES, MODEL_FILES_WRITTEN_ANEW)
    if "model.safetensors" not in held:
        raise UserError(f"{folder} has no model.safetensors: only safetensors are uploaded")
    exports = _find_exports(folder, held, onnx)
    if kind == "label2label":
        preprocessing = TorchBackend.from_pretrained(folder).preprocessing
        for export in exports:
            check_export(export, folder, preprocessing)
    elif exports:
        raise UserError("ONNX files belong to a model of attributes, not to a backbone")
    else:
        load_weights(models.MobileFaceNetModel, folder, folder)

    files = {path: content for path, content in held.items() if not path.endswith(".onnx")}
    if "README.md" in held:
        if results or trained_on:
            raise UserError(
                f"{folder} has a README.md, which is used as its card: remove it, so that "
                "--results and --trained-on write one"
            )
        files["README.md"] = str(read_card(folder / "README.md", ModelCard)).encode()
    else:
        evaluations = [read_evaluation(path, folder / "model.safetensors") for path in results]
        with explain_results():
            plots = draw_plots(evaluations)
        files |= dict(plots.values())
        titles = {title: path for title, (path, _) in plots.items()}
        files["README.md"] = str(model_card(folder, results, repo_id, trained_on, titles)).encode()
    processor = read_json(folder / "preprocessor_config.json")
    files["config.json"] = _config_bytes(config, AUTO_CLASSES[kind])
    files["preprocessor_config.json"] = _config_bytes(processor, PROCESSOR_CLASS)
    files |= _code_files([*AUTO_CLASSES[kind].values(), *PROCESSOR_CLASS.values()])
    if kind == "label2label":
        files |= handler_files()
    files |= {f"onnx/{path.name}": path for path in exports}
    return Repository(
        kind="model",
        repo_id=repo_id,
        files=dict(sorted(files.items())),
        # Weights, exports and code of an earlier push would not match this one's.
        owned=(*MODEL_FILES_WRITTEN_ANEW, "*.safetensors", "onnx/**", "*.onnx", "plots/**"),
        mark=f"configuration_{kind}.py",
        message=f"{folder.resolve().name}, by label2label {label2label.__version__}",
    )


def _config_bytes(config: dict[str, Any], classes: Mapping[str, type]) -> bytes:
    """Return a config that names its code, without paths of the machine that wrote it."""

    def without_path(value: dict[str, Any]) -> dict[str, Any]:
        return value | {"_name_or_path": ""} if "_name_or_path" in value else value

    public = json.loads(json.dumps(config), object_hook=without_path)
    public["auto_map"] = {
        name: f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" for name, cls in classes.items()
    }
    return (json.dumps(public, indent=2) + "\n").encode()


def _code_files(classes: list[type]) -> dict[str, Content]:
    """Return the modules of these classes and those that they import, by file name."""
    paths: set[Path] = set()
    for cls in classes:
        path = PACKAGE / "models" / f"{cls.__module__.rpartition('.')[2]}.py"
        paths |= {path, *map(Path, get_relative_import_files(path))}
    return {path.name: path for path in paths}


def handler_files() -> dict[str, Content]:
    """Return `handler.py`, the modules of the package that it needs, and its requirements."""
    known = {r.name: r for r in map(Requirement, reversed(requires("label2label") or []))}
    lines = (f"{name}{known[name].specifier}\n" for name in HANDLER_REQUIREMENTS)
    files: dict[str, Content] = {"requirements.txt": "".join(lines).encode()}
    return files | {"handler.py": PACKAGE / "hub/handler.py"} | package_files(HANDLER_FILES)


def package_files(patterns: Sequence[str]) -> dict[str, Content]:
    """Return the files of this package that match a pattern, by their path in a repository."""
    paths = (path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*")))
    return {f"label2label/{path}": PACKAGE / path for path in paths if is_listed(path, patterns)}


def draw_plots(results: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, bytes]]:
    """Draw the plots of evaluations; return path in the repository and SVG, by title."""
    if not results:
        return {}
    from label2label.evaluation.plots import figure_svg
    from label2label.evaluation.report import report_figures

    plots = {}
    for result in results:
        dataset = result["dataset"]["name"]
        for name, figure in report_figures(result).items():
            path = f"plots/{re.sub(r'[^A-Za-z0-9_]+', '-', f'{dataset}-{name}')}.svg"
            plots[f"{dataset}: {name}"] = (path, figure_svg(figure))
    return plots


def _find_exports(folder: Path, held: Mapping[str, Content], onnx: Path | None) -> list[Path]:
    """Return the folder's ONNX files; those in `onnx` replace files of the same name."""
    found = {PurePosixPath(path).name: folder / path for path in held if path.endswith(".onnx")}
    if onnx is not None:
        exported = {name: onnx / name for name in ONNX_FILES if (onnx / name).is_file()}
        if not exported:
            raise UserError(f"--onnx {onnx} holds no ONNX files: `label2label export` writes them")
        found |= exported
    return list(found.values())


def check_export(file: Path, folder: Path, preprocessing: Preprocessing) -> None:
    """Raise UserError if an ONNX file cannot run, has other weights, or unknown metadata."""
    session, exported = open_exported(file)
    metadata = session.get_modelmeta().custom_metadata_map
    if extra := [key for key in metadata if not key.startswith(METADATA_PREFIX)]:
        raise UserError(f"{file} has metadata ({extra[0]!r}) that no export writes")
    weights = json.dumps(sha256(folder / "model.safetensors"))
    if exported != preprocessing or metadata.get(WEIGHTS_KEY) != weights:
        raise UserError(f"{file} belongs to other weights than {folder}: export the model again")


def default_space() -> Path:
    """Return `spaces_app`, the folder of the Space in a checkout of the project."""
    return PACKAGE.parents[1] / "spaces_app"


def space_repository(
    folder: Path, repo_id: str, model: Path | None = None, onnx: Path | None = None
) -> Repository:
    """Describe the repository of the Space.

    If its `requirements.txt` names label2label, the repository carries this package's code instead,
    and so runs the version that pushed it. It also carries the results in the folder's sibling
    `results/`, for the Fairness tab. Warnings name parts that will be missing.

    Args:
        folder: Holds `README.md` with the Space's metadata, and the app that it names.
        repo_id: `owner/name`.
        model: Folder of the model that `onnx` was exported from.
        onnx: Written by `label2label export`; its INT8 file is placed beside the model's weights.

    Raises:
        UserError: The folder is no Space or holds other files, or the INT8 file is another model's.
    """
    repo_id = check_repo_id(repo_id)
    card = folder / "README.md"
    if not card.is_file():
        raise UserError(f"{folder} is not a Space: it has no README.md; give a Space as --space")
    data = read_card(card, SpaceCard).data.to_dict()
    sdk, app = data.get("sdk"), data.get("app_file", "app.py")
    if not sdk:
        raise UserError(f"{card} names no sdk in its metadata: a Gradio Space has `sdk: gradio`")
    files = list_files(folder, "Space", SPACE_FILES)
    if sdk == "gradio" and app not in files:
        raise UserError(f"{folder} has no {app}, which README.md names as the Space's app")
    if "requirements.txt" in files:
        lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not re.match(r"\s*label2label\b(?![-.])", line)]
        if kept != lines:
            files["requirements.txt"] = ("\n".join(kept) + "\n").encode()
            files |= package_files(PACKAGE_FILES)
    if model is not None and onnx is not None:
        files |= _int8_of_space(model, onnx, files)
    if "on_device/index.html" in files and "on_device/assets/page.json" not in files:
        warnings.warn(
            "the Space will have no tab On device, whose files are not in git: "
            f"`label2label export --web --output {folder / 'on_device' / 'assets'}` writes them",
            stacklevel=2,
        )
    if not any(path.startswith("results/") for path in files):
        results = folder.parent / "results"
        for path in sorted(results.rglob("*.json")):
            title = f"results/{path.relative_to(results).as_posix()}"
            if is_listed(title, SPACE_FILES) and _is_evaluation(path):
                check_content(title, path)
                files[title] = path
    return Repository(
        kind="space",
        repo_id=repo_id,
        files=dict(sorted(files.items())),
        owned=("*.py", "label2label/**", "results/**"),
        mark=app if sdk == "gradio" else "README.md",
        message=f"The demo of label2label {label2label.__version__}",
        sdk=sdk,
    )


def _is_evaluation(path: Path) -> bool:
    with contextlib.suppress(UserError):
        return set(read_json(path)) >= EVALUATION_KEYS
    return False


def read_card(path: Path, kind: type[Card]) -> Card:
    """Read a card that a user wrote; raise UserError if it is not text with valid metadata."""
    try:
        return kind.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: its metadata cannot be read: {join_lines(error)}") from error


def _int8_of_space(model: Path, onnx: Path, files: Mapping[str, Content]) -> dict[str, Content]:
    """Return a model's INT8 export by its path in the Space, if the Space carries that model."""
    export, home = onnx / INT8_FILE, f"checkpoints/{model.name}"
    carried = f"label2label/{home}/config.json" in files and (PACKAGE / home).samefile(model)
    if carried and export.is_file():
        check_export(export, model, TorchBackend.from_pretrained(model).preprocessing)
        return {f"label2label/{home}/onnx/{INT8_FILE}": export}
    problem = f"which holds no {INT8_FILE}: `label2label export --int8` writes it"
    if export.is_file():
        problem = (
            f"as it does not carry {model}: name the model's Hub id in the Space's variable "
            "LABEL2LABEL_SPACE_MODELS"
        )
    warnings.warn(f"the Space uploads nothing from {onnx}, {problem}", stacklevel=3)
    return {}


def dataset_repository(
    folder: Path, repo_id: str, *, right_to_redistribute: bool = False
) -> Repository:
    """Describe the repository of a dataset.

    Args:
        folder: Written by a program of datasets_scripts/. The `description` in its
            `preparation.json` says whether the source's terms allow redistribution.
        repo_id: `owner/name`.
        right_to_redistribute: Whether the caller has permission that the terms do not give.

    Raises:
        UserError: The folder is not a prepared dataset or holds other files, or the terms of the
            dataset or of a source of its rows forbid redistribution.
    """
    repo_id = check_repo_id(repo_id)
    if not (folder / "preparation.json").is_file():
        raise UserError(
            f"{folder} is not a prepared dataset: write one with a program of datasets_scripts/"
        )
    record = read_json(folder / "preparation.json")
    description = record.get("description", {})
    title = str(description.get("title", folder.name))
    files = list_files(folder, "dataset", DATASET_FILES)
    shards = [path for path in files if path.endswith(".parquet")]
    if not shards or "README.md" not in files:
        raise UserError(f"{folder} has no shards or no README.md: prepare the dataset again")
    forbidden = "" if description.get("redistributable") is True else str(description.get("terms"))
    for source in sorted(_sources(folder, shards)):
        for name, facts in SOURCES.items():
            words = re.sub(r"[^a-z0-9]+", "-", source.lower())
            if facts.restricted and f"-{name}-" in f"-{words}-":
                forbidden = forbidden or f"it holds rows of {source} ({facts.terms})."
    if forbidden and not right_to_redistribute:
        raise UserError(
            f"{title} may not be uploaded: {forbidden} Give --i-have-the-right-to-redistribute if "
            "its owners allowed you to"
        )
    return Repository(
        kind="dataset",
        repo_id=repo_id,
        files=files,
        owned=DATASET_FILES[-3:],  # else, rows of an earlier push would be read as rows of this one
        mark="preparation.json",
        message=f"{title}, prepared with label2label {record.get('label2label', '')}",
    )


def _sources(folder: Path, shards: Iterable[str]) -> set[str]:
    """Return the values of the column `source`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    sources: set[str] = set()
    for shard in shards:
        try:
            column = pq.read_table(folder / shard, columns=["source"])["source"]
        except Exception as error:  # pyarrow's errors share no public base
            raise UserError(f"{folder / shard} is not a shard of a prepared dataset") from error
        sources.update(str(value) for value in pc.unique(column).to_pylist())
    return sources
