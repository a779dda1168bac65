"""Run a model by ONNX Runtime, or by PyTorch on request or without an ONNX file.

Neither this import nor prediction by ONNX Runtime imports torch or transformers.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from label2label.checkpoints import checkpoint_names, find_checkpoint
from label2label.errors import UserError, join_lines
from label2label.files import sha256
from label2label.models.exclusive_answers import CELEBA_EXCLUSIVE_ANSWERS, decide_answers

if TYPE_CHECKING:
    import onnxruntime

    from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor

BACKENDS = ("onnx", "torch")
WEIGHTS_FILE = "model.safetensors"
# In a model's folder or below it in `onnx/`, as in repositories of the Hub.
FLOAT_FILE, INT8_FILE, BACKBONE_FILE = "model.onnx", "model_int8.onnx", "backbone.onnx"
METADATA_PREFIX = "label2label."
WEIGHTS_KEY = METADATA_PREFIX + "weights_sha256"  # of the safetensors file that was exported
UNKNOWN = -100  # value of `known_labels` for an unknown label
LARGEST_SIDE = 4096  # pixels of a crop; a larger value is taken as damaged
LONGEST_STRIP = 8  # ratio of an image's sides
# Config keys that saving and uploading change without changing predictions.
BOOKKEEPING = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")


@dataclass(frozen=True)
class Preprocessing:
    """The attributes of a model and the preprocessing of its input.

    Raises:
        UserError: A value has the wrong type or is out of range.
    """

    attributes: list[str]  # in the order of the model's outputs
    thresholds: list[float]  # minimum probability per attribute to count as present
    shortest_edge: int  # pixels of the image's shorter side before the crop
    crop_size: int  # height and width of the centre crop in pixels
    image_mean: list[float]  # per channel (red, green, blue), for pixels in 0..1
    image_std: list[float]
    alignment_template: list[list[float]]  # five landmarks in the crop, [x, y] in pixels
    config_sha256: str = ""  # from `digest_config`; empty if unknown
    exclusive_answers: list[list[str]] = field(  # as `decide_answers` takes them
        default_factory=lambda: [list(group) for group in CELEBA_EXCLUSIVE_ANSWERS]
    )

    def __post_init__(self) -> None:
        names = self.attributes
        checks = {
            "attributes": isinstance(names, list)
            and all(isinstance(name, str) and name for name in names)
            and 0 < len(set(names)) == len(names),
            "thresholds": _are_numbers(self.thresholds, 0, 1),
            "crop_size": _is_side(self.crop_size),
            "shortest_edge": _is_side(self.shortest_edge),
            "image_mean": _are_numbers(self.image_mean, -1e3, 1e3) and len(self.image_mean) == 3,
            "image_std": _are_numbers(self.image_std, 1e-6, 1e3) and len(self.image_std) == 3,
            "alignment_template": isinstance(self.alignment_template, list)
            and len(self.alignment_template) == 5
            and all(
                _are_numbers(point, -LARGEST_SIDE, LARGEST_SIDE) and len(point) == 2
                for point in self.alignment_template
            )
            and any(point != self.alignment_template[0] for point in self.alignment_template),
            "config_sha256": isinstance(self.config_sha256, str),
            "exclusive_answers": isinstance(self.exclusive_answers, list)
            and all(
                isinstance(group, list) and all(isinstance(name, str) for name in group)
                for group in self.exclusive_answers
            ),
        }
        for name, holds in checks.items():
            if not holds:
                raise UserError(f"{name} cannot be {_shorten(getattr(self, name))}")
        if len(self.thresholds) != len(names):
            raise UserError(f"thresholds: {len(self.thresholds)} for {len(names)} attributes")
        if self.crop_size > self.shortest_edge:
            raise UserError(f"crop_size {self.crop_size} is above shortest_edge")
        try:
            self.decide(np.zeros((0, len(names))))
        except ValueError as error:
            raise UserError(str(error)) from error

    @classmethod
    def from_processor(
        cls, processor: Any, attributes: list[str], config_sha256: str = ""
    ) -> Preprocessing:
        """Read the preprocessing from a `Label2LabelImageProcessor`.

        Raises:
            UserError: The processor does not resize by the image's shorter side and crop a centre
                square, or has a value out of range.
        """
        size, crop_size = dict(processor.size or {}), dict(processor.crop_size or {})
        side = crop_size.get("height", 0)
        for name, found, wanted in (
            ("do_resize", processor.do_resize, True),
            ("size", sorted(k for k, v in size.items() if v is not None), ["shortest_edge"]),
            ("resample", processor.resample, Image.Resampling.BILINEAR.value),
            ("do_center_crop", processor.do_center_crop, True),
            ("crop_size", crop_size.get("width"), side),
        ):
            if found != wanted:
                raise UserError(
                    "the image processor must resize by the shorter side, bilinearly, and crop a "
                    f"square from the centre: fix {name!r} in preprocessor_config.json"
                )
        # In pixels of 0..1, whatever the processor rescales to.
        scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
        mean, std = (
            [x / scale for x in (value if isinstance(value, list | tuple) else [value] * 3)]
            for value in (
                processor.image_mean if processor.do_normalize else 0.0,
                processor.image_std if processor.do_normalize else 1.0,
            )
        )
        thresholds = dict(zip(processor.attributes or (), processor.thresholds or (), strict=False))
        return cls(
            attributes=list(attributes),
            thresholds=[thresholds.get(name, 0.5) for name in attributes],
            shortest_edge=size["shortest_edge"],
            crop_size=side,
            image_mean=mean,
            image_std=std,
            alignment_template=_to_list(processor.alignment_template),
            config_sha256=config_sha256,
            exclusive_answers=[list(group) for group in processor.exclusive_answers or ()],
        )

    def to_metadata(self) -> dict[str, str]:
        """Return metadata for an ONNX file, JSON text by key."""
        return {METADATA_PREFIX + key: json.dumps(value) for key, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Preprocessing:
        """Read the metadata of `to_metadata`, ignoring other keys.

        Raises:
            UserError: A key is missing, or its value is not JSON or out of range.
        """
        values = {}
        for entry in fields(cls):
            text = metadata.get(METADATA_PREFIX + entry.name)
            if text is not None:
                try:
                    values[entry.name] = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"its metadata have a damaged {entry.name}") from error
            elif entry.default is MISSING and entry.default_factory is MISSING:
                raise UserError(f"its metadata lack {entry.name}")
        return cls(**values)

    def decide(self, probabilities: np.ndarray, threshold: float | None = None) -> np.ndarray:
        """Decide which attributes are present, without contradictions: bool (faces, attributes).

        Args:
            probabilities: (faces, attributes), 0 to 1.
            threshold: Minimum probability of every attribute to count as present; by default the
                model's thresholds.
        """
        thresholds = self.thresholds if threshold is None else [threshold] * len(self.attributes)
        return decide_answers(probabilities, thresholds, self.attributes, self.exclusive_answers)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """Resize and centre-crop a uint8 RGB image (height, width, 3), as the image processor does.

        Only the centre of a long strip is resized: the whole could take gigabytes.
        """
        most = LONGEST_STRIP * min(pixels.shape[:2])
        top, left = (max(0, (side - most) // 2) for side in pixels.shape[:2])
        pixels = pixels[top : top + most, left : left + most]
        height, width = pixels.shape[:2]
        shorter = min(height, width)
        if shorter != self.shortest_edge:
            size = [int(self.shortest_edge * side / shorter) for side in (width, height)]
            image = Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.BILINEAR)
            pixels = np.asarray(image)
        top = (pixels.shape[0] - self.crop_size) // 2
        left = (pixels.shape[1] - self.crop_size) // 2
        return pixels[top : top + self.crop_size, left : left + self.crop_size]

    def normalize(self, crops: np.ndarray) -> np.ndarray:
        """Normalize uint8 RGB crops (batch, height, width, 3) to float32 (batch, 3, height, width).

        They are scaled to 0..1, less `image_mean`, divided by `image_std`.
        """
        mean, std = (
            np.array(x, dtype=np.float32)[:, None, None] for x in (self.image_mean, self.image_std)
        )
        scaled = np.empty((len(crops), 3, *crops.shape[1:3]), dtype=np.float32)
        # Written into the transposed array in one pass: 30 times faster than transposing it.
        np.multiply(crops.transpose(0, 3, 1, 2), 1 / (255 * std), out=scaled)
        scaled -= mean / std
        return scaled


class Backend:
    """A loaded model, in any runtime.

    Its `takes_known_labels` says whether known labels condition the others.
    """

    preprocessing: Preprocessing
    takes_known_labels: bool

    def predict(self, crops: np.ndarray) -> np.ndarray:
        """Return the probabilities of `run`."""
        return self.run(crops)[0]

    def run(
        self, crops: np.ndarray, known_labels: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict the attributes of a batch of crops, and return where the model looked.

        Args:
            crops: RGB crops (batch, crop_size, crop_size, 3), uint8, 0 to 255.
            known_labels: int64 (batch, attributes), 1, 0 or -100 if unknown; ignored by a model
                that takes none.

        Returns:
            Probabilities (batch, attributes), float32, 0 to 1, and attention (batch, attributes,
            cells of the square feature map), the mean over layers and heads; None if the model
            returns none.

        Raises:
            UserError: The model cannot run, or an output is not a probability.
        """
        raise NotImplementedError


