"""The training objective: soft labels, mixup, known words and losses."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from label2label.training.distillation import soften_labels
from label2label.training.recipe import Recipe

MIXUP_ALPHA = 0.5  # parameter of the Beta distribution of weights


def training_inputs(
    batch: dict[str, torch.Tensor],
    recipe: Recipe,
    rng: np.random.Generator,
    distillation: torch.Tensor | float = 0.0,
) -> dict[str, Any]:
    """Soften a batch's labels, then apply mixup or known words, as the recipe says.

    Args:
        batch: `pixel_values` of shape (batch, 3, height, width), `labels` of shape (batch,
            attributes), 1, 0 or -100, and `teacher`, if the recipe has teachers.
        recipe: Gives `label_smoothing`, `mixup`, `known_words`.
        rng: Source of all draws.
        distillation: The teacher's weight, 0..1, for all images or (batch, 1).

    Returns:
        The model's arguments.
    """
    labels = batch["labels"]
    soft = soften_labels(labels, batch.get("teacher"), distillation, recipe.label_smoothing)
    inputs = {"pixel_values": batch["pixel_values"], "labels": soft}
    if rng.random() < recipe.mixup:
        return mix_batch(inputs, rng)
    if recipe.known_words:
        inputs["known_labels"] = draw_known_words(labels, recipe.known_words, rng)
    return inputs


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


def mix_batch(inputs: dict[str, torch.Tensor], rng: np.random.Generator) -> dict[str, Any]:
    """Apply mixup to a batch of `pixel_values` and `labels` (arXiv:1710.09412).

    Returns:
        The model's arguments: mixed images, `labels`, and `mixup`: the other labels and the weight.
    """
    weight = rng.beta(MIXUP_ALPHA, MIXUP_ALPHA)
    pixels, labels = inputs["pixel_values"], inputs["labels"]
    order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
    return {
        "pixel_values": pixels[order].lerp_(pixels, weight),
        "labels": labels,
        "mixup": (labels[order], float(weight)),
    }


def image_mean(losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Average the `"image"` losses of `compute_loss` over images with a label; 0 if none has."""
    return losses.sum() / counted.sum().clamp(min=torch.finfo(losses.dtype).tiny)


class GroupDRO:
    """Group distributionally robust optimisation (arXiv:1911.08731, algorithm 1).

    Each group's mean loss is weighted, and its weight grows exponentially with the loss, so that
    the worst group comes to count most. Images without a group keep their mean loss and their share
    of the batch.

    Args:
        num_groups: Number of groups.
        step_size: Step size of the weights (eta in the paper).
    """

    def __init__(self, num_groups: int, step_size: float):
        self.step_size = step_size
        self.weights = torch.full((num_groups,), 1 / num_groups)  # q of the paper

    def __call__(
        self,
        losses: torch.Tensor,
        counted: torch.Tensor,
        groups: torch.Tensor,
        accelerator: Accelerator,
    ) -> torch.Tensor:
        """Update the weights and return the weighted loss.

        All processes call it; the mean of their results is the loss over all their images.

        Args:
            losses: (batch,).
            counted: (batch,), 1 where an image has a label, else 0.
            groups: (batch,), index of each image's group, -1 for none.
            accelerator: The process's accelerator.

        Returns:
            A scalar.
        """
        grouped = (counted > 0) & (groups >= 0)
        # One column per group, and a last one for images without a group.
        column = torch.where(grouped, groups, len(self.weights))
        members = torch.nn.functional.one_hot(column, len(self.weights) + 1) * counted[:, None]
        sums = (losses[:, None] * members).sum(dim=0)  # (groups + 1,)
        totals = torch.stack([sums.detach(), members.sum(dim=0).to(sums)])
        total_sums, counts = accelerator.reduce(totals, "sum")
        self.weights = self.weights.to(losses.device)
        present = counts[:-1] > 0
        means = total_sums[:-1] / counts[:-1].clamp(min=1)
        self.weights = self.weights * torch.exp(self.step_size * means * present)
        self.weights = self.weights / self.weights.sum()
        weights = self.weights * present
        weights = weights / weights.sum().clamp(min=1e-12)
        # Groups missing from the batch pass their weight to the others: an epoch has few batches.
        grouped_share = counts[:-1].sum() / counts.sum().clamp(min=1)
        by_group = grouped_share * weights / counts[:-1].clamp(min=1)
        scale = torch.cat([by_group, 1 / counts.sum().clamp(min=1)[None]])
        return accelerator.num_processes * (scale * sums).sum()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, for Accelerate."""
        return {"weights": self.weights.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the weights from `state_dict`."""
        self.weights = state["weights"]
