"""Images a second and peak memory of `label2label label`, on a set of photos once and repeated.

    python benchmarks/label_throughput.py PHOTOS --repeat 8

PHOTOS is a folder, or a zip archive as LFW's. Each run is a process of its own that labels with the
exported model that ships, on Linux, which tells its peak memory. One more takes the stages of each
photo one after the other, for what the pipeline wins. A repeated photo is a link, so the disk holds
it once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from label2label.cli import main as label2label_main
from label2label.errors import UserError
from label2label.faces.detection import FaceDetector
from label2label.files import write_whole
from label2label.prediction.photos import find_photos
from tqdm import tqdm

# Runs the command, and says what it took once all is loaded and at most.
PROGRAM = """
import json, resource, sys, time
sys.argv[0] = "label2label"
from label2label.cli import main
start = time.perf_counter()
code = main(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_SELF)
# Not ru_maxrss, which is never below what the process that started this one held.
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM:"))
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "processor_seconds": usage.ru_utime + usage.ru_stime,
    "peak_bytes": int(peak.split()[1]) * 1024,
}), file=sys.stderr)
sys.exit(code)
"""

# The same stages without threads of ours.
SEQUENTIAL = """
import json, sys, time
sys.argv[0] = "label2label"
from label2label.prediction.photos import find_photos
from label2label.prediction.predictor import AttributePredictor
predictor = AttributePredictor.from_pretrained(sys.argv[1])
photos = find_photos([sys.argv[2]])
start = time.perf_counter()
for photo in photos:
    predictor(photo)
print(json.dumps({"seconds": time.perf_counter() - start}), file=sys.stderr)
"""


def link_photos(photos: list[Path], repeat: int, folder: Path) -> Path:
    """A folder with each photo so many times.

    Args:
        photos: files.
        repeat: how many times.
        folder: to make.

    Returns:
        The folder.
    """
    for copy in range(repeat):
        part = folder / f"{copy:03d}"
        part.mkdir(parents=True)
        for number, photo in enumerate(photos):
            os.symlink(photo, part / f"{number:06d}{photo.suffix}")
    return folder


def run_program(program: str, *arguments: str) -> dict[str, float]:
    """Run a program of this file and read what it says on the last line of standard error.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise UserError(f"a run failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stderr.strip().splitlines()[-1])


def measure(photos: list[Path], repeat: int, runs: int, scratch: Path) -> dict:
    """Label the photos once and repeated, in turns.

    Args:
        photos: files.
        repeat: how many times each photo is in the larger set.
        runs: of each; the fastest counts for speed, the largest for memory.
        scratch: folder for the model, the links and the labels.

    Returns:
        The figures.

    Raises:
        UserError: a run failed.
    """
    if label2label_main(["export", "--output", str(scratch / "model")]) != 0:
        raise UserError("the model cannot be exported")
    sets = {times: link_photos(photos, times, scratch / f"x{times}") for times in (1, repeat)}
    sizes = {times: len(photos) * times for times in sets}
    results: dict[int, list[dict[str, float]]] = {times: [] for times in sets}
    sequential = []
    for run in tqdm(range(runs), desc="label", unit="round"):
        for times, folder in sets.items():
            output = scratch / f"labels-{times}-{run}"
            arguments = ["label", "--model", str(scratch / "model"), "--data", str(folder)]
            results[times].append(run_program(PROGRAM, *arguments, "--output", str(output)))
        sequential.append(run_program(SEQUENTIAL, str(scratch / "model"), str(sets[1]))["seconds"])
    figures: dict = {
        "images": len(photos),
        "runs": runs,
        "cores": os.cpu_count(),
        "detector": FaceDetector().name,
        "sequential_images_per_second": round(len(photos) / min(sequential), 2),
    }
    for times, values in results.items():
        figures[f"x{times}"] = {
            "images": sizes[times],
            # Loading the model and listing the files included.
            "images_per_second": round(sizes[times] / min(v["seconds"] for v in values), 2),
            "processor_milliseconds_per_image": round(
                1000 * min(v["processor_seconds"] for v in values) / sizes[times], 2
            ),
            "peak_megabytes": round(max(v["peak_bytes"] for v in values) / 1e6, 1),
        }
    peaks = [figures[f"x{times}"]["peak_megabytes"] for times in sets]
    figures["peak_ratio"] = round(peaks[1] / peaks[0], 3)
    figures["speedup_over_sequential"] = round(
        figures[f"x{repeat}"]["images_per_second"] / figures["sequential_images_per_second"], 3
    )
    return figures


def main() -> int:
    """Print the figures as JSON, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder or zip archive of photos")
    parser.add_argument("--limit", type=int, default=1000, help="photos to take")
    parser.add_argument("--repeat", type=int, default=8, help="size of the larger set")
    parser.add_argument("--runs", type=int, default=3, help="of each set")
    parser.add_argument("--output", type=Path, default=Path("results/label_throughput.json"))
    args = parser.parse_args()
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.photos
            if zipfile.is_zipfile(folder):
                with zipfile.ZipFile(folder) as archive:
                    archive.extractall(Path(scratch, "photos"))
                folder = Path(scratch, "photos")
            photos = [photo.absolute() for photo in find_photos([folder])][: args.limit]
            if photos == [folder.absolute()]:
                raise UserError(f"{folder} holds no photos")
            figures = measure(photos, args.repeat, args.runs, Path(scratch))
        figures["benchmark_seconds"] = round(time.perf_counter() - start, 1)
        write_whole(args.output, json.dumps(figures, indent=2) + "\n")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
