"""What every benchmark shares: how it ends, how it writes JSON, and on which machine it ran."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from label2label.errors import UserError
from label2label.files import write_whole

LIBRARIES = ("ncnn", "numpy", "onnxruntime", "openvino", "torch", "transformers")


def write_json(path: Path, value: Any) -> None:
    """Write a result atomically; NaN, which is not valid JSON, is an error."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def finish(program: Callable[[], Any]) -> int:
    """Run a program and report a `UserError` as one line on standard error.

    Args:
        program: Reads its command line and writes its result.

    Returns:
        The exit code: 0, or 2 after an error.
    """
    try:
        program()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def describe_machine() -> dict[str, Any]:
    """Return the processor's name and cores, the system, and the versions of the libraries."""
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    installed = {
        entry.name: entry.version
        for entry in importlib.metadata.distributions()
        if entry.name in LIBRARIES
    }
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": dict(sorted(installed.items())),
    }