class OnnxBackend(Backend):
    """A model in ONNX Runtime, from a file of `label2label export`; arguments as `open_exported`.

    Raises:
        UserError: The file is missing or damaged, or its metadata belong to another model.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        self.session, self.preprocessing = open_exported(path, threads)
        self._path = path
        output = self.session.get_outputs()[0]
        if output.name != "probabilities":
            raise UserError(f"{path} holds only a backbone, which predicts no attributes")
        image, *known_labels = self.session.get_inputs()
        self._takes_uint8 = image.type == "tensor(uint8)"
        side, attributes = self.preprocessing.crop_size, len(self.preprocessing.attributes)
        pixels = [side, side, 3] if self._takes_uint8 else [3, side, side]
        if image.shape[1:] != pixels or output.shape[1:] != [attributes]:
            raise UserError(
                f"{path}: its metadata belong to another model "
                f"({attributes} attributes, {side}x{side} pixels): export it again"
            )
        self.takes_known_labels = bool(known_labels)

    def prepare(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Return inputs by name for uint8 RGB crops (batch, crop_size, crop_size, 3)."""
        pixels = crops if self._takes_uint8 else self.preprocessing.normalize(crops)
        inputs = {"pixel_values": pixels}
        if self.takes_known_labels:
            shape = (len(crops), len(self.preprocessing.attributes))
            inputs["known_labels"] = np.full(shape, UNKNOWN, np.int64)
        return inputs

    def run(
        self, crops: np.ndarray, known_labels: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict as `Backend.run` describes."""
        inputs = self.prepare(crops)
        if known_labels is not None and self.takes_known_labels:
            inputs["known_labels"] = known_labels
        try:
            probabilities, *attention = self.session.run(None, inputs)
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            raise UserError(f"{self._path} cannot run: {join_lines(error)}") from error
        return check_probabilities(probabilities, self._path), next(iter(attention), None)


class TorchBackend(Backend):
    """A model in PyTorch, on any device, with its image processor."""

    def __init__(
        self,
        model: Label2LabelForImageClassification,
        processor: Label2LabelImageProcessor,
        config_sha256: str = "",
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        config: Any = model.config
        self.takes_known_labels = config.head_type == "label2label"
        attributes = [config.id2label[i] for i in range(config.num_labels)]
        self.preprocessing = Preprocessing.from_processor(processor, attributes, config_sha256)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> TorchBackend:
        """Load a model as `load_model` does, on a GPU if available."""
        import torch

        folder = fetch_model(name)
        model, processor = load_model(folder)
        model = model.to("cuda") if torch.cuda.is_available() else model
        return cls(model, processor, digest_config(folder))

    def run(
        self, crops: np.ndarray, known_labels: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Predict as `Backend.run` describes."""
        import torch

        pixels, device = self.preprocessing.normalize(crops), self.model.device
        options: dict[str, Any] = {"output_attentions": self.model.config.head_type != "fc"}
        if self.takes_known_labels and known_labels is not None and (known_labels >= 0).any():
            options["known_labels"] = torch.from_numpy(known_labels).to(device)
        with torch.inference_mode():
            outputs = self.model(torch.from_numpy(pixels).to(device), **options)
            probabilities = outputs.logits.float().sigmoid().cpu().numpy()
            attention = None
            if outputs.cross_attentions:  # of both decoders
                attention = torch.stack(outputs.cross_attentions).mean(dim=(0, 2)).cpu().numpy()
        return check_probabilities(probabilities, "the model"), attention


def check_probabilities(probabilities: np.ndarray, name: str | os.PathLike[str]) -> np.ndarray:
    """Return the probabilities unchanged; raise `UserError` if a value is not in 0 to 1."""
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise UserError(f"{name} predicts NaN in place of probabilities: its weights are damaged")
    return probabilities


def load_backend(
    name: str | os.PathLike[str] | None = None, backend: str | None = None, threads: int = 0
) -> Backend:
    """Load a model in ONNX Runtime if it has an ONNX file, else in PyTorch.

    Args:
        name: ONNX file, folder with one, model folder, Hub id, or name of a model in the package;
            None for the default model.
        backend: `"onnx"` or `"torch"` to force one; None to choose.
        threads: Threads per inference in ONNX Runtime; by default its own choice.

    Raises:
        UserError: The model cannot be loaded, a folder has several ONNX files, PyTorch is needed
            but not installed, or the backend has another name.
    """
    if backend not in (None, *BACKENDS):
        raise UserError(f"backend is one of {', '.join(BACKENDS)}, not {backend}")
    folder = fetch_model(name)
    path = None if backend == "torch" else find_onnx(folder)
    if path is None and folder.suffix == ".onnx":
        raise UserError(f"{name} is an ONNX file, which PyTorch does not run: give its model")
    if path is None and backend == "onnx":
        raise UserError(f"{name} has no ONNX file: `label2label export` writes it")
    has_torch = all(map(importlib.util.find_spec, ("torch", "transformers")))
    if path is not None:
        loaded = OnnxBackend(path, threads)
        if not is_outdated(loaded, folder):
            return loaded
        problem = f"{path} was not exported from the weights and configs beside it"
        if backend == "onnx" or not has_torch:
            raise UserError(f"{problem}: export it again")
        warnings.warn(f"{problem}, which PyTorch runs instead: export it again", stacklevel=2)
    if not has_torch:
        raise UserError(
            f"{name} needs PyTorch, which is not installed: install label2label with its extra "
            "[torch], or give an ONNX file"
        )
    return TorchBackend.from_pretrained(folder)


def fetch_model(name: str | os.PathLike[str] | None) -> Path:
    """Return a model's folder or ONNX file, downloaded from the Hub if it is not here.

    Args:
        name: Folder, ONNX file, name of a model in the package, Hub id, or a Hub id and an ONNX
            file in it (`owner/name/onnx/model.onnx`); None for the default model. Any other name
            is returned as a path.

    Raises:
        UserError: The Hub cannot be reached, or has no such model.
    """
    name = find_checkpoint(name)
    owner, _, rest = name.partition("/")
    model, _, file = rest.partition("/")
    is_file = file.endswith(".onnx")
    if Path(name).exists() or not model or owner in ("", ".", "..", "~") or (file and not is_file):
        return Path(name)
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if file:
            return Path(hf_hub_download(f"{owner}/{model}", file))
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.onnx"]))
    except Exception as error:  # the Hub's client raises errors of many kinds
        raise UserError(
            f"{name} does not exist here and cannot be fetched from the Hub: {join_lines(error)}"
        ) from error


def find_onnx(path: Path) -> Path | None:
    """Find the ONNX file that runs a model: the first of `list_onnx`, or the path itself.

    Raises:
        UserError: A folder without `config.json` has several ONNX files.
    """
    if path.suffix == ".onnx":
        return path
    files = list_onnx(path)
    if len(files) > 1 and not (path / "config.json").exists():
        names = ", ".join(sorted(file.name for file in files))
        raise UserError(f"{path} holds {names}: give the path of one of them")
    return files[0] if files else None


def list_onnx(folder: Path) -> list[Path]:
    """List the ONNX files in a folder and in its `onnx/`, except backbones.

    INT8 files come first: they are faster, and the default model's is as accurate on CelebA.
    """
    files = [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")]
    return sorted(
        (file for file in files if file.name != BACKBONE_FILE),
        key=lambda file: (not is_int8(file), len(file.parts), file.name),
    )


def is_int8(file: Path) -> bool:
    """Return whether an ONNX file's name says that its weights are 8-bit integers."""
    return "int8" in file.stem


def is_outdated(backend: OnnxBackend, folder: Path) -> bool:
    """Return whether the folder's weights or configs changed since the ONNX export."""
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        return False
    exported = backend.session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY)
    return exported != json.dumps(sha256(weights)) or (
        backend.preprocessing.config_sha256 != digest_config(folder)
    )


def digest_config(folder: Path) -> str:
    """Hash a folder's config files, without the keys that saving and uploading change.

    The result is empty if a file is missing or not JSON.
    """
    configs = []
    for file in ("config.json", "preprocessor_config.json"):
        try:
            text = (folder / file).read_text(encoding="utf-8")
            # The nested backbone config has a `_name_or_path` too, which uploading empties.
            config = json.loads(
                text,
                object_hook=lambda c: {k: v if k != "_name_or_path" else "" for k, v in c.items()},
            )
            configs.append({k: v for k, v in config.items() if k not in BOOKKEEPING})
        except (OSError, ValueError, AttributeError, RecursionError):
            return ""
    return hashlib.sha256(json.dumps(configs, sort_keys=True).encode()).hexdigest()


def open_exported(
    path: str | os.PathLike[str], threads: int = 0
) -> tuple[onnxruntime.InferenceSession, Preprocessing]:
    """Open an ONNX file of `label2label export`, a whole model or a backbone, with its metadata.

    Args:
        path: ONNX file.
        threads: Threads per inference; by default ONNX Runtime's choice.

    Raises:
        UserError: The file is missing, damaged or not from `label2label export`.
    """
    import onnxruntime

    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist: --model takes an ONNX file or a folder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise UserError(f"{path} is not an ONNX file that can run: {join_lines(error)}") from error
    try:
        return session, Preprocessing.from_metadata(metadata)
    except UserError as error:
        raise UserError(f"{path} is not an exported label2label model: {error}") from error


def load_model(
    name: str | os.PathLike[str],
) -> tuple[Label2LabelForImageClassification, Label2LabelImageProcessor]:
    """Load a PyTorch model, in float32 and evaluation mode, and its image processor.

    Args:
        name: Folder, Hub id, or name of a model in the package.

    Raises:
        UserError: A file is missing or damaged, the weights do not match the config, or the model
            is of another type.
    """
    from transformers import PreTrainedConfig

    from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor

    folder = fetch_model(name)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        names = ", ".join(checkpoint_names())
        raise UserError(f"{name} {problem}: --model takes a folder, a Hub id or one of {names}")
    for file in ("config.json", "preprocessor_config.json"):
        if not (folder / file).is_file():
            raise UserError(f"{name} has no {file}: it is not a complete model folder")
    try:
        config, _ = PreTrainedConfig.get_config_dict(folder)
        if config.get("model_type") != "label2label":
            raise UserError(
                f"{name} holds a model of type {config.get('model_type')!r}, not 'label2label'"
            )
        with quiet_transformers():
            processor = Label2LabelImageProcessor.from_pretrained(folder)
    except UserError:
        raise
    except Exception as error:  # transformers raises unrelated types
        raise UserError(f"cannot load the model {name}: {join_lines(error)}") from error
    return load_weights(Label2LabelForImageClassification, folder, name), processor


def load_weights(model_class: Any, folder: Path, name: str | os.PathLike[str]) -> Any:
    """Load a model of a class, in float32 and evaluation mode.

    Raises:
        UserError: It cannot be loaded, or its weights do not match its config; transformers would
            only warn and initialise missing ones at random.
    """
    import torch

    try:
        with quiet_transformers():
            model, info = model_class.from_pretrained(
                folder, output_loading_info=True, dtype=torch.float32
            )
    except Exception as error:  # config and weights raise unrelated types
        raise UserError(f"cannot load the model {name}: {join_lines(error)}") from error
    for problem, title in (
        ("missing_keys", "lack"),
        ("unexpected_keys", "have, beyond the config,"),
    ):
        if keys := sorted(info[problem]):
            raise UserError(
                f"{name}: its weights do not match its config.json: they {title} {keys[0]}"
            )
    return model.eval()


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' log and progress bars; a `UserError` reports problems instead."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hides_downloads = are_progress_bars_disabled()  # transformers changes the Hub client's too
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()
        if hides_downloads:
            disable_progress_bars()


def without_accelerator() -> bool:
    """Return whether there is no accelerator, or `ACCELERATE_USE_CPU` is true.

    It is for Accelerate's argument `cpu`, without which Accelerate on a machine without a GPU
    treats each of several processes as the only one: all would write the same files.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def _are_numbers(values: Any, low: float, high: float) -> bool:
    return isinstance(values, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and low <= x <= high for x in values
    )


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 16 <= value <= LARGEST_SIDE


def _to_list(value: Any) -> Any:
    return [_to_list(item) for item in value] if isinstance(value, list | tuple) else value


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:56] + " ..."
