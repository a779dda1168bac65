"""`benchmarks/in_browser.py` measures the page and Python in turns."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from label2label.faces import detection
from PIL import Image

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "in_browser.py"

pytestmark = pytest.mark.slow


def test_times_of_page_and_python_are_written(detector_file, page_folder, launch, tmp_path):
    output = tmp_path / "new" / "in_browser.json"
    arguments = ["--repeats", "2", "--page", page_folder, "--output", output]
    environment = {**os.environ, detection.DETECTOR_VARIABLE: str(detector_file)}
    # In a process of its own, as one process drives one browser at a time.
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    for step in ("detection", "attributes"):
        for where in ("browser", "python"):
            assert 0 < figures[where][step]["p50"] <= figures[where][step]["p95"]


def test_page_without_assets_and_photo_without_a_face_are_one_line(
    detector_file, page_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv(detection.DETECTOR_VARIABLE, str(detector_file))
    monkeypatch.syspath_prepend(PROGRAM.parent)  # as a program finds those beside it
    program = runpy.run_path(str(PROGRAM))

    def run(*arguments):
        output = ["--output", str(tmp_path / "figures.json")]
        monkeypatch.setattr(sys, "argv", ["in_browser.py", *map(str, arguments), *output])
        return program["finish"](program["main"])

    assert run("--page", tmp_path) == 2
    assert "page.json does not exist" in capsys.readouterr().err
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    assert run("--page", page_folder, "--photo", tmp_path / "black.png") == 2
    err = capsys.readouterr().err
    assert "shows 0 faces" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "figures.json").exists()
