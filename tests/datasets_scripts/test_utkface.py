"""UTKFace: labels from real file names, and names that tell nothing."""

import io
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from label2label.faces.detection import FaceDetector
from preparation.framing import CELEBA_LANDMARKS, CELEBA_SIZE

from .conftest import Run, draw_jpeg, load_rows, read_zip


def test_real_names_become_labels(shared: Path, tmp_path: Path, run: Run):
    images = read_zip(shared / "data/utkface/crop_part1.zip", step=120)
    folder = tmp_path / "source/UTKFace"
    folder.mkdir(parents=True)
    for name, data in images.items():
        (folder / name).write_bytes(data)
    assert (
        run("by_name", "utkface", "--source", tmp_path / "source", "--output", tmp_path / "out")
        == 0
    )
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    rows = datasets.concatenate_datasets(list(dataset.values()))
    assert len(rows) == len(images) > 60
    assert len(dataset["train"]) == pytest.approx(0.7 * len(rows), rel=0.2)
    for row in rows.cast_column("image", datasets.Image(decode=False)):
        age, gender, race, _ = row["image"]["path"].split("_")
        assert row["image"]["bytes"] == images[row["image"]["path"]]
        assert row["age"] == int(age)
        assert row["Young"] is (int(age) < 40)
        assert row["Male"] is (gender == "0")
        assert row["gender"] == {"0": "Male", "1": "Female"}[gender]
        assert row["race"] == ["White", "Black", "Asian", "Indian", "Others"][int(race)]
        assert row["Smiling"] is None


def test_malformed_names_are_counted_and_left_out(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "source/crop_part1"
    folder.mkdir(parents=True)
    malformed = ["61_1_20170109142408075.jpg", "25_2_1_1.jpg", "25_0_7_1.jpg", "\x1b[2J_0_1_1.jpg"]
    for seed, name in enumerate([*malformed, "39_0_2_1.jpg", "40_1_3_2.jpg"]):
        (folder / name).write_bytes(draw_jpeg(seed))
    assert (
        run("by_name", "utkface", "--source", tmp_path / "source", "--output", tmp_path / "out")
        == 0
    )
    error = capsys.readouterr().err
    assert "4 images are not named like AGE_GENDER_RACE_TIME.jpg" in error
    assert all(name in error for name in malformed[:3])
    assert "\\x1b[2J_0_1_1.jpg" in error
    assert "\x1b" not in error
    rows = datasets.concatenate_datasets(
        list(datasets.load_dataset(str(tmp_path / "out")).values())
    )
    assert {row["age"]: row["Young"] for row in rows} == {39: True, 40: False}


def test_aligned_faces_lie_on_the_landmarks_of_celeba_and_those_without_a_face_are_counted(
    shared: Path, yunet: None, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "source/crop_part1"
    folder.mkdir(parents=True)
    for name, data in read_zip(shared / "data/utkface/crop_part1.zip", step=400).items():
        (folder / name).write_bytes(data)
    faceless = draw_jpeg(0, 200, 200)
    (folder / "30_0_2_1.jpg").write_bytes(faceless)
    folders = ("--source", tmp_path / "source", "--output", tmp_path / "out")
    assert run("by_name", "utkface", *folders, align=True) == 0
    rows = datasets.concatenate_datasets(
        list(datasets.load_dataset(str(tmp_path / "out")).values())
    )
    output = capsys.readouterr().out
    assert f"framed {len(rows) - 1} of {len(rows)} images" in output
    raw = rows.cast_column("image", datasets.Image(decode=False))["image"]
    (kept,) = [image["bytes"] for image in raw if image["path"] == "30_0_2_1.jpg#unaligned"]
    assert kept == faceless
    aligned = [
        image for image, data in zip(rows["image"], raw, strict=True) if "#" not in data["path"]
    ]
    assert {image.size for image in aligned} == {CELEBA_SIZE}
    faces = [FaceDetector()(np.asarray(image)) for image in aligned]
    landmarks = np.array([found[0].landmarks for found in faces if found])
    assert len(landmarks) >= 0.9 * len(aligned)
    # A face is not the mean face: one similarity transform leaves a few pixels of 178.
    assert np.abs(landmarks.mean(axis=0) - CELEBA_LANDMARKS).max() < 3
    assert np.abs(landmarks - CELEBA_LANDMARKS).mean() < 4
    card = (tmp_path / "out/README.md").read_text()
    assert "| path ending in `#unaligned` | 1 |" in card
    assert "byte for byte" not in card


def test_folder_without_such_names_is_refused(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "source/crop_part1").mkdir(parents=True)
    (tmp_path / "source/crop_part1/portrait.jpg").write_bytes(draw_jpeg(0))
    assert (
        run("by_name", "utkface", "--source", tmp_path / "source", "--output", tmp_path / "out")
        == 2
    )
    assert "AGE_GENDER_RACE_TIME" in capsys.readouterr().err


def test_photos_in_the_wild_are_read_from_all_three_parts(tmp_path: Path, run: Run):
    for part in ("part1", "part2", "part3"):
        (tmp_path / "source").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / f"source/{part}.tar.gz", "w:gz") as archive:
            entry = tarfile.TarInfo(f"{part}/30_0_2_{part[-1]}.jpg")
            data = draw_jpeg(int(part[-1]))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert (
        run("by_name", "utkface", "--source", tmp_path / "source", "--output", tmp_path / "out")
        == 0
    )
    paths = sorted(row["image"]["path"] for row in load_rows(tmp_path / "out"))
    assert paths == ["30_0_2_1.jpg", "30_0_2_2.jpg", "30_0_2_3.jpg"]
