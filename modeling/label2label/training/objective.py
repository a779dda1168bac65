"""The training objective: soft labels, mixup, known words and the weights of images."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from label2label.models import Label2LabelForImageClassification
from label2label.training.distillation import soften_labels
from label2label.training.recipe import Recipe

MIXUP_ALPHA = 0.5  # parameter of the Beta distribution of weights


def training_inputs(
    batch: dict[str, torch.Tensor],
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Soften a batch's labels, then apply mixup or known words, as the recipe says.

    Args:
        batch: `pixel_values` of shape (batch, 3, height, width), `labels` of shape (batch,
            attributes), 1, 0 or -100; with teachers, `teacher`, their probabilities, and
            `distillation`, their weight, (batch, 1); and the sources' `weight`, (batch,), unless
            all are 1.
        recipe: Gives `label_smoothing`, `mixup`, `known_words`, `teacher_confidence` and
            `label_count_power`.
        rng: Source of all draws.

    Returns:
        The model's arguments; and the images' weights for `weighted_loss`, or `None` if the model's
        own loss is meant.
    """
    labels = batch["labels"]
    soft = soften_labels(
        labels,
        batch.get("teacher"),
        batch.get("distillation", 0.0),
        recipe.label_smoothing,
        recipe.teacher_confidence,
    )
    weights = None
    if recipe.label_count_power != 1 or "weight" in batch:
        weights = weigh_images(soft, recipe.label_count_power, batch.get("weight"))[:, None]
    inputs = {"pixel_values": batch["pixel_values"], "labels": soft}
    if rng.random() < recipe.mixup:
        return mix_batch(inputs, weights, rng)
    if recipe.known_words:
        inputs["known_labels"] = draw_known_words(labels, recipe.known_words, rng)
    return inputs, weights


def weigh_images(
    labels: torch.Tensor, power: float, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Weigh each image by its number of known labels to a power, times its source's weight.

    Args:
        labels: (batch, attributes); -100 where unknown.
        power: 0..1.
        weight: (batch,); `None` for 1.

    Returns:
        (batch,); 0 for images without a known label.
    """
    known = (labels >= 0).sum(dim=1).float()
    weights = torch.where(known > 0, known**power, 0.0)
    return weights if weight is None else weights * weight


def draw_known_words(
    labels: torch.Tensor, largest_share: float, rng: np.random.Generator
) -> torch.Tensor:
    """Draw the labels that the model is given as known words.

    Every second image gets none, the others a share drawn uniformly from 0 to the largest.

    Returns:
        (batch, attributes); `labels`, -100 where not given.
    """
    images, attributes = labels.shape
    share = rng.uniform(0, largest_share, (images, 1)) * (rng.random((images, 1)) < 0.5)
    given = torch.from_numpy(rng.random((images, attributes)) < share).to(labels.device)
    return torch.where(given, labels, -100)


def mix_batch(
    inputs: dict[str, torch.Tensor], weights: torch.Tensor | None, rng: np.random.Generator
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Apply mixup to a batch of `pixel_values` and `labels` (arXiv:1710.09412).

    Args:
        inputs: The batch.
        weights: (batch, 1), the images' weights, or `None`.
        rng: Source of the draws.

    Returns:
        The model's arguments: mixed images, `labels`, and `mixup`, the other labels and the share
        of the first; and the weights of both labels' losses, (batch, 2).
    """
    share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
    pixels, labels = inputs["pixel_values"], inputs["labels"]
    order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
    mixed = {
        "pixel_values": pixels[order].lerp_(pixels, share),
        "labels": labels,
        "mixup": (labels[order], share),
    }
    if weights is not None:
        weights = torch.cat([share * weights, (1 - share) * weights[order]], dim=1)
    return mixed, weights


def weighted_loss(
    model: Label2LabelForImageClassification,
    outputs: Any,
    inputs: dict[str, Any],
    weights: torch.Tensor,
    accelerator: Accelerator,
) -> torch.Tensor:
    """Average the losses of images by their weights.

    All processes call it; the mean of their results is the loss over all their images.

    Args:
        model: The model.
        outputs: What it returned.
        inputs: Its arguments, from `training_inputs`.
        weights: (batch, 1), of each image's loss; with mixup (batch, 2), of the losses with its
            labels and with the other image's.
        accelerator: The process's accelerator.

    Returns:
        A scalar; 0 if no label is known.
    """
    targets = [inputs["labels"], *inputs.get("mixup", [])[:1]]
    losses = [
        model.compute_loss(
            outputs.logits,
            labels,
            outputs.query_logits,
            outputs.masked_words,
            inputs.get("known_labels"),
            reduction="image",
        )[0]
        for labels in targets
    ]
    total = accelerator.reduce(weights.sum(), "mean").clamp(min=torch.finfo(torch.float32).tiny)
    return (torch.stack(losses, dim=1) * weights).sum() / total
