"""Benchmarks as modules, and their commands run inside the test's process."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load_benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """Import `benchmarks/NAME.py`."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(ROOT / "benchmarks")  # scripts import from their folder
        path = ROOT / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run_inside() -> Callable[[list[str]], int]:
    """Run a `label2label` command in the test's process."""
    from accelerate.state import AcceleratorState
    from label2label.cli import main

    def run(arguments: list[str]) -> int:
        AcceleratorState._reset_state(True)
        return main(arguments)

    yield run
    AcceleratorState._reset_state(True)
