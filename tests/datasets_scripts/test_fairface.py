"""FairFace: a tree of its shape, and values that it does not have."""

from pathlib import Path

import datasets
import pytest

from .conftest import Run, draw_jpeg

HEADER = "file,age,gender,race,service_test\n"


@pytest.fixture
def fairface(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for folder, rows in (("train", 40), ("val", 3)):
        (source / folder).mkdir(parents=True)
        lines = []
        for index in range(rows):
            (source / folder / f"{index}.jpg").write_bytes(draw_jpeg(index))
            age = ("0-2", "30-39", "40-49", "more than 70")[index % 4]
            race = ("Latino_Hispanic", "East Asian")[index % 2]
            gender = ("Male", "Female")[index % 2]
            lines.append(f"{folder}/{index}.jpg,{age},{gender},{race},{index % 2 == 0}\n")
        (source / f"fairface_label_{folder}.csv").write_text(HEADER + "".join(lines))
    return source


def test_columns_become_groups(fairface: Path, tmp_path: Path, run: Run):
    assert run("fairface", "--source", fairface, "--output", tmp_path / "out") == 0
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    assert len(dataset["train"]) + len(dataset["validation"]) == 40
    assert len(dataset["test"]) == 3
    columns = ["age", "gender", "race", "Male", "Young", "Smiling"]
    assert dataset["test"].select_columns(columns).to_list() == [
        dict(zip(columns, values, strict=True))
        for values in (
            (0, "Male", "Latino Hispanic", True, True, None),
            (30, "Female", "East Asian", False, True, None),
            (40, "Male", "Latino Hispanic", True, False, None),
        )
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("40-49", "45", "fairface_label_val.csv, line 4: age is '45'"),
        ("Female", "F", "fairface_label_val.csv, line 3: gender is 'F'"),
        ("val/2.jpg", "val/9.jpg", "line 4: val/9.jpg is missing"),
        ("race", "other", "line 1: no column race"),
    ],
)
def test_bad_values_are_refused_by_line(
    fairface: Path,
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
):
    path = fairface / "fairface_label_val.csv"
    path.write_text(path.read_text().replace(old, new))
    assert run("fairface", "--source", fairface, "--output", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source"]


def test_folder_without_labels_is_refused(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "source/train").mkdir(parents=True)
    (tmp_path / "source/train/1.jpg").write_bytes(draw_jpeg(0))
    assert run("fairface", "--source", tmp_path / "source", "--output", tmp_path / "out") == 2
    assert "fairface_label_train.csv" in capsys.readouterr().err
