"""Channel pruning: a narrower backbone from a trained one."""

import copy
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor

from label2label.models.modeling_mobilefacenet import (
    MobileFaceNetBackbone,
    MobileFaceNetConvLayer,
)


@torch.no_grad()
def prune_channels(backbone: MobileFaceNetBackbone, width: float) -> MobileFaceNetBackbone:
    """Keep the channels whose BatchNorm scales are largest (network slimming, arXiv:1708.06519).

    Channels connected by residual connections are kept or dropped together, by the sum of their
    scales. The pruned model needs training to recover its accuracy.

    Args:
        backbone: A MobileFaceNet; not modified.
        width: The new `width_multiplier`, in 0..1 and less than the current one.
    """
    if not 0 < width < backbone.config.width_multiplier:
        raise ValueError(
            f"width_multiplier {width} must be less than the backbone's, "
            f"{backbone.config.width_multiplier}"
        )
    config = copy.deepcopy(backbone.config)
    config.width_multiplier = width
    narrow = MobileFaceNetBackbone(config)
    # Types of nested modules are only known at run time.
    old: Any = backbone.encoder
    new: Any = narrow.encoder

    kept = torch.arange(old.num_channels)
    for place, (layer, narrower) in enumerate(zip(old.stem, new.stem, strict=True)):
        if place == 1:  # depthwise: same channels as the layer before
            _copy_channels(layer, narrower, kept, kept)
            continue
        outputs = _largest([layer], narrower)
        _copy_channels(layer, narrower, kept, outputs)
        kept = outputs
    blocks = list(chain.from_iterable(old.stages))
    joined = kept
    for place, narrower in enumerate(chain.from_iterable(new.stages)):
        block = blocks[place]
        if not block.has_residual:  # else it keeps the same channels as the block before
            adding = takewhile(lambda after: after.has_residual, blocks[place + 1 :])
            joined = _largest([block.project, *(b.project for b in adding)], narrower.project)
        inner = _largest([block.depthwise], narrower.depthwise)
        _copy_channels(block.expand, narrower.expand, kept, inner)
        _copy_channels(block.depthwise, narrower.depthwise, inner, inner)
        _copy_channels(block.project, narrower.project, inner, joined)
        kept = joined
    outputs = _largest([old.features], new.features)
    _copy_channels(old.features, new.features, kept, outputs)
    return narrow.eval()


def _largest(writers: list[MobileFaceNetConvLayer], narrower: MobileFaceNetConvLayer) -> Tensor:
    """Return the sorted indices of the output channels to keep, as many as `narrower` has."""
    scales = torch.stack([layer.normalization.weight.abs() for layer in writers]).sum(dim=0)
    return scales.topk(narrower.convolution.out_channels).indices.sort().values


def _copy_channels(
    layer: MobileFaceNetConvLayer,
    narrower: MobileFaceNetConvLayer,
    inputs: Tensor,
    outputs: Tensor,
) -> None:
    weight = layer.convolution.weight[outputs]
    if layer.convolution.groups == 1:
        weight = weight[:, inputs]
    narrower.convolution.weight.copy_(weight)
    for source, target in (
        (layer.normalization, narrower.normalization),
        (layer.activation, narrower.activation),
    ):
        for name, values in target.state_dict().items():
            given = source.state_dict()[name]
            values.copy_(given[outputs] if given.ndim else given)
