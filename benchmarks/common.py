"""What benchmarks share: command line, JSON, how they end, the machine, and rows as processes."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from label2label.errors import UserError
from label2label.files import write_whole

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LIBRARIES = ("ncnn", "numpy", "onnxruntime", "openvino", "torch", "transformers")


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a program's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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


def sample_photo() -> Path:
    """Return the path of a public-domain portrait, which matplotlib brings."""
    from matplotlib import get_data_path

    return Path(get_data_path(), "sample_data", "grace_hopper.jpg")


def find_chromium() -> str:
    """Return the path of Chromium.

    Raises:
        UserError: It is not installed.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise UserError("no Chromium on the path: install Debian's package chromium")
    return path


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return median and 95th percentile, `p50` and `p95`."""
    return {"p50": float(np.median(values)), "p95": float(np.percentile(values, 95))}


class Worker:
    """A row of a benchmark in its own process, `PROGRAM --serve SPECIFICATION`.

    The process answers with one line of JSON once it is ready, and one for each line it reads.

    Args:
        program: Path of the benchmark.
        specification: The row, for JSON.
        threads: Number of threads of BLAS and OpenMP; by default their own choice.
    """

    def __init__(self, program: str, specification: dict[str, Any], threads: int = 0) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if threads else ()
        self.process = subprocess.Popen(
            [sys.executable, program, "--serve", json.dumps(specification)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **dict.fromkeys(names, str(threads))},
        )
        self.start = self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(line) if line else {"error": "its process ended without an answer"}

    def ask(self, number: int) -> dict[str, Any]:
        """Send a number and return the answer.

        Raises:
            UserError: The process failed.
        """
        self.process.stdin.write(f"{number}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = self._read()
        if "error" in answer:
            raise UserError(f"a row failed: {answer['error']}")
        return answer

    def stop(self) -> dict[str, Any]:
        """End the input and return the last answer."""
        self.process.stdin.close()  # type: ignore[union-attr]
        return self._read()


def serve_answers() -> Callable[[dict[str, Any]], None]:
    """Return the function by which a worker's process answers."""
    # Keep the output of libraries out of the lines of JSON.
    file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=file, flush=True)
