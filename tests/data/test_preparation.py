"""Writing a dataset: what is skipped, what is refused, and what a killed run leaves."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from label2label.data.preparation import chunks, shards
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.images import encode_image
from label2label.data.preparation.sources import ImageFolder, ReadImage
from label2label.data.preparation.writing import prepare_dataset
from label2label.data.schema import Sample, dataset_schema
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from numpy.random import default_rng

DESCRIPTION = DatasetDescription(
    title="Noise", summary="", origin="", terms="Free.", process="", biases="", program="test"
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """40 images of noise."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(40):
        image = default_rng(index).integers(0, 256, (32, 32, 3), "uint8")
        (folder / f"{index:02d}.jpg").write_bytes(encode_image(image))
    return folder


def samples(images: Path) -> list[Sample]:
    return [
        Sample(key=path.name, split="test" if path.stem > "29" else "train", source="noise")
        for path in sorted(images.iterdir())
    ]


def prepare(images: Path, output: Path, **options) -> None:
    read = ReadImage(ImageFolder(images))
    vocabulary = get_vocabulary("korean-11")
    prepare_dataset(samples(images), read, vocabulary, DESCRIPTION, output, **options)


def test_a_chunk_that_is_written_anew_keeps_no_part_of_the_run_before(images: Path, tmp_path: Path):
    read, vocabulary = ReadImage(ImageFolder(images)), get_vocabulary("korean-11")
    write = chunks.ChunkWriter(read, vocabulary, dataset_schema(vocabulary), tmp_path)
    both = samples(images)[28:32]
    write((0, both))
    write((0, both[:2]))  # of train alone
    assert not chunks.part_path(tmp_path, 0, "test").exists()
    write((0, both))
    assert chunks.part_path(tmp_path, 0, "test").exists()


def test_a_chunk_whose_rewriting_was_interrupted_is_not_finished(images: Path, tmp_path: Path):
    read, vocabulary = ReadImage(ImageFolder(images)), get_vocabulary("korean-11")
    write = chunks.ChunkWriter(read, vocabulary, dataset_schema(vocabulary), tmp_path)
    write((0, samples(images)))
    lost = [Sample(key="nowhere.jpg", split="train", source="noise")]

    def interrupt(sample: Sample) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(write, read=interrupt)((0, lost))
    with pytest.raises(FileNotFoundError):
        chunks.read_journal(tmp_path, 0)


def test_unusable_images_are_skipped_and_listed(images: Path, tmp_path: Path):
    (images / "03.jpg").write_bytes(b"")
    (images / "04.jpg").write_bytes(b"no image")
    (images / "05.jpg").write_bytes((images / "05.jpg").read_bytes()[:300])
    prepare(images, tmp_path / "out")
    skipped = (tmp_path / "out/skipped.csv").read_text().splitlines()
    assert skipped[:3] == ["image,reason", "03.jpg,empty file", "04.jpg,not an image"]
    assert skipped[3].startswith("05.jpg,cannot be decoded")
    assert datasets.load_dataset(str(tmp_path / "out"), split="train").num_rows == 27


def test_more_unusable_images_than_accepted_are_refused_with_their_list(
    images: Path, tmp_path: Path
):
    (images / "03.jpg").write_bytes(b"")
    (images / "33.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="2 images could not be used, more than --max-bad 1"):
        prepare(images, tmp_path / "out", max_bad=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.skipped.csv"]
    assert (tmp_path / "out.skipped.csv").read_text().count("empty file") == 2


def test_output_that_holds_something_else_is_left_untouched(images: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds something else"):
        prepare(images, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]


def test_shards_are_bounded(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "MAX_ROW_GROUP_BYTES", 3000)
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 12000)
    prepare(images, tmp_path / "out")
    paths = sorted((tmp_path / "out/data").glob("train-*"))
    assert len(paths) > 2
    assert paths[0].name == f"train-00000-of-{len(paths):05d}.parquet"
    assert all(path.stat().st_size < 60000 for path in paths)  # the schema itself weighs some
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert [row["path"] for row in rows.cast_column("image", datasets.Image(decode=False))["image"]]
    assert rows.num_rows == 30


KILLED_RUN = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_preparation as test
from dataclasses import dataclass
from label2label.data.preparation import chunks
from label2label.data.preparation.sources import ReadImage

read_image = ReadImage.__call__

def read_slowly(self, sample):
    time.sleep(0.02)
    return read_image(self, sample)

ReadImage.__call__ = read_slowly
chunks.CHUNK_SAMPLES = 5
test.prepare(test.Path(sys.argv[2]), test.Path(sys.argv[3]))
"""


def test_killed_run_goes_on_without_a_wrong_or_missing_row(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folders = [str(Path(__file__).parent), str(images), str(tmp_path / "out")]
    run = subprocess.Popen([sys.executable, "-c", KILLED_RUN, *folders])
    parts = tmp_path / ".out.partial/parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert 3 <= len(finished) < 8
    assert not (tmp_path / "out").exists()

    monkeypatch.setattr(chunks, "CHUNK_SAMPLES", 5)
    read_names = []
    monkeypatch.setattr(
        ReadImage, "__call__", recording(ReadImage.__call__, read_names), raising=True
    )
    prepare(images, tmp_path / "out")
    assert len(read_names) == 40 - 5 * len(finished)
    prepare(images, tmp_path / "whole")
    shard_names = [path.name for path in sorted((tmp_path / "whole/data").iterdir())]
    assert len(shard_names) == 2
    for name in shard_names:
        whole = (tmp_path / "whole/data" / name).read_bytes()
        assert (tmp_path / "out/data" / name).read_bytes() == whole
    assert not parts.exists()


def recording(read, names: list[str]):
    def read_and_record(self, sample: Sample):
        names.append(sample.key)
        return read(self, sample)

    return read_and_record
