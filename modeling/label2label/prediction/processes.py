"""How the processes that a launcher started find each other."""

from __future__ import annotations

import torch
from accelerate.utils import parse_flag_from_env


def without_accelerator() -> bool:
    """Whether to run on the CPU: what Accelerate takes as `cpu`.

    Left to itself, Accelerate takes each of several processes on a machine without a GPU for the
    only one: all would do all of the work, and write the same files.

    Returns:
        True where there is no accelerator, or `ACCELERATE_USE_CPU` asks for none.
    """
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
