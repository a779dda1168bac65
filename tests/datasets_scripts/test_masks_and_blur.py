"""Masks and blur drawn on real faces become rows with the right labels."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from preparation.drawing import HIDDEN_BY_MASK

from .conftest import Run, draw_jpeg, read_zip


def prepare_faces(folder: Path, faces: list[bytes], run: Run) -> Path:
    source = folder / "source/crop_part1"
    source.mkdir(parents=True)
    for index, face in enumerate(faces):
        (source / f"30_0_2_{index}.jpg").write_bytes(face)
    assert run("utkface", "--source", source.parent, "--output", folder / "faces") == 0
    return folder / "faces"


def load(folder: Path) -> datasets.Dataset:
    return datasets.concatenate_datasets(list(datasets.load_dataset(str(folder)).values()))


def test_copies_carry_the_drawn_labels(shared: Path, yunet: None, tmp_path: Path, run: Run):
    archive = shared / "data/utkface/crop_part1.zip"
    faces = prepare_faces(tmp_path, list(read_zip(archive, step=200).values()), run)
    options = ("--masks", "0.5", "--blur", "0.5", "--output", tmp_path / "out")
    assert run("masks_and_blur", faces, *options) == 0
    rows = load(tmp_path / "out").to_list()
    by_kind = {"mask": [], "blur": [], "": []}
    for row in rows:
        kind = row["image"]["path"].partition("#")[2].partition("-")[0]
        by_kind[kind].append(row)
    originals = len(by_kind[""])
    assert originals == len(load(faces))
    assert originals * 0.9 <= len(by_kind["mask"]) + len(by_kind["blur"]) <= originals
    assert min(len(by_kind["mask"]), len(by_kind["blur"])) > 5
    for row in by_kind[""]:
        assert row["Wearing_Mask"] is False
        assert row["Blurry"] is None
    for row in by_kind["mask"]:
        assert row["Wearing_Mask"] is True
        assert row["Male"] is True
        assert not any(row[name] for name in HIDDEN_BY_MASK)
    for row in by_kind["blur"]:
        assert row["Blurry"] is True
        assert row["Wearing_Mask"] is False
    card = (tmp_path / "out/README.md").read_text()
    assert "synthetic mask" in card
    assert "by assumption, not by annotation" in card


def test_masks_without_a_landmark_detector_are_refused(
    tmp_path: Path, run: Run, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    faces = prepare_faces(tmp_path, [draw_jpeg(0)], run)
    monkeypatch.setenv("LABEL2LABEL_FACE_DETECTOR", str(tmp_path / "missing.onnx"))
    assert run("masks_and_blur", faces, "--output", tmp_path / "out") == 2
    assert "LABEL2LABEL_FACE_DETECTOR names" in capsys.readouterr().err
    assert run("masks_and_blur", faces, "--masks", "0", "--output", tmp_path / "out") == 0


def test_blur_keeps_colours_and_removes_detail(tmp_path: Path, run: Run):
    faces = prepare_faces(tmp_path, [draw_jpeg(seed) for seed in range(4)], run)
    options = ("--masks", "0", "--blur", "1", "--output", tmp_path / "out")
    assert run("masks_and_blur", faces, *options) == 0
    rows = load(tmp_path / "out")
    assert len(rows) == 8
    sharp, blurred = (
        [np.asarray(row["image"], float) for row in rows if bool(row["Blurry"]) is is_blurred]
        for is_blurred in (False, True)
    )
    for before, after in zip(sharp, blurred, strict=True):
        assert after.mean() == pytest.approx(before.mean(), rel=0.05)
        assert np.abs(np.diff(after, axis=0)).mean() + np.abs(np.diff(after, axis=1)).mean() < (
            np.abs(np.diff(before, axis=0)).mean() + np.abs(np.diff(before, axis=1)).mean()
        )
