"""Measure images per second and peak memory of `label2label label`, on photos once and repeated.

    python benchmarks/label_throughput.py PHOTOS --repeat 50

Each run labels with the default model in its own process; Linux is needed to read its peak memory.
Repeated photos are links, to save disk space.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import command_line, describe_machine, finish, run_python, write_json
from label2label.errors import UserError
from label2label.prediction.photos import find_photos
from tqdm import trange


def link_photos(photos: list[Path], repeat: int, folder: Path) -> Path:
    """Create a folder with `repeat` links to each photo."""
    for copy in range(repeat):
        part = folder / f"{copy:03d}"
        part.mkdir(parents=True)
        for number, photo in enumerate(photos):
            (part / f"{number:06d}{photo.suffix}").symlink_to(photo)
    return folder


def measure(photos: list[Path], repeat: int, runs: int, scratch: Path) -> dict[str, Any]:
    """Label the photos once and repeated, in turn; return the figures of both.

    Of all runs, the fastest counts for speed (starting the process and loading the model
    included), the one with the highest peak for memory.
    """
    sets = {"once": 1, "repeated": repeat}
    folders = {name: link_photos(photos, times, scratch / name) for name, times in sets.items()}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sets}
    for run in trange(runs, desc="label", unit="round"):
        for name, folder in folders.items():
            output = scratch / f"labels-{name}-{run}"
            command = ["-m", "label2label", "label", "--data", folder, "--output", output]
            results[name].append(run_python(command))
    figures: dict[str, Any] = {"machine": describe_machine(), "runs": runs}
    for name, values in results.items():
        images = len(photos) * sets[name]
        figures[name] = {
            "images": images,
            "images_per_second": images / min(value["seconds"] for value in values),
            "peak_megabytes": max(value["peak_bytes"] for value in values) / 1e6,
        }
    return figures


def main() -> None:
    """Measure and write the results."""
    parser = command_line(__doc__)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--limit", type=int, default=1000, help="photos to take")
    parser.add_argument("--repeat", type=int, default=50, help="size of the larger set")
    parser.add_argument("--runs", type=int, default=3, help="of each set")
    parser.add_argument("--output", type=Path, default=Path("results/label_throughput.json"))
    args = parser.parse_args()
    if not args.photos.is_dir():
        raise UserError(f"{args.photos} is no folder")
    photos = [photo.absolute() for photo in find_photos([args.photos])][: args.limit]
    with tempfile.TemporaryDirectory() as scratch:
        write_json(args.output, measure(photos, args.repeat, args.runs, Path(scratch)))


if __name__ == "__main__":
    sys.exit(finish(main))
