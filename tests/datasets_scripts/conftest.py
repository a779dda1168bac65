"""Run the dataset programs inside the test's process, on small sources that the tests build."""

import importlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
from preparation.program import run_program

ROOT = Path(__file__).parents[2]
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program with one worker, framing faces only on request, and return its exit code."""

    def run_in_process(name: str, *arguments: object, align: bool = False) -> int:
        command = [f"{name}.py", "--workers", "1", *map(str, arguments)]
        if "--source" in command and not align:
            command.append("--as-is")
        monkeypatch.setattr(sys, "argv", command)
        try:
            run_program(importlib.import_module(name).main)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run_in_process


@pytest.fixture
def yunet(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detect faces by YuNet, from the folder of real data."""
    detector = shared / "weights/face_detection_yunet_2026may.onnx"
    monkeypatch.setenv("LABEL2LABEL_FACE_DETECTOR", str(detector))


def load_rows(folder: Path) -> list[dict]:
    """Load the rows of all splits of a prepared dataset, with their split and undecoded images."""
    dataset = datasets.load_dataset(str(folder)).cast_column("image", datasets.Image(decode=False))
    return [{**row, "split": split} for split, rows in dataset.items() for row in rows.to_list()]


def draw_jpeg(seed: int, width: int = 89, height: int = 109) -> bytes:
    """Draw a JPEG of smooth random colours; different seeds give no near-duplicates."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    encoded, data = cv2.imencode(".jpg", image)
    assert encoded
    return data.tobytes()


@pytest.fixture
def jpegs() -> Iterator[bytes]:
    """Yield endlessly many different JPEG files."""
    return (draw_jpeg(seed) for seed in iter(range(10**6)))


def read_zip(path: Path, step: int) -> dict[str, bytes]:
    """Read every `step`-th JPEG of a zip archive, by its name without the first folder."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::step]
        return {name.partition("/")[2]: archive.read(name) for name in names}


def write_celeba(shared: Path, source: Path, step: int) -> dict[str, bytes]:
    """Write every `step`-th image of the real CelebA in its official layout; return the images."""
    official = shared / "data/celeba"
    images = read_zip(official / "img_align_celeba.zip", step)
    (source / "img_align_celeba").mkdir(parents=True)
    for name, data in images.items():
        (source / "img_align_celeba" / name).write_bytes(data)
    for name in ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"):
        lines = (official / name).read_text().splitlines()
        kept = [line for line in lines if line.split()[0] in images]
        header = [str(len(kept)), lines[1]] if name == "list_attr_celeba.txt" else []
        (source / name).write_text("\n".join([*header, *kept]) + "\n")
    return images
