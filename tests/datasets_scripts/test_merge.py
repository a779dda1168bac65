"""Merge: vocabularies, duplicates and absent attributes, on sources prepared by the programs."""

import json
from pathlib import Path

import cv2
import datasets
import pytest
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from preparation.card import DatasetDescription
from preparation.framing import decode_image
from preparation.writing import write_dataset

from .conftest import Run, draw_jpeg


def describe(title: str, redistributable: bool = False) -> DatasetDescription:
    return DatasetDescription(
        title=title,
        summary="A test's.",
        origin=f"Origin of {title}.",
        terms=f"Terms of {title}.",
        process="Drawn.",
        biases=f"Biases of {title}.",
        program="test",
        redistributable=redistributable,
        tags=(title,),
    )


def prepare(folder: Path, samples: list[Sample], images: dict[str, bytes], vocabulary: str) -> Path:
    write_dataset(
        samples,
        lambda sample: [(sample, images[sample.key])],
        get_vocabulary(vocabulary),
        describe(samples[0].source),
        folder,
    )
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """30 rows of the 40 attributes: 20 train, 4 validation, 6 test; two rows a person."""
    samples = [
        Sample(
            key=f"{index}.jpg",
            split="train" if index < 20 else "validation" if index < 24 else "test",
            attributes={"No_Beard": index % 2 == 0, "Smiling": True, "Male": None},
            identity=str(index // 2),
            source="first",
            gender="Male",
        )
        for index in range(30)
    ]
    images = {f"{index}.jpg": draw_jpeg(index) for index in range(30)}
    return prepare(tmp_path / "first", samples, images, "celeba-40")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """10 rows of the 11 attributes. Train: 2 new ones; 1 that is first's test image 25, smaller;
    1 that is first's train image 0, byte for byte. Validation: 1 that is first's test image 26,
    byte for byte. Test: 5, of which one is first's train image 1, re-encoded."""

    def encode(seed: int, scale: float = 1.0, quality: int = 95) -> bytes:
        image = cv2.cvtColor(decode_image(draw_jpeg(seed)), cv2.COLOR_RGB2BGR)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()

    images = {
        "new-0": draw_jpeg(100),
        "new-1": draw_jpeg(101),
        "small-25": encode(25, scale=0.7),
        "same-0": draw_jpeg(0),
        "same-26": draw_jpeg(26),
        "coarse-1": encode(1, quality=50),
        **{f"new-{index}": draw_jpeg(100 + index) for index in range(2, 6)},
    }
    splits = ["train"] * 4 + ["validation"] + ["test"] * 5
    samples = [
        Sample(
            key=key,
            split=split,
            attributes={"Wearing_Mask": True, "Beard": True},
            identity=str(100 + index),
            source="second",
            race="Asian",
        )
        for index, (key, split) in enumerate(zip(images, splits, strict=True))
    ]
    return prepare(tmp_path / "second", samples, images, "korean-11")


def load(folder: Path) -> dict[str, list[dict]]:
    dataset = datasets.load_dataset(str(folder)).cast_column("image", datasets.Image(decode=False))
    return {split: rows.to_list() for split, rows in dataset.items()}


def names(rows: list[dict]) -> set[str]:
    return {row["image"]["path"] for row in rows}


def test_duplicates_stay_in_the_later_split(first: Path, second: Path, tmp_path: Path, run: Run):
    assert run("merge", first, second, "--output", tmp_path / "out") == 0
    splits = load(tmp_path / "out")
    left_out = {"first/1.jpg", "second/same-0", "second/small-25", "second/same-26"}
    everything = set.union(*map(names, splits.values()))
    assert len(everything) == sum(map(len, splits.values())) == 36
    assert not everything & left_out
    assert {"second/coarse-1", "first/25.jpg", "first/26.jpg"} <= names(splits["test"])
    assert "first/0.jpg" in names(splits["train"])
    assert "validation" in splits


def test_vocabulary_derives_and_leaves_the_rest_null(
    first: Path, second: Path, tmp_path: Path, run: Run
):
    for name in ("union", "celeba-40", "korean-11"):
        output = tmp_path / name
        assert run("merge", first, second, "--vocabulary", name, "--output", output) == 0
        rows = [row for split in load(output).values() for row in split]
        attributes = get_vocabulary(name).attributes
        groups = ["identity", "source", "race", "gender", "age"]
        assert list(rows[0]) == ["image", *attributes, *groups]
        for row in rows:
            of_first = row["source"] == "first"
            beard = int(row["image"]["path"][6:-4]) % 2 == 1 if of_first else True
            assert row.get("Beard", beard) is beard
            assert row.get("No_Beard", not beard) is not beard
            assert row["Smiling"] is (True if of_first else None)
            assert row.get("Wearing_Mask") is (
                True if not of_first and "Wearing_Mask" in attributes else None
            )
            assert row["race"] == (None if of_first else "Asian")
            assert row["identity"].startswith(row["source"] + "/")


def test_unknown_labels_become_false_where_a_source_never_shows_the_attribute(
    first: Path, second: Path, tmp_path: Path, run: Run
):
    absent = ("--absent", "first", "Wearing_Mask", "--absent", "second", "Bald")
    assert run("merge", first, second, *absent, "--output", tmp_path / "out") == 0
    for row in (row for split in load(tmp_path / "out").values() for row in split):
        of_first = row["source"] == "first"
        assert row["Wearing_Mask"] is (not of_first)
        assert row["Bald"] is (None if of_first else False)


def test_report_and_card_count_by_source_split_attribute_and_group(
    first: Path, second: Path, tmp_path: Path, run: Run
):
    assert run("merge", first, second, "--output", tmp_path / "out") == 0
    counts = json.loads((tmp_path / "out/preparation.json").read_text())["counts"]
    assert ["first", "test", "image", "", 6] in counts
    assert ["second", "test", "Wearing_Mask", "true", 5] in counts
    assert ["first", "test", "Wearing_Mask", "null", 6] in counts
    assert ["second", "train", "race", "Asian", 2] in counts
    card = (tmp_path / "out/README.md").read_text()
    for text in (
        "Terms of first.",
        "Terms of second.",
        "Biases of first.",
        "2 whose near-duplicate",
    ):
        assert text in card


def test_bad_inputs_are_refused(
    first: Path, second: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    output = ("--output", tmp_path / "out")
    for arguments, message in (
        ((first, first), "give each dataset only once"),
        ((first, tmp_path), "is not a prepared dataset"),
        ((first, second, "--absent", "third", "Bald"), "no source is called third"),
        ((first, second, "--absent", "first", "Wings"), "has no attribute Wings"),
        ((first, second, "--absent", "first"), "expected 2 arguments"),
        ((first, second, "--output", first), "is not empty"),
    ):
        assert run("merge", *output, *arguments) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_person_in_two_splits_is_refused(
    first: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    other = prepare(
        tmp_path / "other",
        [Sample(key="new.jpg", split="test", identity="0", source="first")],
        {"new.jpg": draw_jpeg(500)},
        "celeba-40",
    )
    assert run("merge", first, other, "--output", tmp_path / "out") == 2
    assert "person first/0 is in train and in test" in capsys.readouterr().err


def test_a_shard_that_is_cut_short_ends_in_one_line(
    first: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    (shard,) = (first / "data").glob("train-*")
    shard.write_bytes(shard.read_bytes()[:-100])
    assert run("merge", first, "--output", tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("prepare the dataset again")
