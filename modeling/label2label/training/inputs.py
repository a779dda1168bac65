"""What a step feeds the model: soft labels, mixed-up images, and true words that are given away."""

from typing import Any

import numpy as np
import torch

from label2label.training.distillation import soften_labels
from label2label.training.recipe import Recipe


def training_inputs(
    batch: dict[str, torch.Tensor],
    recipe: Recipe,
    rng: np.random.Generator,
    distillation: torch.Tensor | float = 0.0,
) -> dict[str, Any]:
    """
    Softens a batch's labels, then mixes images up or gives true words away, as the recipe has it.

    Args:
        batch: `pixel_values` of shape (batch, 3, height, width), `labels` of shape (batch,
            attributes), 1, 0 or -100, and `teacher` where there is one.
        recipe: Gives `label_smoothing`, `mixup`, `mixup_alpha`, `known_words`.
        rng: Source of all draws.
        distillation: The teacher's share, 0..1, of all images or (batch, 1).

    Returns:
        The model's arguments.
    """
    labels = batch["labels"]
    soft = soften_labels(labels, batch.get("teacher"), distillation, recipe.label_smoothing)
    inputs = {"pixel_values": batch["pixel_values"], "labels": soft}
    if rng.random() < recipe.mixup:
        return mix_batch(inputs, recipe.mixup_alpha, rng)
    if recipe.known_words:
        inputs["known_labels"] = draw_known_words(labels, recipe.known_words, rng)
    return inputs


def draw_known_words(
    labels: torch.Tensor, largest_share: float, rng: np.random.Generator
) -> torch.Tensor:
    """
    Chooses the true words that an image's sentence is given: none for every second image, else a
    share drawn evenly from 0 to the largest.

    Args:
        labels: (batch, attributes); 1, 0 or -100.
        largest_share: 0..1.
        rng: Source of the draws.

    Returns:
        (batch, attributes); labels, -100 where not given.
    """
    images, attributes = labels.shape
    share = rng.uniform(0, largest_share, (images, 1)) * (rng.random((images, 1)) < 0.5)
    given = torch.from_numpy(rng.random((images, attributes)) < share).to(labels.device)
    return torch.where(given, labels, -100)


def mix_batch(
    inputs: dict[str, torch.Tensor], alpha: float, rng: np.random.Generator
) -> dict[str, Any]:
    """
    Mixes a batch up with a permutation of itself (arXiv:1710.09412).

    Args:
        inputs: `pixel_values` of shape (batch, 3, height, width) and `labels`.
        alpha: Parameter of the Beta distribution of weights.
        rng: Source of the weight and the permutation.

    Returns:
        The model's arguments: mixed images, `labels`, and `mixup`: the other labels and the weight.
    """
    weight = rng.beta(alpha, alpha)
    pixels, labels = inputs["pixel_values"], inputs["labels"]
    order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
    return {
        "pixel_values": pixels[order].lerp_(pixels, weight),
        "labels": labels,
        "mixup": (labels[order], float(weight)),
    }
