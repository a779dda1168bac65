"""A training recipe: all settings of a run, in one flat YAML file."""

import dataclasses
import difflib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from label2label.errors import UserError, join_lines

# Least and greatest number of a field, or of each number in a list.
LIMITS = {
    **dict.fromkeys(("flip", "shift", "scale", "zoom", "color", "grayscale", "blur"), (0, 1)),
    **dict.fromkeys(("erasing", "mixup", "label_smoothing", "distillation"), (0, 1)),
    **dict.fromkeys(("known_words", "label_count_power", "warmup", "ema"), (0, 1)),
    "teacher_confidence": (0.5, 1),
    **dict.fromkeys(("backbone_learning_rate", "head_learning_rate", "weight_decay"), (0, 100)),
    "rotation": (0, 180),
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "workers": (0, 256),
    "seed": (0, 2**32 - 1),
    "checkpoint_every": (0, 10**9),
    "image_sizes": (32, 1024),
    "frozen_stages": (0, 100),
}
SOURCE_LIMITS = {**dict.fromkeys(("share", "weight", "distillation"), (0, 1)), "limit": (0, 10**12)}


@strict
@dataclasses.dataclass(frozen=True)
class Source:
    """One entry of a recipe's `data`.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        where: Value, or list of values, that a column must have, by column: `{race: Asian}`.
        limit: Maximum number of training rows; 0 for all. The selection depends only on the seed,
            and a larger limit contains the rows of a smaller one. Validation keeps all rows.
        share: This source's share of an epoch's images, 0..1. Sources with `None` divide the rest
            in proportion to their rows.
        weight: Weight of its images in the loss, 0..1; less than 1 for noisy labels.
        distillation: The teachers' weight in its soft labels, 0..1, instead of the recipe's; with 0
            the teachers do not label it.
    """

    path: str
    where: dict[str, Any] = dataclasses.field(default_factory=dict)
    limit: int = 0
    share: float | int | None = None
    weight: float | int = 1
    distillation: float | int | None = None

    def __post_init__(self):
        _check_limits(self, SOURCE_LIMITS)

    @property
    def condition(self) -> str:
        """Describe `where`, for messages."""
        return " and ".join(f"{column} = {value}" for column, value in self.where.items())


def _check_limits(settings: Any, limits: dict[str, tuple[float, float]]) -> None:
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not least <= number <= most:
                raise ValueError(f"{name} must be in {least}..{most}, got {str(number)[:40]}")


def check_keys(values: Any, settings: type, where: str = "") -> None:
    """Raise ValueError for keys that are no fields of a dataclass."""
    known = [field.name for field in dataclasses.fields(settings)]
    if unknown := sorted(set(map(str, values)) - set(known)):
        similar = ", ".join(difflib.get_close_matches(unknown[0], known, cutoff=0))
        raise ValueError(f"{where}unknown key {', '.join(unknown)}; similar keys: {similar}")


