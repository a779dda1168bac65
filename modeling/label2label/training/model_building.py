"""Build models for training: backbones, attributes and layers."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoBackbone, AutoConfig

from label2label.checkpoints import find_checkpoint
from label2label.data.loading import attribute_frequencies
from label2label.data.vocabulary import VOCABULARIES
from label2label.errors import UserError, join_lines
from label2label.models import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
)
from label2label.models.modeling_mobilefacenet import MobileFaceNetBackbone
from label2label.prediction.backends import load_model
from label2label.training.pruning import prune_channels
from label2label.training.recipe import Recipe, check_keys


def build_model(
    recipe: Recipe, attributes: Sequence[str], labels: np.ndarray | None = None
) -> tuple[Label2LabelForImageClassification, Label2LabelImageProcessor]:
    """Build the model that a recipe trains, on the CPU, and its image processor.

    Args:
        recipe: Gives `backbone`, `backbone_config` and `model`, or `init_from`.
        attributes: Names of the attributes, in order.
        labels: (images, attributes); 1, 0 or -100. Attributes that are new to the model start at
            their frequencies.
    """
    frequencies = None
    if labels is not None:
        frequencies = torch.from_numpy(attribute_frequencies(labels)).float()
    processor: Any = Label2LabelImageProcessor()
    if recipe.init_from:
        model, processor = load_model(recipe.init_from)
        if _names(model) != list(attributes):
            model = replace_attributes(model, attributes, frequencies)
        # Calibration belongs to the former weights.
        absorb_temperature(model)
    else:
        model = _build_from_backbone(recipe, attributes)
        if frequencies is not None:
            set_prior(model, frequencies)
    if recipe.frozen_stages and not isinstance(model.label2label.backbone, MobileFaceNetBackbone):
        raise UserError("frozen_stages needs a MobileFaceNet backbone; leave it out")
    processor.thresholds = None
    processor.attributes = list(attributes)
    rules = processor.exclusive_answers or ()
    rules = [[name for name in rule if name in attributes] for rule in rules]
    processor.exclusive_answers = [rule for rule in rules if len(rule) > 1]
    return model, processor


def _build_from_backbone(
    recipe: Recipe, attributes: Sequence[str]
) -> Label2LabelForImageClassification:
    backbone = load_backbone(recipe.backbone) if recipe.backbone else None
    if backbone is not None and recipe.backbone_config:
        backbone = _change_backbone(backbone, recipe.backbone_config)
    try:
        check_keys(recipe.model, Label2LabelConfig)
        config = Label2LabelConfig(
            backbone_config=recipe.backbone_config if backbone is None else backbone.config,
            id2label=dict(enumerate(attributes)),
            label2id={name: i for i, name in enumerate(attributes)},
            **recipe.model,
        )
        model = Label2LabelForImageClassification(config)
        if backbone is not None:
            model.label2label.backbone.load_state_dict(backbone.state_dict())
        return model
    # Layers raise many kinds of errors for settings that no config validates.
    except (LookupError, RuntimeError, TypeError, ValueError, StrictDataclassError) as error:
        raise UserError(f"model: {join_lines(error)}") from error


def _change_backbone(backbone: Any, wanted: dict[str, Any]) -> Any:
    allowed = {"out_features"}
    if isinstance(backbone, MobileFaceNetBackbone):
        allowed.add("width_multiplier")
    if not set(wanted) <= allowed:
        raise UserError(
            "with a pretrained backbone, backbone_config can only set its out_features and the "
            "width_multiplier to which a MobileFaceNet's channels are pruned"
        )
    try:
        if "out_features" in wanted:
            backbone.out_features = wanted["out_features"]
        if "width_multiplier" in wanted:
            backbone = prune_channels(backbone, wanted["width_multiplier"])
    except (TypeError, ValueError) as error:
        raise UserError(f"backbone_config: {error}") from error
    return backbone


def load_backbone(name: str) -> Any:
    """Load a pretrained backbone, alone or out of a whole model, in float32 on the CPU.

    Args:
        name: Folder or Hub id of a backbone or a Label2label model, or the name of a shipped model.
    """
    name = find_checkpoint(name)
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type == Label2LabelConfig.model_type:
            return load_model(name)[0].label2label.backbone
        # AutoBackbone.from_pretrained takes only Hub ids, so the class comes from the config.
        backbone_class = type(AutoBackbone.from_config(config))
        backbone = backbone_class.from_pretrained(name, dtype=torch.float32)
    except Exception as error:  # the Hub's client does not wrap its HTTP library's errors
        raise UserError(
            f"{name}: cannot be loaded as a backbone ({join_lines(error)}); "
            "make one with `label2label convert CHECKPOINT OUT`"
        ) from error
    if Path(name).is_dir():
        backbone.config._name_or_path = ""  # a path of this machine is of no use elsewhere
    return backbone


@torch.no_grad()
def set_prior(model: Label2LabelForImageClassification, frequencies: torch.Tensor) -> None:
    """Initialise each attribute's logits at the log-odds of its frequency, 0..1.

    Training then need not first learn which attributes are rare (arXiv:1708.02002, section 4.1).
    """
    log_odds = torch.logit(frequencies, eps=0.01)
    if model.config.head_type == "fc":
        model.classifier.bias.copy_(log_odds)
    else:
        model.label2label.query_network.classifier.bias.copy_(log_odds)
    if model.config.head_type == "label2label":
        model.normalization.bias.copy_(log_odds)


def replace_attributes(
    model: Label2LabelForImageClassification,
    attributes: Sequence[str],
    frequencies: torch.Tensor | None = None,
) -> Label2LabelForImageClassification:
    """Return a copy of a model for other attributes, to be fine-tuned.

    An attribute that the model has keeps its query, words and classifiers. An attribute whose
    negation the model has (`Beard` = not `No_Beard`) takes over the negation's, with the two words
    swapped and the signs of its logits changed. The others start from random weights, and their
    logits from `frequencies`, (attributes,), as in `set_prior`.
    """
    old_names = _names(model)
    # The old index of each new attribute and the sign of its logits, 0 if it is not in the model.
    sources, signs = [], []
    for name in attributes:
        opposite = VOCABULARIES["union"].opposites.get(name)
        found = name if name in old_names else opposite if opposite in old_names else None
        sources.append(old_names.index(found) if found else 0)
        signs.append(0 if found is None else 1 if found == name else -1)
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(attributes))
    config.label2id = {name: i for i, name in enumerate(attributes)}
    new = Label2LabelForImageClassification(config)
    if frequencies is not None:
        set_prior(new, frequencies)
    old = model.state_dict()
    index, sign = torch.tensor(sources), torch.tensor(signs)
    state = {
        name: _carry_over(name, old[name], fresh, index, sign)
        for name, fresh in new.state_dict().items()
    }
    new.load_state_dict(state)
    return new.eval()


def _names(model: Label2LabelForImageClassification) -> list[str]:
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


def _carry_over(
    name: str, old: torch.Tensor, fresh: torch.Tensor, index: torch.Tensor, sign: torch.Tensor
) -> torch.Tensor:
    """Build one tensor of the new model from the old one and a randomly initialised one."""
    *_, module, parameter = name.split(".")
    if module == "word_embeddings":
        absent, present = (half[index] for half in old.chunk(2))
        swapped = (sign < 0)[:, None]
        words = [torch.where(swapped, present, absent), torch.where(swapped, absent, present)]
        known = (sign != 0)[:, None].repeat(2, 1)
        return torch.where(known, torch.cat(words), fresh)
    if module == "coupling":  # from a known attribute's residual to another attribute's logit
        pairs = sign[:, None] * sign
        return torch.where(pairs != 0, old[index][:, index] * pairs, fresh)
    by_attribute = ("query_embeddings", "mask_embeddings", "classifier", "normalization")
    # The backbone has layers named `normalization` too.
    in_backbone = name.startswith("label2label.backbone.")
    if (
        old.ndim == 0
        or in_backbone
        or not (module in by_attribute or parameter == "known_embedding")
    ):
        return old
    # Logits change sign if the classifier and BatchNorm's mean and bias do.
    negated = module == "classifier" or (
        module == "normalization" and parameter in ("bias", "running_mean")
    )
    shape = (-1, *[1] * (old.ndim - 1))
    known, factor = (sign != 0).view(shape), sign.view(shape)
    return torch.where(known, old[index] * (factor if negated else 1), fresh)


@torch.no_grad()
def absorb_temperature(model: Label2LabelForImageClassification) -> None:
    """Fold a calibrated model's temperature into its last layer, to train on with temperature 1.

    The logits stay the same.
    """
    last = {
        "fc": "classifier",
        "query2label": "label2label.query_network.classifier",
        "label2label": "normalization",
    }[model.config.head_type]
    layer = model.get_submodule(last)
    for name in ("weight", "bias"):
        layer.get_parameter(name).div_(model.config.temperature)
    if model.config.head_type == "label2label":
        model.coupling.weight.div_(model.config.temperature)
    model.config.temperature = 1.0


class SynchronizedBatchNorm(_BatchNorm):
    """BatchNorm with means and variances over the batches of all processes.

    `torch.nn.SyncBatchNorm` does not work on the CPU, and cannot leave given words out of the
    statistics, as the model's BatchNorm over logits does.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass  # any shape (batch, channels, ...)

    def forward(self, input: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        """Normalise (batch, channels, ...); `given` values are left out of the statistics."""
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        values = input.float()
        counted = torch.ones_like(values) if given is None else (~given).float()
        sums = all_reduce(torch.cat([(values * counted).sum(axes), counted.sum(axes)]))
        mean, count = sums.chunk(2)
        count = count.detach().clamp(min=1)
        mean = mean / count
        centred = values - mean.view(shape)
        # From centred values: the difference of two large sums would lose precision.
        variance = all_reduce((centred.square() * counted).sum(axes)) / count
        unbiased = variance.detach() * count / (count - 1).clamp(min=1)
        for remembered, new in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
            if remembered is not None and self.momentum is not None:
                remembered.lerp_(new, self.momentum * (count > 1))
        normalized = centred * torch.rsqrt(variance + self.eps).view(shape)
        return (normalized * self.weight.view(shape) + self.bias.view(shape)).to(input.dtype)


class _StridedDepthwise(torch.autograd.Function):
    """Depthwise convolution; the backward pass has stride 1 and a gradient padded with zeros."""

    @staticmethod
    def forward(ctx: Any, pixels: Any, weight: Any, stride: Any, padding: Any) -> torch.Tensor:
        ctx.save_for_backward(pixels, weight)
        ctx.stride, ctx.padding = stride, padding
        return nn.functional.conv2d(pixels, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        pixels, weight = ctx.saved_tensors
        (down, right), padding = ctx.stride, ctx.padding
        sides = [
            side + 2 * pad - kernel + 1
            for side, pad, kernel in zip(pixels.shape[2:], padding, weight.shape[2:], strict=True)
        ]
        channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        dense = gradient.new_zeros(*gradient.shape[:2], *sides).contiguous(memory_format=layout)
        dense[:, :, ::down, ::right] = gradient
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False)
        of_pixels, of_weight, _ = torch.ops.aten.convolution_backward(
            *(dense, pixels, weight, None, (1, 1), padding, (1, 1), False, (0, 0), len(weight)),
            wanted,
        )
        return of_pixels, of_weight, None, None


class StridedDepthwiseConv2d(nn.Conv2d):
    """Depthwise `Conv2d` without bias, with a fast backward pass in bfloat16 on a CPU.

    PyTorch's backward pass is slow for strides above 1: training steps of MobileFaceNet take 1.3
    times as long.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve (batch, channels, height, width), as `Conv2d` does."""
        fast = input.device.type == "cpu" and torch.is_grad_enabled()
        if not fast or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu")
        tensors = input.to(dtype), self.weight.to(dtype)
        return _StridedDepthwise.apply(*tensors, self.stride, self.padding)


def prepare_layers(module: nn.Module, processes: int) -> None:
    """Replace strided depthwise convolutions and BatchNorms by the classes above, in place.

    The weights and their names stay. Only several processes need the second replacement.
    """
    for child in module.modules():
        if (
            type(child) is nn.Conv2d
            and child.groups == child.in_channels == child.out_channels > 1
            and child.bias is None
            and max(child.stride) > 1
            and child.dilation == (1, 1)
            and child.padding_mode == "zeros"
            and not isinstance(child.padding, str)
        ):
            child.__class__ = StridedDepthwiseConv2d
        elif isinstance(child, _BatchNorm) and processes > 1:
            child.__class__ = SynchronizedBatchNorm
