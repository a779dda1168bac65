"""Run the dataset programs inside the test's process, on small sources that the tests build."""

import importlib.util
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from label2label.data.preparation.program import run_program

ROOT = Path(__file__).parents[2]
Run = Callable[..., int]


def load_program(name: str) -> ModuleType:
    """Import `datasets_scripts/NAME.py`."""
    path = ROOT / "datasets_scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"datasets_script_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program with one worker; returns its exit code."""

    def run_in_process(name: str, *arguments: object) -> int:
        command = [f"{name}.py", "--workers", "1", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        try:
            run_program(load_program(name).main)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run_in_process


def draw_jpeg(seed: int, width: int = 89, height: int = 109) -> bytes:
    """A JPEG of smooth random colours; images of different seeds are no near-duplicates."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    encoded, data = cv2.imencode(".jpg", image)
    assert encoded
    return data.tobytes()


@pytest.fixture
def jpegs() -> Iterator[bytes]:
    """An endless supply of different JPEG files."""
    return (draw_jpeg(seed) for seed in iter(range(10**6)))


def read_zip(path: Path, step: int) -> dict[str, bytes]:
    """Every `step`-th JPEG of a zip archive, by its name without the first folder."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::step]
        return {name.partition("/")[2]: archive.read(name) for name in names}
