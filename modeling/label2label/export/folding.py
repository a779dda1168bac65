"""Fold what is linear at inference into the weights before it: BatchNorm, temperature, scaling."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from label2label.models import Label2LabelForImageClassification
from label2label.models.modeling_label2label import Label2LabelAttention


@torch.no_grad()
def fold_batch_norms(
    model: Label2LabelForImageClassification,
) -> Label2LabelForImageClassification:
    """Fold every BatchNorm into the convolution or classifier before it, and the temperature too.

    So is the scaling of attention, into the projection of its queries.

    Args:
        model: in evaluation mode; it is left as it is.

    Returns:
        A copy with the same outputs and without BatchNorm, on the CPU as what it is exported by.
    """
    model = copy.deepcopy(model).cpu().eval()
    for module in model.modules():
        convolution = getattr(module, "convolution", None)
        normalization: Any = getattr(module, "normalization", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(normalization, nn.BatchNorm2d):
            module.convolution = fuse_conv_bn_eval(convolution, normalization)
            module.normalization = nn.Identity()
        if isinstance(module, Label2LabelAttention):
            module.q_proj.weight.mul_(module.scaling)
            module.q_proj.bias.mul_(module.scaling)
            module.scaling = 1.0
    config: Any = model.config
    if config.head_type == "query2label":
        classifier: Any = model.label2label.query_network.classifier
    else:
        classifier = model.classifier
    if config.head_type == "label2label":
        normalization = model.normalization
        scale = normalization.weight / (normalization.running_var + normalization.eps).sqrt()
        classifier.weight *= scale[:, None]
        classifier.bias.copy_(
            (classifier.bias - normalization.running_mean) * scale + normalization.bias
        )
        model.normalization = nn.Identity()  # type: ignore[assignment]
        model.coupling.weight.div_(config.temperature)
    classifier.weight /= config.temperature
    classifier.bias /= config.temperature
    config.temperature = 1.0
    return model
