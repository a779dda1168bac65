"""What benchmarks share: command line, results, errors, the machine, browser and processes."""

from __future__ import annotations

import argparse
import atexit
import importlib.metadata
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
    """Run a program; return exit code 0, or 2 after an error, which is told in one line."""
    try:
        program()
    except (UserError, OSError, subprocess.CalledProcessError) as error:
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


def launch_chromium(playwright: Any, *flags: str) -> Any:
    """Start the installed Chromium with further flags; return playwright's browser."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise UserError("no Chromium on the path: install Debian's package chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *flags]
    return playwright.chromium.launch(executable_path=path, args=arguments)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return median and 95th percentile, `p50` and `p95`."""
    import numpy as np  # here, as processes of `run_python` start without it

    return dict(zip(("p50", "p95"), np.percentile(values, (50, 95)).tolist(), strict=True))


def peak_memory(process: int | str = "self") -> int:
    """Return the most bytes that a process has held; Linux only."""
    # Not ru_maxrss, which is never below what the process that started it held.
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def run_python(arguments: Sequence[object], cores: Iterable[int] | None = None) -> dict[str, float]:
    """Run Python in its own process, with `-m MODULE` or a program and its arguments.

    Return `seconds` from start to exit, and `peak_bytes` of memory; raise UserError if it fails.
    """
    words = list(map(str, arguments))
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, *words],
        capture_output=True,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, set(cores)) if cores else None,
    )
    seconds = time.perf_counter() - start
    # Its errors, and its peak memory if it ended by itself.
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode != 0:
        error = next((line for line in reversed(lines) if not line.isdecimal()), "")
        code = f"exit code {done.returncode}"
        raise UserError(f"{' '.join(words)[:80]} ended with {code}: {error[-300:]}")
    return {"seconds": seconds, "peak_bytes": int(lines[-1])}


class Worker:
    """A row of a benchmark in its own process, `PROGRAM --serve SPECIFICATION` (JSON).

    The process answers with one line of JSON once it is ready, and one for each line it reads.
    `threads` is the number of threads of BLAS and OpenMP; by default their own choice.
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
        """Send a number and return the answer; raise UserError if the process failed."""
        self.process.stdin.write(f"{number}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = self._read()
        if "error" in answer:
            raise UserError(f"a row failed: {answer['error']}")
        return answer


def serve_answers() -> Callable[[dict[str, Any]], None]:
    """Return the function by which a worker's process answers."""
    # Keep the output of libraries out of the lines of JSON.
    file = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=file, flush=True)


def run_and_print_peak() -> None:
    """Run what `run_python` was given, as Python would, and print the peak memory at the end."""
    atexit.register(lambda: print(f"\n{peak_memory()}", file=sys.stderr))
    _, *sys.argv = sys.argv
    if sys.argv[0] == "-m":
        _, *sys.argv = sys.argv
        sys.path[0] = ""
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    run_and_print_peak()
