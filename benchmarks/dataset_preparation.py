"""Measure images per second and peak memory of the preparation of CelebA, at 1x and 8x its size.

    python benchmarks/dataset_preparation.py --source CELEBA --output FILE.json

The larger input repeats the images under new names. Memory is the sum of the resident sets of the
program and its workers, sampled ten times a second: pages that processes share count once for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
from label2label import __version__
from label2label.files import write_whole
from tqdm import tqdm

PROGRAM = Path(__file__).parents[1] / "datasets_scripts" / "celeba.py"
IMAGES = "img_align_celeba"
FILES = ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt")
SAMPLE_SECONDS = 0.1


def repeat_source(source: Path, target: Path, times: int) -> int:
    """Write a source of the same layout that holds every image several times.

    Args:
        source: Folder with CelebA's text files and `img_align_celeba.zip`.
        target: Folder to write.
        times: How often each image is written, under a new name each time.

    Returns:
        The number of images.
    """
    target.mkdir()
    for name in FILES:
        lines = (source / name).read_text(encoding="utf-8").splitlines()
        header = lines[:2] if name == FILES[0] else []
        rows = lines[len(header) :]
        if header:
            header[0] = str(len(rows) * times)
        with (target / name).open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in header)
            for copy in range(times):
                file.writelines(f"{copy}-{row}\n" for row in rows)
    with (
        zipfile.ZipFile(source / f"{IMAGES}.zip") as images,
        zipfile.ZipFile(target / f"{IMAGES}.zip", "w") as repeated,
    ):
        names = [name for name in images.namelist() if name.endswith(".jpg")]
        for copy in tqdm(range(times), desc="repeating the images"):
            for name in names:
                repeated.writestr(f"{IMAGES}/{copy}-{Path(name).name}", images.read(name))
    return len(names) * times


def measure_memory(process: psutil.Process) -> int:
    """Resident memory of a process and all below it.

    Args:
        process: The process.

    Returns:
        Bytes; 0 where it has ended.
    """
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between the two calls; the next sample counts the others
    return total


def run_preparation(source: Path, output: Path, workers: int) -> dict[str, Any]:
    """Prepare a source and measure the program with its workers.

    Args:
        source: Folder of CelebA's layout.
        output: Dataset folder to write.
        workers: Worker processes.

    Returns:
        `seconds`, `images_per_second`, `peak_memory_mb` (10**6 bytes), `output_mb`, `images` and
        `largest_shard_mb`.

    Raises:
        subprocess.CalledProcessError: If the program fails.
    """
    arguments = ["--source", source, "--output", output, "--workers", workers]
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        process = psutil.Process(program.pid)
        while program.poll() is None:
            peak = max(peak, measure_memory(process))
            time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    if program.returncode:
        raise subprocess.CalledProcessError(program.returncode, command)
    counts = json.loads((output / "preparation.json").read_text())["counts"]
    images = sum(rows for _, _, column, _, rows in counts if column == "image")
    shards = [path.stat().st_size for path in (output / "data").iterdir()]
    return {
        "images": images,
        "seconds": round(seconds, 2),
        "images_per_second": round(images / seconds, 1),
        "peak_memory_mb": round(peak / 1e6, 1),
        "output_mb": round(sum(shards) / 1e6, 1),
        "largest_shard_mb": round(max(shards) / 1e6, 1),
    }


def positive(text: str) -> int:
    """Parse a whole number of 1 or more; `argparse` reports a ValueError."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="CelebA's files")
    parser.add_argument("--times", type=positive, default=8, help="(default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=2, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="where to write them")
    arguments = parser.parse_args()
    missing = [n for n in (*FILES, f"{IMAGES}.zip") if not (arguments.source / n).is_file()]
    if missing:
        print(f"error: {arguments.source} lacks {', '.join(missing)}", file=sys.stderr)
        return 2
    runs = {}
    with tempfile.TemporaryDirectory(prefix="label2label-benchmark-") as folder:
        for times in (1, arguments.times):
            source = Path(folder) / f"source-{times}"
            repeat_source(arguments.source, source, times)
            runs[f"{times}x"] = run_preparation(
                source, Path(folder) / f"out-{times}", arguments.workers
            )
    small, large = runs.values() if len(runs) == 2 else [*runs.values()] * 2
    figures = {
        "program": "datasets_scripts/celeba.py, from a zip archive",
        "label2label": __version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu_cores": psutil.cpu_count(),
        "workers": arguments.workers,
        **runs,
        "memory_ratio": round(large["peak_memory_mb"] / small["peak_memory_mb"], 3),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.output:
        write_whole(arguments.output, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
