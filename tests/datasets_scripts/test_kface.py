"""K-FACE: a tree of its shape."""

from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
from preparation.framing import decode_image

from .conftest import Run, draw_jpeg


def scale_light(image: np.ndarray, factor: float | np.ndarray) -> bytes:
    image = (image * factor).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


@pytest.fixture
def photos() -> list[bytes]:
    """Six photos of 250x250."""
    return [draw_jpeg(seed, 250, 250) for seed in range(6)]


@pytest.fixture
def kface(tmp_path: Path, photos: list[bytes]) -> Path:
    """Six people; each in accessories S001, S004 and S005, with L1 (kept) and L9 (not), E01 and
    E02, cameras C7 (kept) and C1 (not). Of S001, the light is as the photo is; of S004 it
    is nearly dark and of S005 it comes from the left."""
    source = tmp_path / "source"
    from_left = np.linspace(1.6, 0.0, 250)[None, :, None] ** 3
    for person, photo in enumerate(photos):
        variants = {
            "S001": photo,
            "S004": scale_light(decode_image(photo), 0.05),
            "S005": scale_light(decode_image(photo), from_left),
        }
        for accessory, variant in variants.items():
            for light in ("L1", "L9"):
                for expression in ("E01", "E02"):
                    folder = source / f"High_Resolution/{person}/{accessory}/{light}/{expression}"
                    folder.mkdir(parents=True)
                    for camera in ("C1", "C7"):
                        (folder / f"{camera}.jpg").write_bytes(variant)
    return source


@pytest.fixture
def reference(photos: list[bytes], tmp_path: Path, run: Run) -> Path:
    """A prepared dataset of the same photos, a little brighter and darker."""
    folder = tmp_path / "reference-source/crop_part1"
    folder.mkdir(parents=True)
    for index, photo in enumerate(photos):
        for factor in (0.6, 0.8, 1.0, 1.2):
            image = scale_light(decode_image(photo), factor)
            (folder / f"30_0_2_{index}{factor}.jpg").write_bytes(image)
    output = tmp_path / "reference"
    assert run("by_name", "utkface", "--source", folder.parent, "--output", output) == 0
    return output


def load(folder: Path) -> datasets.Dataset:
    return datasets.concatenate_datasets(list(datasets.load_dataset(str(folder)).values()))


def test_codes_decide_what_is_kept_and_labelled(
    kface: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    assert run("kface", "--source", kface, "--output", tmp_path / "out") == 0
    assert "step 1, by code: 36 of 144 images kept" in capsys.readouterr().out
    rows = load(tmp_path / "out")
    assert len(rows) == 36
    for row in rows.cast_column("image", datasets.Image(decode=False)):
        person, accessory, light, expression, camera = row["image"]["path"].split("/")
        assert (light, camera) == ("L1", "C7.jpg")
        assert row["identity"] == person
        assert row["Eyeglasses"] is (accessory == "S004")
        assert row["Wearing_Hat"] is (accessory == "S005")
        assert row["Smiling"] is (expression == "E02")
        assert row["Beard"] is None
    people = [
        set(split["identity"]) for split in datasets.load_dataset(str(tmp_path / "out")).values()
    ]
    assert sum(map(len, people)) == 6


def test_measured_light_decides_the_rest(
    kface: Path,
    reference: Path,
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
):
    (kface / "High_Resolution/0/S004/L1/E01/C7.jpg").write_bytes(b"damaged")
    options = ("--source", kface, "--output", tmp_path / "out", "--reference", reference)
    assert run("kface", *options) == 0
    rows = load(tmp_path / "out").cast_column("image", datasets.Image(decode=False))
    accessories = {row["image"]["path"].split("/")[1] for row in rows}
    assert accessories == {"S001"}
    assert len(rows) >= 6
    output = capsys.readouterr().out
    assert f"step 2, by brightness and balance: {len(rows)} of 36 images kept" in output


def test_user_overrides_codes_and_adds_labels(
    kface: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "codes.yaml").write_text("lights: [L9]\nexpressions:\n  E02: {Smiling: null}\n")
    (tmp_path / "labels.csv").write_text(
        "id,Young,No_Beard,gender,age\n0,1,1,Female,31\n1,,0,,\n19,1,1,,\n"
    )
    options = ("--codes", tmp_path / "codes.yaml", "--labels", tmp_path / "labels.csv")
    assert run("kface", "--source", kface, "--output", tmp_path / "out", *options) == 0
    assert "1 of 3 ids or images are not in the dataset: 19" in capsys.readouterr().err
    rows = load(tmp_path / "out")
    assert set(rows["Smiling"]) == {None, False}
    columns = ["Young", "Beard", "gender", "age"]
    told = {row["identity"]: [row[column] for column in columns] for row in rows}
    assert told["0"] == [True, False, "Female", 31]
    assert told["1"] == [None, True, None, None]
    assert told["2"] == [None, None, None, None]


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--codes", "camera: [C7]", "does not have the form of"),
        ("--codes", "lights: L1", "does not have the form of"),
        (
            "--codes",
            "accessories: {S001: {Glasses: true}}",
            "Glasses: True is not true, false or null",
        ),
        ("--codes", "accessories: [", "is not YAML"),
        ("--codes", "accessories: [S001]", "does not have the form of"),
        ("--codes", "expressions: {E01: {Smiling: 1}}", "Smiling: 1 is not true, false or null"),
    ],
)
def test_bad_tables_are_refused(
    kface: Path,
    tmp_path: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    option: str,
    text: str,
    message: str,
):
    (tmp_path / "table").write_text(text)
    options = ("--source", kface, "--output", tmp_path / "out", option, tmp_path / "table")
    assert run("kface", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_code_and_wrong_folder_are_refused(
    kface: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    assert run("kface", "--source", tmp_path / "empty", "--output", tmp_path / "out") == 2
    assert "does not hold High_Resolution/" in capsys.readouterr().err
    (kface / "High_Resolution/0/S001").rename(kface / "High_Resolution/0/S009")
    assert run("kface", "--source", kface, "--output", tmp_path / "out") == 2
    assert "S009 is unknown; add it with --codes" in capsys.readouterr().err
