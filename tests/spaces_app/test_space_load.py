"""The load test measures what it says."""

import json
import subprocess
import sys

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.slow


def run(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "space_load.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_visitors_are_answered_without_an_error_and_the_figures_written(tmp_path):
    output = tmp_path / "space_load.json"
    done = run(
        *("--requests", "4", "--users", "3", "--seconds", "2"),
        *("--output", str(output)),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert figures == json.loads(done.stdout)
    many = figures["many_visitors"]
    assert many["errors"] == 0
    assert many["answers"] >= 3
    assert 0 < figures["one_visitor"]["median_ms"] <= figures["one_visitor"]["p95_ms"]
    assert figures["start_seconds"] > 0
    assert figures["memory"]["late_mb"] > 100
    assert [path.name for path in tmp_path.iterdir()] == ["space_load.json"]
