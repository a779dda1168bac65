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
from label2label.faces.detection import DETECTOR_VARIABLE, find_detector_file
from tqdm import trange


def main() -> None:
    """Time all programs in turn, and write the medians."""
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=15, help="of each program")
    parser.add_argument("--output", type=Path, default=Path("results/cold_start.json"))
    args = parser.parse_args()
    if (detector := find_detector_file()) is None:
        raise UserError(f"no face detector: set {DETECTOR_VARIABLE} to its file")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", DETECTOR_VARIABLE: str(detector)}
    programs = {
        "interpreter": ["-c", "pass"],
        "help": ["-m", "label2label", "--help"],
        "first_prediction": ["-m", "label2label", "predict", "--json", str(sample_photo())],
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in trange(1 + args.runs, desc="cold start", unit="round"):
        for name, arguments in programs.items():
            started = time.perf_counter()
            command = [sys.executable, *arguments]
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - started)
    # The first round writes the bytecode caches.
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    machine = describe_machine()
    write_json(args.output, {"machine": machine, "runs": args.runs, "median_seconds": medians})


if __name__ == "__main__":
    sys.exit(finish(main))
