"""A training recipe: what a run does, in one flat YAML file."""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from label2label.errors import UserError, join_lines

LIMITS = {
    **dict.fromkeys(("flip", "shift", "scale", "zoom", "color", "grayscale", "blur"), (0, 1)),
    **dict.fromkeys(("erasing", "mixup", "label_smoothing", "distillation"), (0, 1)),
    **dict.fromkeys(("known_words", "warmup", "ema"), (0, 1)),
    **dict.fromkeys(("backbone_learning_rate", "head_learning_rate", "weight_decay"), (0, 100)),
    "rotation": (0, 180),
    "group_step_size": (0, 100),
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "workers": (0, 256),
    "seed": (0, 2**32 - 1),
    "checkpoint_every": (0, 10**9),
}
IMAGE_SIZES = (32, 1024)
CHOICES = {
    "objective": ("mean", "image-mean", "group-dro"),
    "sampling": ("uniform", "group-balanced"),
    "mixed_precision": ("no", "bf16"),
}


@strict
@dataclasses.dataclass(frozen=True)
class Source:
    """
    One entry of a recipe's `data`.

    Args:
        path: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id.
        where: Value, or list of values, that a column must have, by column: `{race: Asian}`.
        limit: Number of training rows at most, the same ones for the same seed, and those of a
            smaller limit among those of a larger; 0 for all. Validation keeps all its rows.
        share: Share of an epoch's images, 0..1, that are this source's; `None` for its part of what
            other sources leave, by number of rows.
        distillation: The teachers' share of its soft labels, 0..1, in place of the recipe's; 0
            shows it to no teacher.
    """

    path: str
    where: dict[str, Any] = dataclasses.field(default_factory=dict)
    limit: int = 0
    share: float | int | None = None
    distillation: float | int | None = None

    def __post_init__(self):
        for name in ("share", "distillation"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in 0..1, got {value}")
        if self.limit < 0:
            raise ValueError(f"limit must not be negative, got {self.limit}")

    @property
    def condition(self) -> str:
        """`where` in words."""
        return " and ".join(f"{column} = {value}" for column, value in self.where.items())


def read_sources(data: str | list[Any]) -> list[Source]:
    """
    Read a recipe's `data`.

    Args:
        data: A path, or a list of paths and of mappings of `Source`'s fields.

    Returns:
        The sources, in order.

    Raises:
        ValueError: If an entry is neither, has an unknown key, or the list is empty.
    """
    entries = [data] if isinstance(data, str) else data
    if not entries:
        raise ValueError("data names no dataset")
    known = [field.name for field in dataclasses.fields(Source)]
    sources = []
    for entry in entries:
        values = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(values, dict) or "path" not in values:
            raise ValueError(f"data: each entry is a path or a mapping with a path, got {entry!r}")
        if unknown := sorted(set(map(str, values)) - set(known)):
            raise ValueError(f"data: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
        sources.append(Source(**values))
    return sources


@strict
@dataclasses.dataclass
class Recipe:
    """
    Everything that decides a training run. Every field may stand in the YAML file, none has to.

    Data:
        data: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id; or a list of
            them, some perhaps with the conditions of `Source`.
        vocabulary: Attributes to learn: a name of `label2label.data.vocabulary`, or `"columns"` for
            the dataset's own attribute columns.
        streaming: Whether the training split is read from front to back, from disk or the Hub, and
            never whole. Teachers, groups and more than one plain dataset need all rows at once and
            are refused.

    Model:
        init_from: Folder or Hub id of a whole model to go on from, or the name of one that ships
            with the package; `backbone`, `backbone_config` and `model` are then left out. Where its
            attributes are not those to learn, it is fine-tuned to them.
        backbone: Folder or Hub id of a pretrained backbone, or of a model whose backbone is taken;
            `None` starts from random weights.
        backbone_config: The backbone's config where `backbone` is `None`, MobileFaceNet by default;
            beside a `backbone`, the `out_features` that the head attends to, and the
            `width_multiplier` to which a MobileFaceNet's channels are pruned.
        model: Fields of `Label2LabelConfig`: head, widths, layers, dropout, masking.

    Augmentation:
        flip, shift, scale, zoom, rotation, color, grayscale, blur, erasing: See
            `label2label.data.augmentation`.
        mixup: Probability, 0..1, that a batch is mixed up with itself, words included.
        label_smoothing: Share, 0..1, by which labels are drawn to one half.

    Supervision:
        teachers: Folders or Hub ids of models, and of backbones to probe; their mean probability of
            each image is cached once, see `label2label.training.distillation`.
        distillation: The teachers' share, 0..1, of the soft labels; 1 forgets the labels.
        objective: `"mean"` over all known labels; `"image-mean"`, in which every image weighs alike
            however many of its labels are known; or `"group-dro"`, in which the worst groups do.
        groups: Columns whose values together make an image's group, such as `[race]`; images with
            a null there are in none.
        sampling: `"uniform"`, or `"group-balanced"`: all groups are drawn equally often.
        group_step_size: Step size of group DRO's weights.
        known_words: Largest share, 0..1, of an image's words that are given as `known_labels` in
            training; the share is drawn for every second image, the others are given none.

    Optimisation:
        freeze_backbone: Whether the backbone stays as it is, statistics included: only the head
            learns, in less time.
        freeze_statistics: Whether BatchNorm keeps the means and variances of the model or backbone
            that training starts from, so that another domain does not move them.
        epochs, batch_size: Passes over the data; images per step and process.
        image_sizes: Sides, in pixels, to which crops are resized over the course of training, each
            for an equal share of the epochs, such as `[80, 96, 112]`: smaller images are faster.
            Empty for the model's own size throughout.
        backbone_learning_rate, head_learning_rate: Peaks of the schedule.
        weight_decay: Of matrices and kernels; norms, biases and slopes have none.
        warmup: Share of all steps, 0..1, over which the rates rise; then they follow a cosine to 0.
        ema: Decay of the exponential moving average that is validated and saved; 0 for none.
        mixed_precision: `"no"` or `"bf16"`.
        workers: Threads that decode images.
        cache_pixels: Whether images are decoded once and kept as uint8 crops on disk (71 kB each),
            and in the memory of a GPU with room for them. Streamed ones never are.
        seed: Of everything random.
        checkpoint_every: Steps between states to resume from, beside one an epoch; 0 for none.
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
    known_words: float | int = 0

    objective: str = "mean"
    groups: list[str] = dataclasses.field(default_factory=list)
    sampling: str = "uniform"
    group_step_size: float | int = 0.05

    freeze_backbone: bool = False
    freeze_statistics: bool = False
    epochs: int = 10
    batch_size: int = 64
    image_sizes: list[int] = dataclasses.field(default_factory=list)
    backbone_learning_rate: float | int = 0.0005
    head_learning_rate: float | int = 0.001
    weight_decay: float | int = 0.05
    warmup: float | int = 0.05
    ema: float | int = 0.995
    mixed_precision: str = "no"
    workers: int = 1
    cache_pixels: bool = True
    seed: int = 0
    checkpoint_every: int = 0

    def __post_init__(self):
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:
                value = str(getattr(self, name))[:40]
                raise ValueError(f"{name} must be in {least}..{most}, got {value}")
        for size in self.image_sizes:
            if not IMAGE_SIZES[0] <= size <= IMAGE_SIZES[1]:
                raise ValueError(
                    f"image_sizes must be in {IMAGE_SIZES[0]}..{IMAGE_SIZES[1]}, got {size}"
                )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        if self.init_from and (self.backbone or self.backbone_config or self.model):
            raise ValueError("init_from brings a whole model: leave backbone and model out")
        read_sources(self.data)
        if self.streaming:
            self._check_streaming()
        if not self.groups:
            for name in ("objective", "sampling"):
                if getattr(self, name).startswith("group"):
                    raise ValueError(f"{name} {getattr(self, name)!r} needs groups, such as [race]")
        if self.objective == "group-dro" and self.mixup:
            raise ValueError("group-dro cannot tell the group of mixed-up images: set mixup to 0")

    def _check_streaming(self) -> None:
        asked = {
            "teachers": self.teachers,
            "groups": self.groups,
            f"objective {self.objective}": self.objective == "group-dro",
            f"sampling {self.sampling}": self.sampling != "uniform",
            "all of data but one path": self.sources != [Source(self.sources[0].path)],
        }
        if refused := [name for name, value in asked.items() if value]:
            raise ValueError(
                f"streaming never sees all rows at once: leave out {', '.join(refused)}"
            )

    @property
    def sources(self) -> list[Source]:
        """`data` as a list."""
        return read_sources(self.data)

    def differences(self, other: "Recipe") -> list[str]:
        """Name the fields, in their order, in which another recipe says something else."""
        own, others = (
            dataclasses.asdict(recipe) | {"data": recipe.sources} for recipe in (self, other)
        )
        return [name for name, value in own.items() if value != others[name]]


def load_recipe(config: str | Path | None, overrides: list[str] | None = None) -> Recipe:
    """
    Read a recipe.

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
    known = {field.name for field in dataclasses.fields(Recipe)}
    where = config if config is not None else "--set"
    if unknown := sorted(map(str, set(values) - known)):
        raise UserError(
            f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    try:
        return Recipe(**values)
    except (TypeError, ValueError, RecursionError, StrictDataclassError) as error:
        raise UserError(f"{where}: {join_lines(error)}") from error


def _override(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value inside nested mappings and lists; ValueError where there is no such place."""
    target: Any = values
    for place, key in enumerate(keys):
        if isinstance(target, list):
            if not key.isdecimal() or int(key) >= len(target):
                raise ValueError(f"{keys[place - 1]!r} has no entry {key}")
        elif not isinstance(target, dict):
            raise ValueError(f"{keys[place - 1]!r} is no mapping")
        at: Any = int(key) if isinstance(target, list) else key
        if place == len(keys) - 1:
            target[at] = value
        else:
            target = target.setdefault(at, {}) if isinstance(target, dict) else target[at]


def _read(config: str | Path) -> dict[str, Any]:
    recipes = Path(str(resources.files("label2label.training"))) / "recipes"
    bundled = recipes / f"{config}.yaml"
    path = Path(config)
    if not path.exists() and "/" not in str(config) and bundled.is_file():
        text = bundled.read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            shipped = sorted(file.stem for file in recipes.glob("*.yaml"))
            raise UserError(
                f"{config}: no such recipe file, and none that ships: {', '.join(shipped)}"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{config}: cannot read the recipe: {error}") from error
    values = _parse(text, str(config))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{config}: a recipe is a mapping of keys to values")
    return values


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    # Beside its own errors, YAML raises Python's: of a date that is none, of a number too long.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: not valid YAML: {join_lines(error)}") from error
    except RecursionError as error:
        raise UserError(f"{where}: not valid YAML: it is nested too deeply") from error
