"""Fully sharded data parallelism (arXiv:2304.11277): each process keeps a part of the weights."""

import copy
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from label2label.models import Label2LabelForImageClassification

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class ShardedTraining:
    """
    Spreads a model's weights, gradients and optimizer state over all processes.

    Args:
        model: Changed in place: its parameters become parts. To be given before its optimizer is
            made.
        device: Of this process; `whole` lies there too.

    Attributes:
        whole: A plain copy of the model; `gather` brings it up to date.
        optimizer: To be set, for checkpoints.
    """

    def __init__(self, model: Label2LabelForImageClassification, device: torch.device):
        self.model = model
        self.whole = copy.deepcopy(model).to(device)
        self.optimizer: torch.optim.Optimizer | None = None
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for module in list(model.modules()):
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)

    @torch.no_grad()
    def gather(self) -> Label2LabelForImageClassification:
        """
        Brings the weights of all processes together. All processes call it.

        Returns:
            `whole`, up to date.
        """
        parts = self.model.state_dict()
        for name, tensor in self.whole.state_dict().items():
            part = parts[name]
            tensor.copy_(part.full_tensor() if isinstance(part, DTensor) else part)
        return self.whole

    def state_dict(self) -> dict[str, Any]:
        """Whole weights and optimizer state, for Accelerate. All processes call it."""
        model, optimizer = get_state_dict(self.model, self._optimizer, options=_WHOLE)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes this process's parts of what `state_dict` gave, on any number of processes."""
        set_state_dict(
            self.model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=_WHOLE,
        )

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        assert self.optimizer is not None
        return self.optimizer
