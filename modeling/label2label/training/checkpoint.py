"""States that an interrupted run resumes from: written whole or not at all."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError

from label2label.errors import UserError


@dataclasses.dataclass
class Progress:
    """Where a run stands: what a resumed run needs beside weights and optimizer."""

    processes: int = 1  # that share each epoch
    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of the epoch so far
    seconds: float = 0.0  # of the epoch so far
    best_accuracy: float = -1.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """
        The fields, for Accelerate, which keeps those of one process: the loss is all processes'
        mean. All processes call it.
        """
        mean = float(np.mean(gather_object([self.loss_sum])))
        return dataclasses.asdict(self) | {"loss_sum": mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Takes the fields that `state_dict` gave.

        Raises:
            ValueError: If they are of another number of processes, to which an epoch's position
                means other images.
        """
        saved = state.get("processes", self.processes)
        if saved != self.processes:
            raise ValueError(
                f"it was saved by a run of {saved} processes, not {self.processes}: resume with as "
                "many"
            )
        for name, value in state.items():
            setattr(self, name, value)


def latest_state(folder: Path) -> Path | None:
    """
    Finds the newest complete state.

    Args:
        folder: `OUTPUT/state` of a run.

    Returns:
        `folder/step-N` of the highest N, or `None`.
    """
    return max(folder.glob("step-*"), default=None)


def save_state(accelerator: Accelerator, folder: Path, step: int) -> None:
    """
    Writes model, optimizer, schedule, average and progress under a temporary name, then renames it
    and drops the state before. All processes call it.

    Args:
        accelerator: With everything to save prepared or registered.
        folder: `OUTPUT/state` of a run.
        step: Optimizer steps done.

    Raises:
        UserError: If the disk is full or cannot be written; the state before stays.
    """
    path = folder / f"step-{step:08d}"
    temporary = folder / f".{path.name}"
    try:
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
        accelerator.save_state(str(temporary))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process and not path.exists():
            os.replace(temporary, path)
    # torch.save wraps a failed write in a RuntimeError
    except (OSError, SafetensorError, RuntimeError) as error:
        free = shutil.disk_usage(folder).free / 1e6 if folder.exists() else 0.0
        shutil.rmtree(temporary, ignore_errors=True)
        kept = latest_state(folder)
        rest = f"resume from {kept} with --resume" if kept else "nothing was saved before"
        raise UserError(
            f"{path}: could not write the state with {free:.1f} MB left on the disk "
            f"({' '.join(str(error).split())}); {rest}"
        ) from error
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        for other in folder.glob("step-*"):
            if other != path:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()
