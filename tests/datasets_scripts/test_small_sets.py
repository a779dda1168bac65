"""All-Age-Faces, SCUT-FBP5500, real masks, and tables of further labels."""

from pathlib import Path

import pytest

from .conftest import Run, draw_jpeg, load_rows


def write_source(folder: Path, names: list[str], splits: str | None = None) -> Path:
    for seed, name in enumerate(names):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_jpeg(seed))
    if splits is not None:
        (folder / "splits.csv").write_text(f"image,split\n{splits}")
    return folder


ALL_AGE_FACES = ["00000A02.jpg", "07380A39.jpg", "07381A40.jpg"]
ALL_AGE_SPLITS = "00000A02.jpg,train\n07380A39.jpg,test\n07381A40.jpg,validation\n"


def test_all_age_faces_tell_age_and_gender(tmp_path: Path, run: Run):
    source = write_source(tmp_path / "source", ALL_AGE_FACES, ALL_AGE_SPLITS)
    assert run("by_name", "all-age-faces", "--source", source, "--output", tmp_path / "out") == 0
    columns = ("split", "age", "gender", "Male", "Young", "Smiling")
    assert [tuple(row[name] for name in columns) for row in load_rows(tmp_path / "out")] == [
        ("train", 2, "Female", False, True, None),
        ("validation", 40, "Male", True, False, None),
        ("test", 39, "Female", False, True, None),
    ]


