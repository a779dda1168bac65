"""Writing a dataset: what is skipped, what is refused, two at once, kills and full disks."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from preparation import writing
from preparation.card import DatasetDescription
from preparation.framing import ReadImage
from preparation.sources import Download

from .conftest import ROOT, draw_jpeg

DESCRIPTION = DatasetDescription(
    title="Noise", summary="", origin="", terms="Free.", process="", biases="", program="test"
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """40 images of random colours."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(40):
        (folder / f"{index:02d}.jpg").write_bytes(draw_jpeg(index, 32, 32))
    return folder


def prepare(images: Path, output: Path, identity: str | None = None, **options) -> None:
    samples = [
        Sample(path.name, "test" if path.stem > "29" else "train", {}, identity, source="noise")
        for path in sorted(images.iterdir())
    ]
    read = ReadImage(Download(images).images("images"), align=False)
    writing.write_dataset(
        samples, read, get_vocabulary("korean-11"), DESCRIPTION, output, **options
    )


def test_unusable_images_are_skipped_and_listed(images: Path, tmp_path: Path):
    (images / "03.jpg").write_bytes(b"")
    (images / "04.jpg").write_bytes(b"no image")
    (images / "05.jpg").write_bytes((images / "05.jpg").read_bytes()[:300])
    prepare(images, tmp_path / "out", workers=2)
    skipped = (tmp_path / "out/skipped.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in skipped] == ["image", "03.jpg", "04.jpg", "05.jpg"]
    assert all(len(line) > len("03.jpg,") for line in skipped)
    assert datasets.load_dataset(str(tmp_path / "out"), split="train").num_rows == 27


def test_more_unusable_images_than_accepted_are_refused_with_their_list(
    images: Path, tmp_path: Path
):
    (images / "03.jpg").write_bytes(b"")
    (images / "33.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="2 images could not be used, more than --max-bad 1"):
        prepare(images, tmp_path / "out", max_bad=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.skipped.csv"]


def test_output_that_holds_something_is_left_untouched(images: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        prepare(images, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]


def test_a_person_in_two_splits_is_refused(images: Path, tmp_path: Path):
    with pytest.raises(UserError, match="person Ann is in train and in test"):
        prepare(images, tmp_path / "out", identity="Ann")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_shards_are_bounded(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 12000)
    prepare(images, tmp_path / "out")
    paths = sorted((tmp_path / "out/data").glob("train-*"))
    assert len(paths) > 2
    assert paths[0].name == f"train-00000-of-{len(paths):05d}.parquet"
    assert all(path.stat().st_size < 60000 for path in paths)  # the schema itself weighs some
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert rows.num_rows == 30


def test_the_record_tells_other_programs_the_terms(images: Path, tmp_path: Path):
    prepare(images, tmp_path / "out")
    record = json.loads((tmp_path / "out/preparation.json").read_text())
    told = record["description"]
    assert (told["title"], told["terms"], told["redistributable"]) == ("Noise", "Free.", False)
    assert record["vocabulary"] == "korean-11"
    assert ["noise", "test", "image", "", 10] in record["counts"]


def test_the_card_says_what_a_preparation_anew_changed(images: Path, tmp_path: Path):
    """datasets caches by the folder's name and the card: it must not answer with the old rows."""
    prepare(images, tmp_path / "out")
    assert datasets.load_dataset(str(tmp_path / "out"), split="test").num_rows == 10
    (tmp_path / "out").rename(tmp_path / "old")
    (images / "39.jpg").unlink()
    prepare(images, tmp_path / "out")
    assert datasets.load_dataset(str(tmp_path / "out"), split="test").num_rows == 9


SLOW_RUN = f"""
import sys, time
sys.path[:0] = [{str(ROOT / "datasets_scripts")!r}, {str(ROOT)!r}]
from pathlib import Path
from preparation.framing import ReadImage
from preparation.program import run_program
from tests.datasets_scripts import test_writing as test

read = ReadImage.__call__
ReadImage.__call__ = lambda self, sample: time.sleep(0.05) or read(self, sample)
run_program(lambda: test.prepare(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def start_slowly(images: Path, output: Path) -> subprocess.Popen:
    """A run of at least two seconds, which is writing its rows."""
    command = [sys.executable, "-c", SLOW_RUN, str(images), str(output)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (output.parent / ".out.part/data").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return run


def test_a_killed_run_leaves_no_dataset_and_is_not_in_the_way_of_the_next(
    images: Path, tmp_path: Path
):
    run = start_slowly(images, tmp_path / "out")
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert not (tmp_path / "out").exists()
    prepare(images, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]
    assert datasets.load_dataset(str(tmp_path / "out"), split="train").num_rows == 30


def test_ctrl_c_ends_in_one_line_and_leaves_nothing(images: Path, tmp_path: Path):
    run = start_slowly(images, tmp_path / "out")
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert error.splitlines()[-1] == "interrupted: nothing was written"
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_of_two_runs_at_once_the_second_ends_in_one_line(images: Path, tmp_path: Path):
    first = start_slowly(images, tmp_path / "out")
    with pytest.raises(UserError, match="another program is writing"):
        prepare(images, tmp_path / "out")
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert datasets.load_dataset(str(tmp_path / "out"), split="train").num_rows == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out"]


def test_a_full_disk_ends_in_one_line_without_pyarrow_and_leaves_nothing(
    images: Path, tmp_path: Path
):
    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # fails as a full disk does

    command = [sys.executable, "-c", SLOW_RUN, str(images), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_files)
    assert run.returncode == 2
    assert (
        run.stderr.splitlines()[-1]
        == f"error: {tmp_path / 'out'} cannot be written: File too large"
    )
    assert "Traceback" not in run.stderr
    assert "Exception" not in run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_without_the_extra_a_program_ends_in_one_line(tmp_path: Path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none', name='pyarrow')")
    (tmp_path / "datasets.py").write_text("raise ImportError('none', name='datasets')")
    for name in ("celeba", "merge", "kface", "lfwa"):
        run = subprocess.run(
            [sys.executable, str(ROOT / f"datasets_scripts/{name}.py"), "--help"],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'modeling'}"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 1
        assert run.stderr == "error: datasets is missing: pip install 'label2label[train]'\n"