def _read_source(entry: Any) -> Source:
    if isinstance(entry, Source):
        return entry
    values = {"path": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or "path" not in values:
        raise ValueError(f"data: each entry is a path or a mapping with a path, got {entry!r}")
    check_keys(values, Source, "data: ")
    return Source(**values)


@strict
@dataclasses.dataclass
class Recipe:
    """All settings of a training run. Every field of the YAML file is optional.

    Data:
        data: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id; or a list of
            these and of mappings with the fields of `Source`.
        vocabulary: Attributes to learn: a name of `label2label.data.vocabulary`, or `"columns"` for
            the dataset's own attribute columns.
        streaming: Whether to read the training split sequentially, from disk or the Hub. It cannot
            be combined with teachers, groups, or more than one plain dataset, which need all rows
            at once.

    Model:
        init_from: Folder or Hub id of a model to fine-tune, or the name of a shipped one; excludes
            `backbone`, `backbone_config` and `model`. The model may have other attributes.
        backbone: Folder or Hub id of a pretrained backbone, or of a model with one; `None` starts
            from random weights.
        backbone_config: Without `backbone`, the backbone's config, MobileFaceNet by default. With
            `backbone`, the `out_features` that the head attends to, and the `width_multiplier` to
            which a MobileFaceNet's channels are pruned.
        model: Fields of `Label2LabelConfig`: head, widths, layers, dropout, masking.

    Augmentation:
        flip, shift, scale, zoom, rotation, color, grayscale, blur, erasing: See
            `label2label.data.augmentation`.
        mixup: Probability, 0..1, of mixup for a batch, words included.
        label_smoothing: Label smoothing towards one half, 0..1.

    Supervision:
        teachers: Folders or Hub ids of models. Their mean probabilities are computed once and
            cached.
        distillation: The teachers' weight, 0..1, in the soft labels; 1 ignores the labels.
        teacher_confidence: Least confidence, 0.5..1, with which the teachers' mean probability
            stands in for an unknown label: where it is at least this, or at most 1 minus this.
            Less confident ones leave the label unknown.
        label_count_power: An image with k known labels, the teachers' included, has weight k to
            this power, 0..1, in the loss: 1 is the mean over labels, 0 the mean over images.
        groups: Columns whose values define an image's group, such as `[race]`; images with a null
            in one of them belong to no group.
        sampling: `"uniform"`, or `"group-balanced"`: all groups are drawn equally often. Sources
            with groups then keep the sum of their shares, not each its own.
        known_words: Largest share, 0..1, of an image's labels given as `known_labels` in training;
            every second image gets a random share up to this, the others none.

    Optimisation:
        freeze_backbone: Whether to freeze the backbone's weights and BatchNorm statistics: only the
            head is trained, which is faster.
        frozen_stages: How many of MobileFaceNet's first parts (the stem, then each stage) keep
            their weights and statistics, each number for an equal share of the epochs. With
            `[0, 2]` stem and first stage, half of a step's time, learn in the first half only.
        freeze_statistics: Whether to keep the initial model's or backbone's BatchNorm statistics,
            so that another domain does not change them.
        epochs, batch_size: Passes over the data; images per step and process.
        image_sizes: Progressive resizing: sides in pixels of the crops, each for an equal share of
            the epochs, such as `[80, 96, 112]`, as smaller images are faster. Empty for the model's
            own size throughout.
        backbone_learning_rate, head_learning_rate: Peak learning rates.
        weight_decay: Weight decay of matrices and kernels; norms, biases and slopes have none.
        warmup: Share of all steps, 0..1, with rising learning rates; a cosine decay to 0 follows.
        ema: Decay of the exponential moving average that is validated and saved; 0 for none.
        mixed_precision: `"no"` or `"bf16"`.
        workers: Threads that decode images.
        cache_pixels: Whether to decode images once and cache uint8 crops on disk (71 kB each), and
            in GPU memory if they fit. Streamed images are never cached.
        seed: Seed of all random numbers.
        checkpoint_every: Steps between saved states, in addition to one per epoch; 0 for none.
    """

    data: str | list[Any] = "data/celeba"
    vocabulary: str = "celeba-40"
    streaming: bool = False

    init_from: str | None = None
    backbone: str | None = None
    backbone_config: dict[str, Any] | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    flip: float | int = 0.5
    shift: float | int = 0.06
    scale: float | int = 0.1
    zoom: float | int = 0
    rotation: float | int = 0
    color: float | int = 0
    grayscale: float | int = 0
    blur: float | int = 0
    erasing: float | int = 0
    mixup: float | int = 0
    label_smoothing: float | int = 0

    teachers: list[str] = dataclasses.field(default_factory=list)
    distillation: float | int = 0.5
    teacher_confidence: float | int = 0.5
    known_words: float | int = 0

    label_count_power: float | int = 1
    groups: list[str] = dataclasses.field(default_factory=list)
    sampling: Literal["uniform", "group-balanced"] = "uniform"

    freeze_backbone: bool = False
    frozen_stages: list[int] = dataclasses.field(default_factory=list)
    freeze_statistics: bool = False
    epochs: int = 10
    batch_size: int = 64
    image_sizes: list[int] = dataclasses.field(default_factory=list)
    backbone_learning_rate: float | int = 0.0005
    head_learning_rate: float | int = 0.001
    weight_decay: float | int = 0.05
    warmup: float | int = 0.05
    ema: float | int = 0.995
    mixed_precision: Literal["no", "bf16"] = "no"
    workers: int = 1
    cache_pixels: bool = True
    seed: int = 0
    checkpoint_every: int = 0

    def __post_init__(self):
        _check_limits(self, LIMITS)
        if not self.data:
            raise ValueError("data names no dataset")
        entries = [self.data] if isinstance(self.data, str) else self.data
        self.data = [_read_source(entry) for entry in entries]
        if self.init_from and (self.backbone or self.backbone_config or self.model):
            raise ValueError("init_from loads a whole model: leave out backbone and model")
        if self.sampling == "group-balanced" and not self.groups:
            raise ValueError("sampling 'group-balanced' needs groups, such as [race]")
        several = self.data != [Source(self.sources[0].path)]
        given = {
            "teachers": self.teachers,
            "groups": self.groups,
            "all of data but one path": several,
        }
        if self.streaming and any(given.values()):
            refused = ", ".join(name for name, value in given.items() if value)
            raise ValueError(f"streaming does not load all rows at once: leave out {refused}")

    @property
    def sources(self) -> list[Source]:
        """The entries of `data`."""
        return cast("list[Source]", self.data)

    def at_epoch(self, values: list[int], epoch: int) -> int:
        """Return the value for an epoch, from 0, where each has an equal share of the epochs."""
        return values[min(epoch * len(values) // self.epochs, len(values) - 1)]


def load_recipe(config: str | Path | None, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        config: A YAML file, the name of a recipe that ships with the package, or `None` for the
            defaults.
        overrides: `key=value` each, the value in YAML; they win over the file.
            `model.hidden_size=64` reaches into a mapping, `data.0.limit=50` into a list.

    Returns:
        The recipe, checked.

    Raises:
        UserError: If the file is missing or no YAML mapping, a key is unknown or a value of the
            wrong type.
    """
    values = _read(config) if config is not None else {}
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals:
            raise UserError(f"--set takes key=value, got {override!r}")
        parsed = _parse(value, f"--set {override[:80]}")
        try:
            _override(values, key.split("."), parsed)
        except ValueError as error:
            raise UserError(f"--set {override}: {error}") from error
    where = config if config is not None else "--set"
    try:
        check_keys(values, Recipe)
        return Recipe(**values)
    except (TypeError, ValueError, RecursionError, StrictDataclassError) as error:
        raise UserError(f"{where}: {join_lines(error)}") from error


def _override(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value inside nested mappings and lists; raise ValueError if its parent is missing."""
    target: Any = values
    for place, key in enumerate(keys):
        if isinstance(target, list):
            if not key.isdecimal() or int(key) >= len(target):
                raise ValueError(f"{keys[place - 1]!r} has no entry {key}")
        elif not isinstance(target, dict):
            raise ValueError(f"{keys[place - 1]!r} is not a mapping")
        at: Any = int(key) if isinstance(target, list) else key
        if place == len(keys) - 1:
            target[at] = value
        else:
            target = target.setdefault(at, {}) if isinstance(target, dict) else target[at]


def _read(config: str | Path) -> dict[str, Any]:
    recipes = Path(str(resources.files("label2label.training"))) / "recipes"
    path, bundled = Path(config), recipes / f"{config}.yaml"
    if not path.is_file() and "/" not in str(config) and bundled.is_file():
        path = bundled
    try:
        values = _parse(path.read_text(encoding="utf-8"), str(config))
    except FileNotFoundError as error:
        shipped = ", ".join(sorted(file.stem for file in recipes.glob("*.yaml")))
        raise UserError(f"{config}: no such recipe; shipped recipes: {shipped}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{config}: the recipe cannot be read: {error}") from error
    if not isinstance(values, dict | None):
        raise UserError(f"{config}: a recipe must be a mapping of keys to values")
    return values or {}


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    # YAML also raises Python's errors, for invalid dates, long numbers and deep nesting.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {join_lines(error)}") from error
