"""CelebA: real files, and what the program refuses."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import datasets
import pytest
from label2label.data.schema import dataset_features
from label2label.data.vocabulary import CELEBA_ATTRIBUTES, get_vocabulary

from .conftest import ROOT, Run, draw_jpeg

ROWS = 12


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """A source of 12 images in the official layout: 6, 3 and 3 images of persons 0 to 3."""
    source = tmp_path / "source"
    (source / "img_align_celeba").mkdir(parents=True)
    attributes = [str(ROWS), " ".join(CELEBA_ATTRIBUTES)]
    identities, partition = [], []
    for index in range(ROWS):
        name = f"{index + 1:06d}.jpg"
        (source / "img_align_celeba" / name).write_bytes(draw_jpeg(index))
        values = [" 1" if (index + column) % 3 == 0 else "-1" for column in range(40)]
        attributes.append(f"{name} {' '.join(values)}")
        identities.append(f"{name} {index // 3}")
        partition.append(f"{name} {max(0, index // 3 - 1)}")
    for name, lines in (
        ("list_attr_celeba.txt", attributes),
        ("identity_CelebA.txt", identities),
        ("list_eval_partition.txt", partition),
    ):
        (source / name).write_text("\n".join(lines) + "\n")
    return source


def edit_line(path: Path, number: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines()
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")


def test_rows_hold_what_the_files_say(celeba: Path, tmp_path: Path, run: Run):
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 0
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    assert {split: len(rows) for split, rows in dataset.items()} == {
        "train": 6,
        "validation": 3,
        "test": 3,
    }
    assert dataset["train"].features == dataset_features(get_vocabulary("celeba-40"))
    row = dataset["validation"][0]  # image 7 of the source
    for column, name in enumerate(CELEBA_ATTRIBUTES):
        assert row[name] is ((6 + column) % 3 == 0)
    assert row["identity"] == "2"
    assert row["source"] == "celeba"
    assert row["gender"] == ("Male" if row["Male"] else "Female")
    assert row["race"] is None
    assert row["age"] is None
    raw = dataset["validation"].cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert raw == {"bytes": draw_jpeg(6), "path": "000007.jpg"}


def test_zip_gives_the_same_rows_as_folder(celeba: Path, tmp_path: Path, run: Run):
    run("celeba", "--source", celeba, "--output", tmp_path / "folder")
    shutil.make_archive(
        str(celeba / "img_align_celeba"), "zip", celeba, base_dir="img_align_celeba"
    )
    shutil.rmtree(celeba / "img_align_celeba")
    assert run("celeba", "--source", celeba, "--output", tmp_path / "zip") == 0
    shards = sorted((tmp_path / "folder/data").iterdir())
    assert len(shards) == 3
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "zip/data" / shard.name).read_bytes()


def test_empty_split_is_left_out(celeba: Path, tmp_path: Path, run: Run):
    partition = celeba / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace(" 1\n", " 0\n"))
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 0
    assert set(datasets.load_dataset(str(tmp_path / "out"))) == {"train", "test"}


@pytest.mark.parametrize(
    ("file", "line", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", 5, "-1", "0", "list_attr_celeba.txt, line 5: expected 40 values"),
        ("list_attr_celeba.txt", 5, " -1", "", "list_attr_celeba.txt, line 5: expected 40 values"),
        ("list_attr_celeba.txt", 1, "12", "13", "list_attr_celeba.txt, line 1: it says 13 images"),
        ("list_attr_celeba.txt", 1, "12", "many", "list_attr_celeba.txt, line 1"),
        ("list_attr_celeba.txt", 2, "Young", "Old", "list_attr_celeba.txt, line 2"),
        ("list_eval_partition.txt", 4, " 0", " 3", "list_eval_partition.txt, line 4"),
        ("list_eval_partition.txt", 2, " 0", " 1", "person 0 is already in another split"),
        ("identity_CelebA.txt", 2, "000002", "000003", "identity_CelebA.txt, line 2"),
        ("identity_CelebA.txt", 12, "000012.jpg 3", "", "000012.jpg has no line in another"),
    ],
)
def test_disagreeing_files_are_refused_by_file_and_line(
    celeba: Path,
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    file: str,
    line: int,
    old: str,
    new: str,
    message: str,
):
    edit_line(celeba / file, line, old, new)
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_missing_image_is_refused_by_file_and_line(
    celeba: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (celeba / "img_align_celeba/000009.jpg").unlink()
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "list_attr_celeba.txt, line 11: the image 000009.jpg is missing" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    "missing", ["list_attr_celeba.txt", "identity_CelebA.txt", "img_align_celeba"]
)
def test_wrong_folder_is_refused(
    celeba: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], missing: str
):
    (celeba / missing).rename(celeba / "elsewhere")
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 2
    assert missing in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_truncated_zip_is_refused(
    celeba: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(celeba / "img_align_celeba/000001.jpg", "img_align_celeba/000001.jpg")
    shutil.rmtree(celeba / "img_align_celeba")
    (celeba / "img_align_celeba.zip").write_bytes(archive.getvalue()[:-40])
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 2
    assert "no whole zip archive" in capsys.readouterr().err


@pytest.mark.slow
def test_real_celeba_from_the_command_line_with_two_workers(shared: Path, tmp_path: Path):
    program = [sys.executable, str(ROOT / "datasets_scripts/celeba.py"), "--workers", "2"]
    folders = ["--source", str(shared / "data/celeba"), "--output", str(tmp_path / "out")]
    done = subprocess.run([*program, *folders], capture_output=True, text=True, check=True)
    assert "8,790 rows (train 7,143, validation 605, test 1,042)" in done.stdout
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    assert {split: rows.num_rows for split, rows in dataset.items()} == {
        "train": 7143,
        "validation": 605,
        "test": 1042,
    }
    people = {split: set(rows["identity"]) for split, rows in dataset.items()}
    assert not people["train"] & people["validation"]
    assert not (people["train"] | people["validation"]) & people["test"]
    record = json.loads((tmp_path / "out/preparation.json").read_text())
    assert str(shared) not in json.dumps(record)
