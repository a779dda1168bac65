"""A training recipe: what a run does, in one flat YAML file."""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

from label2label.errors import UserError
from label2label.training.sources import Source, read_sources


@strict
@dataclasses.dataclass
class Recipe:
    """
    Everything that decides a training run. Every field may stand in the YAML file, none has to.

    Data:
        data: Folder that a script of `datasets_scripts/` wrote, or a Hub dataset id; or a list of
            them, some perhaps with conditions, see `label2label.training.sources`.
        vocabulary: Attributes to learn, see `label2label.data.vocabulary`.
        streaming: Whether the training split is read from front to back, from disk or the Hub, and
            never whole, see `label2label.training.streaming`. Teachers, groups and more than one
            plain dataset need all rows at once and are refused.
        shuffle_buffer: Images that each of the processes that read a stream holds and shuffles, in
            whole batches.
        batches_per_epoch: Batches of an epoch on each process, for streaming; 0 for as many as the
            images fill of which the dataset's card tells.

    Model:
        init_from: Folder or Hub id of a whole model to go on from, or the name of one that ships
            with the package; `backbone`, `backbone_config` and `model` are then left out. If its
            attributes are not the vocabulary's, its head is derived from them.
        backbone: Folder or Hub id of a pretrained backbone, or of a model whose backbone is taken;
            `None` starts from random weights.
        backbone_config: The backbone's config where `backbone` is `None`, MobileFaceNet by default;
            beside a `backbone`, the `out_features` that the head attends to, and the
            `width_multiplier` to which a MobileFaceNet is narrowed.
        model: Fields of `Label2LabelConfig`: head, widths, layers, dropout, masking.

    Augmentation:
        flip, shift, scale, rotation, color, grayscale, blur, erasing: See
            `label2label.data.augmentation`.
        mixup: Probability, 0..1, that a batch is mixed up with itself, words included.
        mixup_alpha: Parameter of the Beta distribution of mixup weights.
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
        group_step_size: How fast the weights of group DRO move.
        known_words: Largest share, 0..1, of an image's words that are given as `known_labels` in
            training; the share is drawn for every second image, the others are given none.

    Optimisation:
        freeze_backbone: Whether the backbone stays as it is, statistics included: only the head
            learns, in less time.
        freeze_statistics: Whether BatchNorm keeps the means and variances of the model or backbone
            that training starts from, so that another domain does not move them.
        epochs, batch_size: Passes over the data; images a step and process.
        optimizer: `"adamw"` or `"sgd"` (momentum 0.9).
        backbone_learning_rate, head_learning_rate: Peaks of the schedule.
        weight_decay: Of matrices and kernels; norms, biases and slopes have none.
        warmup: Share of all steps, 0..1, over which the rates rise; then they follow a cosine to 0.
        max_gradient_norm: Gradients are clipped to this norm; 0 for never.
        gradient_accumulation: Batches a step.
        ema: Decay of the exponential moving average that is validated and saved; 0 for none.
        mixed_precision: `"no"`, `"bf16"` or `"fp16"`.
        channels_last: Whether images and kernels lie channels last, which is faster on most
            devices.
        fully_sharded: Whether each of several processes keeps a part of the weights, gradients and
            optimizer state only (FSDP), see `label2label.training.sharding`.
        workers: Processes that prepare images.
        keep_decoded: Whether images are decoded once and kept as plain pixels on disk (72 kB for an
            image of CelebA's official size), which spares most of the preparation. Streamed ones
            never are.
        seed: Of everything random.
        checkpoint_every: Steps between states to resume from, beside one an epoch; 0 for none.
    """

    data: str | list[Any] = "data/celeba"
    vocabulary: str = "celeba-40"
    streaming: bool = False
    shuffle_buffer: int = 4096
    batches_per_epoch: int = 0

    init_from: str | None = None
    backbone: str | None = None
    backbone_config: dict[str, Any] | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    flip: float | int = 0.5
    shift: float | int = 0.06
    scale: float | int = 0.1
    rotation: float | int = 0
    color: float | int = 0
    grayscale: float | int = 0
    blur: float | int = 0
    erasing: float | int = 0
    mixup: float | int = 0
    mixup_alpha: float | int = 0.5
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
    optimizer: str = "adamw"
    backbone_learning_rate: float | int = 0.0005
    head_learning_rate: float | int = 0.001
    weight_decay: float | int = 0.05
    warmup: float | int = 0.05
    max_gradient_norm: float | int = 1.0
    gradient_accumulation: int = 1
    ema: float | int = 0.995
    mixed_precision: str = "no"
    channels_last: bool = False
    fully_sharded: bool = False
    workers: int = 1
    keep_decoded: bool = True
    seed: int = 0
    checkpoint_every: int = 0

    def __post_init__(self):
        shares = ("flip", "shift", "scale", "color", "grayscale", "blur", "erasing", "mixup")
        shares += ("label_smoothing", "distillation", "known_words", "warmup", "ema")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        positive = ("epochs", "batch_size", "gradient_accumulation", "mixup_alpha")
        for name in (*positive, "shuffle_buffer"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        rates = ("backbone_learning_rate", "head_learning_rate", "weight_decay")
        counts = ("workers", "seed", "checkpoint_every", "batches_per_epoch")
        for name in (*rates, *counts, "rotation", "max_gradient_norm", "group_step_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.init_from and (self.backbone or self.backbone_config or self.model):
            raise ValueError("init_from brings a whole model: leave backbone and model out")
        read_sources(self.data)
        for name, choices in {
            "objective": ("mean", "image-mean", "group-dro"),
            "sampling": ("uniform", "group-balanced"),
            "optimizer": ("adamw", "sgd"),
            "mixed_precision": ("no", "bf16", "fp16"),
        }.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        self._check_streaming()
        if not self.groups:
            for name in ("objective", "sampling"):
                if getattr(self, name).startswith("group"):
                    raise ValueError(f"{name} {getattr(self, name)!r} needs groups, such as [race]")
        if self.fully_sharded and self.mixed_precision == "fp16":
            raise ValueError("fully_sharded scales no losses: use mixed_precision bf16")
        if self.objective == "group-dro" and self.mixup:
            raise ValueError("group-dro cannot tell the group of mixed-up images: set mixup to 0")

    def _check_streaming(self) -> None:
        if not self.streaming:
            if self.batches_per_epoch:
                raise ValueError("batches_per_epoch needs streaming: else an epoch is all images")
            return
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
        """
        Names the fields in which another recipe says something else.

        Args:
            other: What is compared.

        Returns:
            Names, in their order; none where the recipes do the same.
        """
        own, others = (
            dataclasses.asdict(recipe) | {"data": recipe.sources} for recipe in (self, other)
        )
        return [name for name, value in own.items() if value != others[name]]


def load_recipe(config: str | Path | None, overrides: list[str] | None = None) -> Recipe:
    """
    Reads a recipe.

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
        try:
            _override(values, key.split("."), yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UserError(f"--set {override}: the value is no YAML") from error
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
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from error


def _override(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets a value inside nested mappings and lists; ValueError where there is no such place."""
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
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{config}: not valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{config}: a recipe is a mapping of keys to values")
    return values
