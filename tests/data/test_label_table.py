from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label2label.data.label_table import read_label_table
from label2label.errors import UserError

from .mutations import mutate

ATTRIBUTES = ["Male", "Smiling", "Beard"]


@pytest.fixture
def photos(tmp_path):
    """A folder with three files that stand for photos."""
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"a photo")
    return tmp_path


def write(folder, text, name="people.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path, groups=("race",)):
    """The table's columns, images by their paths or contents."""
    columns = read_label_table(path, ATTRIBUTES, groups)[:]
    columns["image"] = [image["bytes"] or Path(image["path"]) for image in columns["image"]]
    return columns


def test_labels_groups_people_and_ages_are_read(photos):
    table = read(
        write(
            photos,
            "image,Male,No_Beard,Smiling,race,identity,age,note\n"
            "a.jpg,1,true,,White,ann,31,x\n"
            "b.jpg,0,FALSE,-100,Asian,bob,8.0,\n"
            "c.jpg,-1,,yes,,,,\n".replace("0,FALSE", "-1,FALSE"),
        )
    )
    assert table == {
        "image": [photos / f"{name}.jpg" for name in "abc"],
        "Male": [True, False, False],
        "No_Beard": [True, False, None],
        "Smiling": [None, None, True],
        "race": ["White", "Asian", None],
        "identity": ["ann", "bob", None],
        "age": [31, 8, None],
    }


def test_parquet_holds_values_of_its_own_types_and_images(photos):
    path = photos / "people.parquet"
    columns = {
        "image": [{"bytes": b"encoded", "path": None}, {"bytes": None, "path": "b.jpg"}],
        "Male": [True, None],
        "Smiling": [1, 0],
        "race": ["White", None],
    }
    pq.write_table(pa.table(columns), path)
    assert read(path) == {
        "image": [b"encoded", photos / "b.jpg"],
        "Male": [True, None],
        "Smiling": [True, False],
        "race": ["White", None],
    }


def test_tabs_separate_the_values_of_a_tsv(photos):
    table = read(write(photos, "image\tMale\trace\na.jpg\t1\tWhite\n", "people.tsv"))
    assert table["Male"] == [True]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_what_spreadsheets_save_is_read(photos, separator, encoding):
    text = "image,Male,race\r\na.jpg,1,동양인\r\n,,\r\n\r\n".replace(",", separator)
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (photos / "people.csv").write_bytes(mark + text.encode(encoding))
    table = read(photos / "people.csv")
    assert (table["Male"], table["race"]) == ([True], ["동양인"])


def test_a_table_in_another_encoding_is_refused_with_the_way_out(photos):
    (photos / "people.csv").write_bytes("image,Male,race\na.jpg,1,동양인\n".encode("cp949"))
    with pytest.raises(UserError, match=r"not UTF-8: in Excel, save it as 'CSV UTF-8'; .* cp949"):
        read(photos / "people.csv")
    (photos / "people.csv").write_bytes("image,Male\n".encode("utf-16-le"))
    with pytest.raises(UserError, match="save it as UTF-8"):
        read(photos / "people.csv")


def test_backslashes_separate_folders_where_no_file_has_them(photos):
    (photos / "sub").mkdir()
    (photos / "sub/d.jpg").write_bytes(b"a photo")
    (photos / "odd\\name.jpg").write_bytes(b"a photo")
    path = write(photos, "image,Male,race\nsub\\d.jpg,1,x\nodd\\name.jpg,0,y\n")
    assert read(path)["image"] == [photos / "sub/d.jpg", photos / "odd\\name.jpg"]


@pytest.mark.parametrize("image", [[5, 6], [2.5, 1.5], [["a.jpg"], ["b.jpg"]]])
def test_numbers_are_no_images(photos, image):
    pq.write_table(pa.table({"image": image, "Male": [1, 0]}), photos / "people.parquet")
    with pytest.raises(UserError, match=r"row 1: .* is neither a path nor an image"):
        read(photos / "people.parquet", [])


def test_a_group_may_be_an_attribute_or_the_age(photos):
    path = write(photos, "image,Male,age\na.jpg,1,20\nb.jpg,0,30\n")
    assert read(path, ["age"])["age"] == [20, 30]
    assert read(path, ["Male"])["Male"] == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Male,race\n", "has no rows"),
        ("", "no column 'image'"),
        ("Male,race\n1,White\n", "no column 'image'"),
        ("image,Male\na.jpg,1\n", "no column 'race': it has image, Male"),
        ("image,race\na.jpg,White\n", "has no labels"),
        ("image,Male,race\na.jpg,2,White\n", "column 'Male', row 1: '2' is not a label"),
        ("image,Male,race\na.jpg,0,x\nb.jpg,-1,y\n", "both 0 and -1"),
        ("image,Male,race\nz.jpg,1,x\na.jpg,1,y\n", r"1 of 2 images do not exist.*z.jpg \(row 1"),
        ("image,Male,race\n,1,x\n", "column 'image', row 1: it is empty"),
        ("image,Male,race\na.jpg,1\n", "line 2: 2 values for 3 columns"),
        ("image,Male,Male,race\na.jpg,1,0,x\n", "same name"),
        ("image,Male,race,age\na.jpg,1,x,old\n", "column 'age', row 1: 'old' is not an age"),
        ("image,Male,race,age\na.jpg,1,x,1e10\n", "column 'age', row 1: '1e10' is not an age"),
    ],
)
def test_what_is_wrong_is_named_by_column_and_row(photos, text, message):
    with pytest.raises(UserError, match=message):
        read(write(photos, text))