def test_a_table_of_labels_is_joined_by_name(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    source = write_source(tmp_path / "source", ALL_AGE_FACES, ALL_AGE_SPLITS)
    table = tmp_path / "labels.csv"
    table.write_text(
        "image,split,Smiling,Beard,Young\n07381A40.jpg,validation,1,0,\n00000A02.jpg,train,,1,0\n"
        "00009A09.jpg,train,1,1,1\n"
    )
    folders = ("--source", source, "--labels", table)
    assert run("by_name", "all-age-faces", *folders, "--output", tmp_path / "all") == 0
    assert "1 of 3 ids or images are not in the dataset: 00009A09.jpg" in capsys.readouterr().err
    columns = ("image", "Smiling", "Beard", "No_Beard", "Young", "Male")
    rows = [tuple(row[name] for name in columns) for row in load_rows(tmp_path / "all")]
    assert [row[1:] for row in rows] == [
        (None, True, False, False, False),
        (True, False, True, False, True),
        (None, None, None, True, False),
    ]
    assert (
        run("by_name", "all-age-faces", *folders, "--only-labelled", "--output", tmp_path / "two")
        == 0
    )
    assert len(load_rows(tmp_path / "two")) == 2


def test_the_labels_of_east_asian_faces_join(shared: Path, tmp_path: Path, run: Run):
    table = shared / "data/east-asian-11/labels.csv"
    if not table.is_file():
        pytest.skip(f"no {table}")
    rows = [line.split(",") for line in table.read_text().splitlines()[1::150]]
    splits = "".join(f"{name},{split}\n" for name, split, *_ in rows)
    source = write_source(tmp_path / "source", [name for name, *_ in rows], splits)
    options = ("--source", source, "--labels", table, "--only-labelled")
    assert run("by_name", "all-age-faces", *options, "--output", tmp_path / "out") == 0
    prepared = {row["image"]["path"]: row for row in load_rows(tmp_path / "out")}
    assert len(prepared) == len(rows)
    for name, split, glasses, _, _, smiling, *_ in rows:
        row = prepared[name]
        labels = {"1": True, "0": False, "": None}
        assert (row["split"], row["Eyeglasses"]) == (split, labels[glasses])
        assert row["Smiling"] == labels[smiling]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Smiling\n00000A02.jpg,2\n", "line 2: '2' is not a value of Smiling"),
        ("image,Tall\n00000A02.jpg,1\n", "the first column must be id or image"),
        ("name,Smiling\n00000A02.jpg,1\n", "the first column must be id or image"),
        ("image,age\n00000A02.jpg,old\n", "line 2: 'old' is not a value of age"),
        ("image,Smiling\n00000A02.jpg,1\n00000A02.jpg,0\n", "line 3: 00000A02.jpg is listed twice"),
        (
            "image,Smiling\nx.jpg,1\n",
            "none of its ids or images is in the dataset; the first is 'x.jpg'",
        ),
        (
            "image,split\n00000A02.jpg,test\n",
            "00000A02.jpg has another split in the dataset: train",
        ),
        ("image,Smiling\n00000A02.jpg\n", "line 2: 1 values for 2 columns"),
        ("", "has no rows"),
    ],
)
def test_bad_tables_are_refused(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], text: str, message: str
):
    source = write_source(tmp_path / "source", ALL_AGE_FACES, ALL_AGE_SPLITS)
    (tmp_path / "labels.csv").write_text(text)
    options = ("--source", source, "--labels", tmp_path / "labels.csv")
    assert run("by_name", "all-age-faces", *options, "--output", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


SCUT_SPLITS = "AF1.jpg,train\nCM12.jpg,test\n"


def test_scut_names_tell_race_and_gender(tmp_path: Path, run: Run):
    source = write_source(
        tmp_path / "source", ["AF1.jpg", "CM12.jpg"], "AF1.jpg,train\nCM12.jpg,test\n"
    )
    assert run("by_name", "scut-fbp5500", "--source", source, "--output", tmp_path / "out") == 0
    rows = [
        (row["split"], row["race"], row["gender"], row["Male"])
        for row in load_rows(tmp_path / "out")
    ]
    assert rows == [("train", "Asian", "Female", False), ("test", "Caucasian", "Male", True)]


def test_masks_become_labels_and_augmented_copies_stay_in_train(tmp_path: Path, run: Run):
    names = [
        "with_mask/a.jpg",
        "with_mask/augmented_a.jpg",
        "without_mask/b.png",
        "without_mask/augmented_b.jpg",
    ]
    splits = "".join(f"{name},{'train' if 'a.jpg' in name else 'test'}\n" for name in names)
    source = write_source(tmp_path / "source", names, splits)
    assert run("by_name", "masks", "--source", source, "--output", tmp_path / "out") == 0
    rows = {
        row["image"]["path"]: (row["split"], row["Wearing_Mask"])
        for row in load_rows(tmp_path / "out")
    }
    assert rows == {
        "with_mask/a.jpg": ("train", True),
        "with_mask/augmented_a.jpg": ("train", True),
        "without_mask/b.png": ("test", False),
    }


def test_an_image_that_the_split_file_lacks_and_a_strange_name_are_refused(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    source = write_source(tmp_path / "source", ["AF1.jpg", "AF2.jpg"], "AF1.jpg,train\n")
    assert run("by_name", "scut-fbp5500", "--source", source, "--output", tmp_path / "out") == 2
    assert "splits.csv does not name the image AF2.jpg" in capsys.readouterr().err
    assert run("by_name", "all-age-faces", "--source", source, "--output", tmp_path / "out") == 2
    assert "is named like NNNNNAXX.jpg" in capsys.readouterr().err


def test_photos_of_ones_own_get_the_columns_of_their_table(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    photos = write_source(tmp_path / "photos", ["a.jpg", "b.jpg", "c.jpg"]) / "images"
    table = tmp_path / "labels.csv"
    table.write_text('"image",identity, Freckles,"age"\na.jpg,Ann,1,30\nb.jpg,Ann,,\nc.jpg,Bo,0,\n')
    folders = ("--source", photos, "--labels", table, "--output")
    assert run("own_photos", *folders, tmp_path / "out") == 0
    rows = {row["image"]["path"]: row for row in load_rows(tmp_path / "out")}
    assert [rows[f"{name}.jpg"]["Freckles"] for name in "abc"] == [True, None, False]
    assert rows["a.jpg"]["split"] == rows["b.jpg"]["split"]
    assert (rows["a.jpg"]["age"], rows["c.jpg"]["identity"]) == (30, "Bo")
    for text, message in (
        ("image\na.jpg\n", "no column of an attribute"),
        ("image,Freckles\n", "has no rows"),
        ("image,Freckles\nd.jpg,1\n", "line 2: the image d.jpg is missing"),
        ("image,Freckles\na.jpg,yes\n", "line 2: 'yes' is not a value of Freckles (1, 0)"),
        (
            "image,gender,Freckles\na.jpg,female,1\n",
            "line 2: 'female' is not a value of gender (Male, Female)",
        ),
        ("photo,Freckles\na.jpg,1\n", "line 1: no column image"),
    ):
        table.write_text(text)
        assert run("own_photos", *folders, tmp_path / "other") == 2
        assert message in capsys.readouterr().err
