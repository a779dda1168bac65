"""Measure how long a fresh process takes to its first prediction by ONNX, and to `--help`.

    python benchmarks/cold_start.py

Each time is that of a whole process, from start to exit; the programs run in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import command_line, describe_machine, finish, sample_photo, write_json
from label2label.cli import main as label2label_main
from label2label.errors import UserError
from label2label.faces import detection
from tqdm import tqdm

HEAVY = ("torch", "transformers", "datasets", "pyarrow", "matplotlib")


def run(arguments: list[str], environment: dict[str, str]) -> tuple[float, str]:
    """Run Python; return the seconds that it took, and its standard error."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise UserError(f"{' '.join(arguments)[:80]} failed: {done.stderr.strip()[-200:]}")
    return seconds, done.stderr


def measure(photo: str, runs: int, scratch: Path) -> dict[str, Any]:
    """Time all programs in turn.

    Returns:
        `median_seconds` by program, and `heavy_imports`, the large packages that the first
        prediction imports.
    """
    if label2label_main(["export", "--output", str(scratch / "model")]) != 0:
        raise UserError("the model cannot be exported")
    detector = detection.find_detector_file()
    if detector is None:
        raise UserError(f"set {detection.DETECTOR_VARIABLE}: the face detector cannot be had")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", detection.DETECTOR_VARIABLE: str(detector)}
    predict = ["-m", "label2label", "predict", "--json", "--model", str(scratch / "model"), photo]
    programs = {
        "interpreter": ["-c", "pass"],
        "help": ["-m", "label2label", "--help"],
        "first_prediction": predict,
    }
    for arguments in programs.values():
        run(arguments, environment)  # warm-up: writes the bytecode caches
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in tqdm(range(runs), desc="cold start", unit="round"):
        for name, arguments in programs.items():
            times[name].append(run(arguments, environment)[0])
    _, report = run(["-X", "importtime", *predict], environment)
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in report.splitlines()}
    return {
        "machine": describe_machine(),
        "runs": runs,
        "median_seconds": {name: statistics.median(values) for name, values in times.items()},
        "heavy_imports": sorted(set(HEAVY) & imported),
    }


def main() -> None:
    """Measure and write the results."""
    parser = command_line(__doc__)
    parser.add_argument("--photo", help="with a face (default: the one that matplotlib brings)")
    parser.add_argument("--runs", type=int, default=15, help="of each program")
    parser.add_argument("--output", type=Path, default=Path("results/cold_start.json"))
    args = parser.parse_args()
    photo = args.photo or str(sample_photo())
    with tempfile.TemporaryDirectory() as scratch:
        write_json(args.output, measure(photo, args.runs, Path(scratch)))


if __name__ == "__main__":
    sys.exit(finish(main))
