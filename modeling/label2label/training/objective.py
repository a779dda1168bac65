"""What a step minimises: the model's own loss, every image alike, or the worst groups first."""

from typing import Any

import torch
from accelerate import Accelerator


def image_mean(losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """
    Mean over the images that have a label.

    Args:
        losses: (batch,), 0 where an image has no label, as `compute_loss` returns them.
        counted: (batch,), how much an image counts, 0 where it has no label.

    Returns:
        A scalar, 0 where none has.
    """
    return losses.sum() / counted.sum().clamp(min=torch.finfo(losses.dtype).tiny)


class GroupDRO:
    """
    Group distributionally robust optimisation (arXiv:1911.08731, algorithm 1): the mean loss of
    every group is weighted, and the weights grow exponentially with the loss, so that the worst
    group comes to count most. Images of no group keep their mean and their share of the batch.

    Args:
        num_groups: Number of groups.
        step_size: How fast weights move (eta of the paper).
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
        """
        Weighs a batch's losses, after moving the weights. All processes call it; their mean is what
        one process would return for all their images.

        Args:
            losses: (batch,).
            counted: (batch,), 1 where an image has a label, else 0.
            groups: (batch,), index of each image's group, -1 for none.
            accelerator: Of the process.

        Returns:
            A scalar.
        """
        grouped = (counted > 0) & (groups >= 0)
        # One column a group, and a last one for images of none.
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
        # A group that the batch lacks gives its weight to the others: an epoch has few batches.
        grouped_share = counts[:-1].sum() / counts.sum().clamp(min=1)
        by_group = grouped_share * weights / counts[:-1].clamp(min=1)
        scale = torch.cat([by_group, 1 / counts.sum().clamp(min=1)[None]])
        return accelerator.num_processes * (scale * sums).sum()

    def state_dict(self) -> dict[str, Any]:
        """The weights, for Accelerate."""
        return {"weights": self.weights.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the weights that `state_dict` gave."""
        self.weights = state["weights"]
