"""Measure how long a fresh process takes to its first prediction by ONNX, and to `--help`.

    python benchmarks/cold_start.py

Each time is that of a whole process, from start to exit; the programs run in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import command_line, describe_machine, finish, sample_photo, write_json
from label2label.errors import UserError
from label2label.faces import detection
from tqdm import tqdm


def run(arguments: list[str], environment: dict[str, str]) -> float:
    """Run Python and return the seconds that it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise UserError(f"{' '.join(arguments)[:80]} failed: {done.stderr.strip()[-200:]}")
    return seconds


def main() -> None:
    """Time all programs in turn, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--photo", help="with a face (default: the one that matplotlib brings)")
    parser.add_argument("--runs", type=int, default=15, help="of each program")
    parser.add_argument("--output", type=Path, default=Path("results/cold_start.json"))
    args = parser.parse_args()
    detector = detection.find_detector_file()
    if detector is None:
        raise UserError(f"no face detector: set {detection.DETECTOR_VARIABLE} to its file")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", detection.DETECTOR_VARIABLE: str(detector)}
    photo = args.photo or str(sample_photo())
    programs = {
        "interpreter": ["-c", "pass"],
        "help": ["-m", "label2label", "--help"],
        "first_prediction": ["-m", "label2label", "predict", "--json", photo],
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in tqdm(range(1 + args.runs), desc="cold start", unit="round"):
        for name, arguments in programs.items():
            times[name].append(run(arguments, environment))
    # The first round writes the bytecode caches.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    machine = describe_machine()
    write_json(args.output, {"machine": machine, "runs": args.runs, "median_seconds": medians})


if __name__ == "__main__":
    sys.exit(finish(main))
