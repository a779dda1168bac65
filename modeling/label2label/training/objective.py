"""The training objective: soft labels, mixup, known words and the weights of images."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from label2label.data.vocabulary import IGNORE_INDEX
from label2label.models import Label2LabelForImageClassification
from label2label.training.recipe import Recipe

MIXUP_ALPHA = 0.5  # parameter of the Beta distribution of weights


def training_inputs(
    batch: dict[str, torch.Tensor], recipe: Recipe, rng: np.random.Generator
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Soften a batch's labels, then apply mixup or known words, as the recipe says.

    Args:
        batch: `pixel_values`, (batch, 3, height, width); `labels`, (batch, attributes), 1, 0 or
            -100; and the `supervision` of `TrainingData`: with teachers, `teacher`, their
            probabilities, and `distillation`, their share, (batch, 1); and the sources' `weight`,
            (batch,), unless all are 1.
        recipe: The recipe.
        rng: Source of all draws.

    Returns:
        The model's arguments; and the images' weights for `weighted_loss`, (batch, 1), or
        (batch, 2) with mixup, or `None` if the model's own loss is meant.
    """
    labels, weights = batch["labels"], None
    soft = labels.float()
    if "teacher" in batch:
        soft = add_teacher(soft, batch["teacher"], batch["distillation"], recipe.teacher_confidence)
    if recipe.label_count_power != 1 or "weight" in batch:
        weights = weigh_images(soft, recipe.label_count_power, batch.get("weight"))[:, None]
    smoothing = recipe.label_smoothing  # arXiv:1512.00567, section 7
    soft = torch.where(soft >= 0, soft * (1 - smoothing) + smoothing / 2, soft)
    inputs = {"pixel_values": batch["pixel_values"], "labels": soft}
    if rng.random() < recipe.mixup:
        return mix_batch(inputs, weights, rng)
    if recipe.known_words:
        inputs["known_labels"] = draw_known_words(labels, recipe.known_words, rng)
    return inputs, weights


def add_teacher(
    labels: torch.Tensor,  # (batch, attributes); 1, 0 or -100
    teacher: torch.Tensor,  # (batch, attributes), probabilities; -100 if unknown
    share: torch.Tensor,  # (batch, 1), the teacher's weight, 0..1
    confidence: float = 0.5,
) -> torch.Tensor:
    """Mix known labels with a teacher's probabilities (arXiv:1503.02531), and fill in unknown ones.

    An unknown label is filled in only if the teacher's probability is at least `confidence`,
    0.5..1, or at most 1 minus that.
    """
    confident = torch.maximum(teacher, 1 - teacher) >= confidence
    filled_in = torch.where(confident, teacher, IGNORE_INDEX)
    taught = torch.where(labels >= 0, (1 - share) * labels + share * teacher, filled_in)
    return torch.where(teacher >= 0, taught, labels)


def weigh_images(
    labels: torch.Tensor,  # (batch, attributes); -100 if unknown
    power: float,
    weight: torch.Tensor | None = None,  # (batch,), of the images' sources
) -> torch.Tensor:
    """Weigh each image by its number of known labels to a power, times its source's weight."""
    known = (labels >= 0).sum(dim=1).float()
    weights = torch.where(known > 0, known**power, 0.0)
    return weights if weight is None else weights * weight


def draw_known_words(
    labels: torch.Tensor, largest_share: float, rng: np.random.Generator
) -> torch.Tensor:
    """Draw the labels that the model is given as known words; the others are -100.

    Every second image gets none, the others a share drawn uniformly from 0 to the largest.
    """
    images, attributes = labels.shape
    share = rng.uniform(0, largest_share, (images, 1)) * (rng.random((images, 1)) < 0.5)
    given = torch.from_numpy(rng.random((images, attributes)) < share).to(labels.device)
    return torch.where(given, labels, IGNORE_INDEX)


def mix_batch(
    inputs: dict[str, torch.Tensor], weights: torch.Tensor | None, rng: np.random.Generator
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Apply mixup to a batch (arXiv:1710.09412); the results are those of `training_inputs`.

    `mixup` is the other labels and the share of the first ones.
    """
    share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
    pixels, labels = inputs["pixel_values"], inputs["labels"]
    order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
    if weights is not None:
        weights = torch.cat([share * weights, (1 - share) * weights[order]], dim=1)
    pixels = pixels[order].lerp_(pixels, share)
    return {"pixel_values": pixels, "labels": labels, "mixup": (labels[order], share)}, weights


def weighted_loss(
    model: Label2LabelForImageClassification,
    outputs: Any,
    inputs: dict[str, Any],
    weights: torch.Tensor,
    accelerator: Accelerator,
) -> torch.Tensor:
    """Average the losses of images by their weights; 0 if no label is known.

    All processes call it; the mean of their results is the loss over all their images. `inputs` and
    `weights` come from `training_inputs`.
    """
    losses = [
        model.compute_loss(
            outputs.logits,
            labels,
            outputs.query_logits,
            outputs.masked_words,
            inputs.get("known_labels"),
            reduction="image",
        )
        for labels in (inputs["labels"], *inputs.get("mixup", [])[:1])
    ]
    total = accelerator.reduce(weights.sum(), "mean").clamp(min=torch.finfo(torch.float32).tiny)
    return (torch.stack(losses, dim=1) * weights).sum() / total