def test_images_are_no_group(photos):
    with pytest.raises(UserError, match="'image' cannot be a group"):
        read(write(photos, "image,Male\na.jpg,1\n"), ["image"])


def test_files_that_are_no_table_are_refused(photos):
    with pytest.raises(UserError, match="a table must be one of"):
        read(photos / "a.jpg")
    (photos / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be read"):
        read(photos / "bad.parquet")
    (photos / "bad.csv").write_bytes(b"image,Male\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"bad\.csv is not UTF-8"):
        read(photos / "bad.csv")


def test_labels_that_the_model_lacks_are_read_to_be_named_and_all_else_is_not(photos):
    # Freckles are of no vocabulary; glasses are a group here; blurs are all unknown.
    path = write(
        photos,
        "image,Male,Wearing_Mask,Freckles,Eyeglasses,Blurry,age,identity,,fold,Bald\n"
        "a.jpg,1,0,yes,1,,1,1,0,3,maybe\n"
        "b.jpg,0,-1,,0,,0,0,1,1,1\n",
    )
    table = read(path, ["Eyeglasses"])
    assert table.pop("age") == [1, 0]
    assert table.pop("identity") == ["1", "0"]
    assert len(table.pop("image")) == 2
    assert table == {
        "Male": [True, False],
        "Wearing_Mask": [False, False],
        "Freckles": [True, None],
        "Eyeglasses": ["1", "0"],
        "Bald": [None, True],
    }


@pytest.mark.hostile
def test_a_thousand_mutations_of_tables_are_read_or_refused(photos):
    text = "image,Male,race,identity,age\na.jpg,1,White,ann,31\nb.jpg,0,Asian,bob,\nc.jpg,,,,8.5\n"
    pq.write_table(
        pa.table({"image": ["a.jpg", "b.jpg"], "Male": [1, 0], "race": ["x", "y"]}),
        photos / "people.parquet",
    )
    outcomes, refusals = [], []
    for name, content, count in (
        ("people.csv", text.encode(), 600),
        ("people.csv", b"\xff\xfe" + text.replace(",", ";").encode("utf-16-le"), 200),
        ("people.parquet", (photos / "people.parquet").read_bytes(), 200),
    ):
        for changed in mutate(content, count):
            (photos / name).write_bytes(changed)
            try:
                outcomes.append(len(read(photos / name)["image"]))
            except UserError as error:
                refusals.append(str(error))
                outcomes.append(-1)
    assert not [text for text in refusals if "\n" in text]
    assert outcomes.count(-1) > 100
    assert outcomes.count(3) > 50
