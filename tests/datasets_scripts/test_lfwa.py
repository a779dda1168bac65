"""LFWA: its annotation as MATLAB wrote it, older MATLAB files and text; both protocols."""

from pathlib import Path

import datasets
import h5py
import numpy as np
import pytest
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from preparation.framing import decode_image
from scipy.io import savemat

from .conftest import Run, draw_jpeg, load_rows, read_zip


@pytest.fixture
def names(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Images of ten people, three each, in a source folder; real ones where there are any."""
    try:
        images = read_zip(request.getfixturevalue("shared") / "data/lfw/lfw_subset.zip", step=40)
    except pytest.skip.Exception:
        images = {
            f"Person_{index // 3}/Person_{index // 3}_{index % 3:04d}.jpg": draw_jpeg(index)
            for index in range(30)
        }
    for name, data in images.items():
        path = tmp_path / "source/lfw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return list(images)


@pytest.fixture
def labels(names: list[str]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (len(names), 40)).astype(np.float64)


def cell(values: list[str]) -> np.ndarray:
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def write_annotation(kind: str, source: Path, names: list[str], labels: np.ndarray) -> None:
    windows_names = [name.replace("/", "\\") for name in names]
    if kind == "mat 5":
        savemat(
            source / "lfw_att_40.mat",
            {"name": cell(windows_names), "label": labels, "AttrName": cell([*CELEBA_ATTRIBUTES])},
        )
    elif kind == "mat 7.3":
        with h5py.File(source / "lfw_att_40.mat", "w", userblock_size=512) as file:
            file["label"] = labels.T
            for key, values in (("name", windows_names), ("AttrName", CELEBA_ATTRIBUTES)):
                references = [
                    file.create_dataset(
                        f"#refs#/{key}{index}", data=np.array([[ord(c)] for c in text], np.uint16)
                    ).ref
                    for index, text in enumerate(values)
                ]
                file.create_dataset(key, data=np.array([references], dtype=h5py.ref_dtype))
    else:
        lines = [" ".join(CELEBA_ATTRIBUTES)]
        for name, values in zip(names, labels, strict=True):
            lines.append(" ".join([name, *("1" if value else "-1" for value in values)]))
        (source / "lfw_att_40.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("kind", ["mat 7.3", "mat 5", "text"])
def test_annotation_of_every_kind_gives_its_labels(
    kind: str, names: list[str], labels: np.ndarray, tmp_path: Path, run: Run
):
    write_annotation(kind, tmp_path / "source", names, labels)
    assert run("lfwa", "--source", tmp_path / "source", "--output", tmp_path / "out") == 0
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    people = [set(rows["identity"]) for rows in dataset.values()]
    assert sum(map(len, people)) == len(set.union(*people))
    rows = datasets.concatenate_datasets(list(dataset.values()))
    assert len(rows) == len(names)
    for row in rows.cast_column("image", datasets.Image(decode=False)):
        index = names.index(row["image"]["path"])
        assert [row[name] for name in CELEBA_ATTRIBUTES] == (labels[index] == 1).tolist()
        assert row["identity"] == names[index].split("/")[0]


def test_index_list_gives_the_original_protocol(
    names: list[str], labels: np.ndarray, tmp_path: Path, run: Run
):
    write_annotation("mat 5", tmp_path / "source", names, labels)
    people = sorted({name.split("/")[0] for name in names})
    training = [name.split("/")[0] in people[::2] for name in names]
    indices = {
        "indices_img_train": np.flatnonzero(training) + 1,
        "indices_img_test": np.flatnonzero(np.logical_not(training)) + 1,
    }
    savemat(tmp_path / "source/indices_train_test.mat", indices)
    assert run("lfwa", "--source", tmp_path / "source", "--output", tmp_path / "out") == 0
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    assert set(dataset) == {"train", "test"}
    assert len(dataset["train"]) == sum(training)
    assert set(dataset["train"]["identity"]) == set(people[::2])


def test_people_of_another_test_are_kept_out_of_training(
    names: list[str], labels: np.ndarray, yunet: None, tmp_path: Path, run: Run
):
    write_annotation("text", tmp_path / "source", names, labels)
    people = sorted({name.split("/")[0] for name in names})
    (tmp_path / "people.txt").write_text("\n".join(people[:7]))
    folders = ("--source", tmp_path / "source", "--output", tmp_path / "out")
    assert run("lfwa", *folders, "--test-people", tmp_path / "people.txt", align=True) == 0
    rows = load_rows(tmp_path / "out")
    assert {row["split"] for row in rows if row["identity"] in people[:7]} == {"test"}
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    faces = [decode_image(row["image"]["bytes"]).shape for row in rows]
    assert set(faces) == {(218, 178, 3)}


def test_value_out_of_range_is_refused_by_line(
    names: list[str],
    labels: np.ndarray,
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
):
    write_annotation("text", tmp_path / "source", names, labels)
    path = tmp_path / "source/lfw_att_40.txt"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].rsplit(" ", 1)[0] + " 2"
    path.write_text("\n".join(lines))
    assert run("lfwa", "--source", tmp_path / "source", "--output", tmp_path / "out") == 2
    assert "lfw_att_40.txt, line 3: expected a name and 40 values" in capsys.readouterr().err


def test_damaged_annotation_is_refused(
    names: list[str], tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "source/lfw_att_40.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert run("lfwa", "--source", tmp_path / "source", "--output", tmp_path / "out") == 2
    assert "is not a MATLAB file with" in capsys.readouterr().err
