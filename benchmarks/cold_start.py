"""How long a fresh process takes: to the first prediction by ONNX, to `--help`, and to import.

    python benchmarks/cold_start.py

Every time is that of a whole process, from its start to its end; the programs take turns. Writes
medians in seconds, the modules that the first prediction imports, and what takes longest.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import label2label
from label2label.cli import main as label2label_main
from label2label.errors import UserError
from label2label.faces import detection
from label2label.files import write_whole
from tqdm import tqdm

LIMITS = {"first_prediction": 1.0, "help": 1.0, "import_over_dependencies": 0.5}  # seconds
HEAVY = ("torch", "transformers", "datasets", "accelerate", "pyarrow", "matplotlib")
TOP = 12  # packages in the profile


def list_dependencies() -> str:
    """What the models import from other packages, as a program that imports just that."""
    folder = Path(label2label.__file__).parent / "models"
    lines = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
                lines.add(ast.unparse(node))
    lines.discard("from __future__ import annotations")
    return "\n".join(sorted(lines))


def cache_detector(home: Path) -> None:
    """Put the face detector where the Hub's client would keep it."""
    source = detection.find_detector_file()
    if source is None:
        raise UserError(f"set {detection.DETECTOR_VARIABLE}: the face detector cannot be had")
    repository = "models--" + detection.DETECTOR_REPOSITORY.replace("/", "--")
    snapshot = home / "hub" / repository / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    shutil.copy(source, snapshot / detection.DETECTOR_FILE)


def run_program(arguments: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Run Python to its end.

    Args:
        arguments: of the interpreter.
        environment: its variables.

    Returns:
        Seconds on the clock, seconds of processor time, and standard error.

    Raises:
        UserError: it failed.
    """
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode != 0:
        raise UserError(f"{' '.join(arguments)[:80]} failed: {done.stderr.strip()[-200:]}")
    processor = after.children_user - before.children_user
    processor += after.children_system - before.children_system
    return seconds, processor, done.stderr


def profile_imports(report: str) -> dict[str, float]:
    """Milliseconds that modules take to import, by package, from what `-X importtime` writes.

    Args:
        report: lines `import time: self [us] | cumulative | module`.

    Returns:
        Milliseconds by package, longest first.
    """
    totals: dict[str, float] = {}
    for line in report.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdigit():
            package = fields[2].strip().split(".")[0]
            totals[package] = totals.get(package, 0.0) + int(fields[0]) / 1000
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def measure(photo: str, runs: int, scratch: Path) -> dict:
    """Export the model that ships and measure all programs.

    Args:
        photo: with a face.
        runs: of each program.
        scratch: folder for the model and the detector.

    Returns:
        The figures.
    """
    if label2label_main(["export", "--output", str(scratch / "model")]) != 0:
        raise UserError("the model cannot be exported")
    cache_detector(scratch / "home")
    environment = {**os.environ, "HF_HOME": str(scratch / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop(detection.DETECTOR_VARIABLE, None)  # as on a user's machine
    environment.pop("HF_HUB_CACHE", None)
    predict = ["-m", "label2label", "predict", "--json", "--model", str(scratch / "model"), photo]
    programs = {
        "interpreter": ["-c", "pass"],
        "first_prediction": predict,
        "help": ["-m", "label2label", "--help"],
        "dependencies": ["-c", list_dependencies()],
        "import": ["-c", "import label2label"],
    }
    for arguments in programs.values():
        run_program(arguments, environment)  # so that all find compiled files
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in tqdm(range(runs), desc="cold start", unit="round"):
        for name, arguments in programs.items():
            times[name].append(run_program(arguments, environment)[:2])
    report = run_program(["-X", "importtime", *predict], environment)[2]
    profile = profile_imports(report)
    times["import_over_dependencies"] = [
        (whole[0] - part[0], whole[1] - part[1])
        for whole, part in zip(times["import"], times["dependencies"], strict=True)
    ]
    seconds = {name: [wall for wall, _ in values] for name, values in times.items()}
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    return {
        "runs": runs,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "median_seconds": medians,
        "spread_seconds": {
            name: [round(min(values), 3), round(max(values), 3)] for name, values in seconds.items()
        },
        "median_processor_seconds": {
            name: round(statistics.median(processor for _, processor in values), 3)
            for name, values in times.items()
        },
        "limits_seconds": LIMITS,
        "within_limits": all(medians[name] < limit for name, limit in LIMITS.items()),
        "first_prediction_imports": {
            "modules": sum(line.startswith("import time:") for line in report.splitlines()) - 1,
            "heavy": sorted(set(HEAVY) & set(profile)),
            "milliseconds": round(sum(profile.values()), 1),
            "longest": {name: round(profile[name], 1) for name in list(profile)[:TOP]},
        },
    }


def main() -> int:
    """Print the figures as JSON, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", help="with a face (default: the one that matplotlib brings)")
    parser.add_argument("--runs", type=int, default=15, help="of each program")
    parser.add_argument("--output", type=Path, default=Path("results/cold_start.json"))
    args = parser.parse_args()
    try:
        if args.photo is None:
            from matplotlib import cbook

            args.photo = str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
        with tempfile.TemporaryDirectory() as scratch:
            figures = json.dumps(measure(args.photo, args.runs, Path(scratch)), indent=2)
        write_whole(args.output, figures + "\n")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
