"""A stream shows every image once, to one process, in blocks, and goes on where it stopped."""

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.errors import UserError
from label2label.training.recipe import Recipe
from label2label.training.streaming import ImageStream
from label2label.training.trainer import Trainer

from .conftest import draw

FEATURES = datasets.Features(
    {"image": datasets.Image(), **dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool"))}
)

# Runs of one recipe a line, as a process sees them: a dataset, a folder, when to stop, whether to
# resume. Every process writes the images of each of its runs' batches.
PROGRAM = """
import json, sys
from label2label.training.recipe import Recipe
from label2label.training.trainer import Trainer
from tests.training.test_streaming import watch

values, runs, output = (json.loads(argument) for argument in sys.argv[1:])
seen = []
for data, folder, stop, resume in runs:
    trainer = Trainer(Recipe(**{**values, "data": data}), folder)
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


def write(folder: Path, sizes: list[int], row_group: int = 8, card: bool = True) -> Path:
    """A dataset of one training file a size, whose images are called by number."""
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
        table.to_parquet(folder / "data" / f"{name}.parquet", batch_size=row_group)
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
    """48 images in row groups of 8."""
    return write(tmp_path_factory.mktemp("stream"), [48])


@pytest.fixture
def values(recipe_values, folder):
    return {**recipe_values, "data": str(folder), "streaming": True, "shuffle_buffer": 16}


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
def test_two_processes_see_every_image_once_resume_and_bear_uneven_files(values, folder, tmp_path):
    uneven = write(tmp_path / "uneven", [40, 8])
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    runs = [
        (str(folder), whole, 0, False),
        (str(folder), parts, 4, False),
        (str(folder), parts, 0, True),
        (str(uneven), str(tmp_path / "out"), 0, False),
    ]
    values |= {"batch_size": 4, "epochs": 4, "workers": 1, "mixup": 0, "erasing": 0}
    (tmp_path / "program.py").write_text(PROGRAM)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", str(tmp_path / "program.py")),
            *map(json.dumps, (values, runs, str(tmp_path))),
        ],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    processes = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    epochs = []
    for epoch in range(4):
        own = [numbers(runs[0]["names"][6 * epoch : 6 * epoch + 6]) for runs in processes]
        assert sorted(np.ravel(own)) == list(range(48))
        epochs.append(own)
    assert epochs[0] != epochs[1]
    losses = processes[0][0]["losses"]
    assert losses == processes[1][0]["losses"]
    assert losses[3] < losses[0]
    for runs in processes:
        assert runs[1]["names"] + runs[2]["names"] == runs[0]["names"]
        assert runs[2]["losses"] == pytest.approx(losses, rel=1e-6)
    # The process of the short file goes through it again; that of the long one leaves some out.
    own = [Counter(np.ravel(numbers(runs[3]["names"][:6])).tolist()) for runs in processes]
    assert sorted(set(count.values()) for count in own) == [{1}, {3}]
    assert not own[0].keys() & own[1].keys()
    assert [len(runs[3]["names"]) for runs in processes] == [24, 24]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 6, 8])
def test_stopped_anywhere_it_goes_on_at_the_same_images(values, tmp_path, workers, stop):
    recipe = Recipe(**{**values, "workers": workers})
    whole = watch(Trainer(recipe, tmp_path / "whole"))
    assert len(whole) == 12
    first = watch(Trainer(recipe, tmp_path / "parts"), stop)
    assert len(first) == stop
    second = Trainer(recipe, tmp_path / "parts")
    second.resume()
    assert first + watch(second) == whole
    histories = [tmp_path / run / "history.json" for run in ("whole", "parts")]
    losses = [[e["train_loss"] for e in json.loads(file.read_text())] for file in histories]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_every_worker_reads_its_own_images(values, tmp_path, workers):
    names = watch(Trainer(Recipe(**{**values, "workers": workers}), tmp_path))
    for epoch in (names[:6], names[6:]):
        assert sorted(np.ravel(numbers(epoch))) == list(range(48))
    assert names[:6] != names[6:]


def test_it_learns_with_opposites_and_unknown_labels(values, tmp_path):
    recipe = Recipe(
        **{**values, "epochs": 12, "mixup": 0, "erasing": 0, "head_learning_rate": 0.01}
    )
    trainer = Trainer(recipe, tmp_path)
    batch = next(trainer.batches())
    trainer.bar.close()
    attributes = list(CELEBA_ATTRIBUTES)
    for name, labels in zip(numbers([batch["names"]])[0], batch["labels"], strict=True):
        assert labels[attributes.index("Male")] == name % 2
        assert labels[attributes.index("Smiling")] == name // 2 % 2
        assert (labels >= 0).sum() == 2
    result = trainer.train()
    losses = [entry["train_loss"] for entry in result["history"]]
    assert losses[-1] < 0.7 * losses[0]
    assert result["best_accuracy"] > 0.9


def test_an_attribute_is_read_from_its_opposite(values, tmp_path, monkeypatch):
    trainer = Trainer(Recipe(**values), tmp_path)
    stream = trainer.data.stream
    stream.attributes = ["Beard"]
    rows = {"image": [None] * 3, "No_Beard": [True, False, None]}
    features = datasets.Features({"image": datasets.Image(), "No_Beard": datasets.Value("bool")})
    stream.dataset = datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset()
    stream.dataset = stream.dataset.with_format("arrow")
    assert stream.first_labels().tolist() == [[0], [1], [-100]]


def test_no_more_than_a_block_is_held(values, tmp_path, monkeypatch):
    blocks, make = [], ImageStream._block

    def record(self, table, seed):
        blocks.append(len(table))
        return make(self, table, seed)

    trainer = Trainer(Recipe(**values), tmp_path)
    monkeypatch.setattr(ImageStream, "_block", record)
    trainer.data.start_at(0, 0)
    batches = iter(trainer.data.stream)
    for taken in range(1, 7):
        next(batches)
        assert blocks == [16] * ((taken + 1) // 2)


def test_only_the_validation_split_is_cached(values, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    Trainer(Recipe(**values), tmp_path / "run")
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
    trainer = Trainer(Recipe(**{**values, "data": str(folder), "workers": 1}), tmp_path / "run")
    with pytest.raises(UserError, match="cannot be read") as refused:
        trainer.train()
    assert "\n" not in str(refused.value)
    assert "5.png" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": ["some/model"]}, "leave out teachers$"),
        ({"groups": ["race"]}, "leave out groups$"),
        ({"groups": ["race"], "objective": "group-dro", "mixup": 0}, "groups, objective group-dro"),
        ({"groups": ["race"], "sampling": "group-balanced"}, "sampling group-balanced"),
        ({"data": ["one", "two"]}, "leave out all of data but one path"),
        ({"data": [{"path": "one", "limit": 5}]}, "leave out all of data but one path"),
        ({"shuffle_buffer": 0}, "shuffle_buffer must be positive"),
        ({"batches_per_epoch": -1}, "must not be negative"),
        ({"batches_per_epoch": 3, "streaming": False}, "needs streaming"),
    ],
)
def test_what_a_stream_cannot_offer_is_refused_in_one_line(values, change, message):
    with pytest.raises(ValueError, match=message) as refused:
        Recipe(**{**values, **change})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "nowhere/at/all"}, "no such folder"),
        ({"workers": 7}, "6 row groups are too few for 1 processes with 7 readers"),
        ({"batch_size": 64}, "do not fill one batch of 64"),
        ({"vocabulary": "korean-11"}, "no column 'Wearing_Mask'"),
    ],
)
def test_data_that_cannot_be_streamed_is_refused_in_one_line(values, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as refused:
        Trainer(Recipe(**{**values, **change}), tmp_path)
    assert "\n" not in str(refused.value)


def test_without_a_card_the_recipe_says_how_long_an_epoch_is(values, tmp_path):
    values["data"] = str(write(tmp_path / "data", [24], card=False))
    with pytest.raises(UserError, match="set batches_per_epoch"):
        Trainer(Recipe(**values), tmp_path / "run")
    names = watch(Trainer(Recipe(**values, batches_per_epoch=5), tmp_path / "run"))
    assert [len(batch) for batch in names] == [8] * 10
    # 24 images once, and two of three batches once more
    assert sorted(Counter(np.ravel(numbers(names[:5]))).values()) == [1] * 8 + [2] * 16


def test_a_share_smaller_than_a_batch_ends_in_one_line(values, tmp_path):
    values["data"] = str(write(tmp_path / "data", [16, 4]))
    recipe = Recipe(**{**values, "workers": 2, "batches_per_epoch": 4})
    with pytest.raises(UserError, match="has not the 8 images of a batch"):
        Trainer(recipe, tmp_path / "run").train()


def test_it_resumes_with_as_many_readers_only(values, tmp_path):
    watch(Trainer(Recipe(**values), tmp_path), 2)
    other = Trainer(Recipe(**{**values, "workers": 2}), tmp_path)
    with pytest.raises(UserError, match="1 processes with 1 readers") as refused:
        other.resume()
    assert "\n" not in str(refused.value)
