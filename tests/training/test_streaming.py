"""A stream shows every image once a pass, to one process, and goes on where it stopped."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.errors import UserError
from label2label.training import data as data_module
from label2label.training.recipe import Recipe
from label2label.training.trainer import Trainer

from .conftest import draw

FEATURES = datasets.Features(
    {"image": datasets.Image(), **dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool"))}
)

# Runs of one recipe, as a process sees them: a folder, when to stop, whether to resume. Every
# process writes the images of each of its runs' batches.
PROGRAM = """
import json, sys
from label2label.training.recipe import Recipe
from label2label.training.trainer import Trainer
from tests.training.test_streaming import watch

values, runs, output = (json.loads(argument) for argument in sys.argv[1:])
seen = []
for folder, stop, resume in runs:
    trainer = Trainer(Recipe(**values), folder)
    if resume:
        trainer.resume()
    # It would close the group of processes, which the next run needs.
    trainer.accelerator.end_training = lambda: None
    names, history = watch(trainer, stop), trainer.progress.history
    seen.append({"names": names, "losses": [entry["train_loss"] for entry in history]})
    rank = trainer.accelerator.process_index
with open(f"{output}/{rank}.json", "w") as file:
    json.dump(seen, file)
"""


def write(folder: Path, sizes: list[int], card: bool = True) -> Path:
    """A dataset of one training file a size, in row groups of 8; images are called by number."""
    (folder / "data").mkdir(parents=True)
    number = 0
    files = {f"train-{i:05d}-of-{len(sizes):05d}": size for i, size in enumerate(sizes)}
    for name, size in {**files, "validation-00000-of-00001": 9}.items():
        rows = draw(np.random.default_rng(number), size)
        del rows["identity"]
        for i, image in enumerate(rows["image"]):
            encoded = io.BytesIO()
            image.save(encoded, "PNG")
            rows["image"][i] = {"bytes": encoded.getvalue(), "path": f"{number + i}.png"}
        number += size
        table = datasets.Dataset.from_dict(rows, features=FEATURES)
        table.to_parquet(folder / "data" / f"{name}.parquet", batch_size=8)
    if card:
        info = datasets.DatasetInfo(features=FEATURES)
        info.splits = datasets.SplitDict()
        for split, count in {"train": sum(sizes), "validation": 9}.items():
            info.splits.add(datasets.SplitInfo(split, num_examples=count, num_bytes=count))
        text = yaml.safe_dump({"dataset_info": info._to_yaml_dict()})
        (folder / "README.md").write_text(f"---\n{text}---\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 images in two files."""
    return write(tmp_path_factory.mktemp("stream"), [32, 16])


@pytest.fixture
def values(recipe_values, folder, monkeypatch):
    monkeypatch.setattr(data_module, "SHUFFLED_AT_ONCE", 12)
    # datasets waits for its threads at the end of a pass.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    return {**recipe_values, "data": str(folder), "streaming": True}


def numbers(names: list[list[str]]) -> list[list[int]]:
    return [[int(name.removesuffix(".png")) for name in batch] for batch in names]


def watch(trainer: Trainer, stop: int = 0) -> list[list[str]]:
    """Lets a trainer run; returns the images of its batches."""
    step, names = trainer.step, []

    def record(batch):
        names.append(batch["names"])
        trainer.interrupted = len(names) == stop
        return step(batch)

    trainer.step = record
    trainer.train()
    return names


@pytest.mark.slow
def test_two_processes_see_every_image_once_and_resume(values, folder, tmp_path):
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    runs = [(whole, 0, False), (parts, 4, False), (parts, 0, True)]
    values |= {"batch_size": 4, "epochs": 2, "mixup": 0, "erasing": 0}
    (tmp_path / "program.py").write_text(PROGRAM)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", str(tmp_path / "program.py")),
            *map(json.dumps, (values, runs, str(tmp_path))),
        ],
        check=True,
        timeout=300,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}",
        },
    )
    processes = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    # Of six row groups in two unequal files, each process has three.
    seen = [np.ravel(numbers(runs[0]["names"])) for runs in processes]
    assert len(seen[0]) == len(seen[1]) == 48
    for epoch in (slice(0, 24), slice(24, 48)):
        assert sorted([*seen[0][epoch], *seen[1][epoch]]) == list(range(48))
    for runs in processes:
        assert runs[1]["names"] + runs[2]["names"] == runs[0]["names"]
        assert runs[2]["losses"] == pytest.approx(runs[0]["losses"], rel=1e-6)


@pytest.mark.parametrize("stop", [1, 3, 6, 8])
def test_stopped_anywhere_it_goes_on_at_the_same_images(values, tmp_path, stop):
    recipe = Recipe(**values)
    whole = watch(Trainer(recipe, tmp_path / "whole"))
    epochs = numbers(whole)[:6], numbers(whole)[6:]
    assert [sorted(np.ravel(epoch)) for epoch in epochs] == [list(range(48))] * 2
    assert epochs[0] != epochs[1]
    first = watch(Trainer(recipe, tmp_path / "parts"), stop)
    assert len(first) == stop
    second = Trainer(recipe, tmp_path / "parts")
    second.resume()
    assert first + watch(second) == whole
    histories = [tmp_path / run / "history.json" for run in ("whole", "parts")]
    losses = [[e["train_loss"] for e in json.loads(file.read_text())] for file in histories]
    assert losses[0] == losses[1]


def test_it_learns_and_never_reads_the_whole_split(values, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    recipe = Recipe(
        **{**values, "epochs": 12, "mixup": 0, "erasing": 0, "head_learning_rate": 0.01}
    )
    result = Trainer(recipe, tmp_path / "run").train()
    losses = [entry["train_loss"] for entry in result["history"]]
    assert losses[-1] < 0.7 * losses[0]
    assert result["best_accuracy"] > 0.9
    cached = [path.name for path in (tmp_path / "cache").rglob("*.arrow")]
    assert cached == ["parquet-validation.arrow"]


def test_an_image_that_cannot_be_read_ends_in_one_line(values, tmp_path):
    folder = write(tmp_path / "data", [16])
    file = folder / "data/train-00000-of-00001.parquet"
    table = datasets.Dataset.from_parquet(str(file)).cast_column(
        "image", datasets.Image(decode=False)
    )
    rows = table.to_list()
    rows[5]["image"]["bytes"] = b"no image"
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(file)
    trainer = Trainer(Recipe(**{**values, "data": str(folder)}), tmp_path / "run")
    with pytest.raises(UserError, match=r"5\.png cannot be read") as refused:
        trainer.train()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": ["some/model"]}, "leave out teachers$"),
        ({"groups": ["race"]}, "leave out groups$"),
        ({"data": ["one", "two"]}, "leave out all of data but one path"),
        ({"data": [{"path": "one", "limit": 5}]}, "leave out all of data but one path"),
    ],
)
def test_what_a_stream_cannot_offer_is_refused_in_one_line(values, change, message):
    with pytest.raises(ValueError, match=message) as refused:
        Recipe(**{**values, **change})
    assert "\n" not in str(refused.value)


def test_without_a_card_an_epochs_length_is_not_known(values, tmp_path):
    values["data"] = str(write(tmp_path / "data", [24], card=False))
    with pytest.raises(UserError, match="does not give the number of training images"):
        Trainer(Recipe(**values), tmp_path / "run")
