"""Benchmarks as modules, and their commands run inside the test's process."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.models import Label2LabelConfig
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load_benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """Import `benchmarks/NAME.py`."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as a script finds those beside it
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
    """Run a `label2label` command without starting Python again."""
    from accelerate.state import AcceleratorState
    from label2label.cli import main

    def run(arguments: list[str]) -> int:
        AcceleratorState._reset_state(True)
        return main(arguments)

    yield run
    AcceleratorState._reset_state(True)


RACES = ("Asian", "White")


def write_dataset(folder, races: tuple[str, ...], known: tuple[str, ...], count: int) -> str:
    rng = np.random.default_rng(0)
    text = dict.fromkeys(("identity", "race", "gender"), datasets.Value("string"))
    features = datasets.Features(
        {
            "image": datasets.Image(),
            **dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool")),
            **text,
            "age": datasets.Value("int32"),
        }
    )
    (folder / "data").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        columns: dict[str, list] = {name: [] for name in features}
        for i in range(count):
            bright = bool(rng.integers(2))
            pixels = rng.normal(190 if bright else 60, 20, (40, 32, 3)).clip(0, 255)
            columns["image"].append(Image.fromarray(pixels.astype(np.uint8)))
            for name in CELEBA_ATTRIBUTES:
                columns[name].append(bright if name in known else None)
            columns["identity"].append(f"{split}-{i}")
            columns["race"].append(races[i % len(races)] if races else None)
            columns["gender"].append(None)
            columns["age"].append([10, 35][i // 2 % 2] if races else None)
        rows = datasets.Dataset.from_dict(columns, features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture
def shifted_faces(tmp_path) -> list[str]:
    """A random model in `model`, and two small datasets as options of a benchmark."""
    torch.manual_seed(0)
    config = Label2LabelConfig(
        backbone_config={"stem_channels": 8, "stages": [[2, 8, 1, 2]], "feature_channels": 16},
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        id2label=dict(enumerate(CELEBA_ATTRIBUTES)),
        label2id={name: i for i, name in enumerate(CELEBA_ATTRIBUTES)},
    )
    Label2LabelForImageClassification(config).save_pretrained(tmp_path / "model")
    Label2LabelImageProcessor().save_pretrained(tmp_path / "model")
    celeba = write_dataset(tmp_path / "celeba", (), CELEBA_ATTRIBUTES, 24)
    utkface = write_dataset(tmp_path / "utkface", RACES, ("Male", "Young"), 64)
    return ["--celeba", celeba, "--utkface", utkface]
