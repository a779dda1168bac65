import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label2label.data.label_table import read_label_table
from label2label.errors import UserError

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
    return read_label_table(path, ATTRIBUTES, groups)


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
    assert table.images == [photos / f"{name}.jpg" for name in "abc"]
    assert table.labels == {
        "Male": [True, False, False],
        "No_Beard": [True, False, None],
        "Smiling": [None, None, True],
    }
    assert table.groups == {"race": ["White", "Asian", None]}
    assert table.identities == ["ann", "bob", None]
    assert table.ages == [31, 8, None]


def test_parquet_holds_values_of_its_own_types_and_images(photos):
    path = photos / "people.parquet"
    columns = {
        "image": [{"bytes": b"encoded", "path": None}, {"bytes": None, "path": "b.jpg"}],
        "Male": [True, None],
        "Smiling": [1, 0],
        "race": ["White", None],
    }
    pq.write_table(pa.table(columns), path)
    table = read(path)
    assert table.images == [b"encoded", photos / "b.jpg"]
    assert table.labels == {"Male": [True, None], "Smiling": [True, False]}
    assert table.groups == {"race": ["White", None]}


def test_tabs_separate_the_values_of_a_tsv(photos):
    table = read(write(photos, "image\tMale\trace\na.jpg\t1\tWhite\n", "people.tsv"))
    assert table.labels == {"Male": [True]}


def test_a_group_may_be_an_attribute_or_the_age(photos):
    path = write(photos, "image,Male,age\na.jpg,1,20\nb.jpg,0,30\n")
    assert read(path, ["age"]).groups == {"age": [20, 30]}
    assert read(path, ["Male"]).groups == {"Male": ["1", "0"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,Male,race\n", "has no rows"),
        ("", "no column 'image'"),
        ("Male,race\n1,White\n", "no column 'image'"),
        ("image,Male\na.jpg,1\n", "no column 'race': it has image, Male"),
        ("image,race\na.jpg,White\n", "has no labels"),
        ("image,Male,race\na.jpg,2,White\n", "column 'Male', row 1: '2' is no label"),
        ("image,Male,race\na.jpg,0,x\nb.jpg,-1,y\n", "both 0 and -1"),
        ("image,Male,race\nz.jpg,1,x\na.jpg,1,y\n", r"1 of 2 images do not exist.*z.jpg \(row 1"),
        ("image,Male,race\n,1,x\n", "column 'image', row 1: it is empty"),
        ("image,Male,race\na.jpg,1\n", "line 2: 2 values for 3 columns"),
        ("image,Male,Male,race\na.jpg,1,0,x\n", "same name"),
        ("image,Male,race,age\na.jpg,1,x,old\n", "column 'age', row 1: 'old' is no age"),
    ],
)
def test_what_is_wrong_is_named_by_column_and_row(photos, text, message):
    with pytest.raises(UserError, match=message):
        read(write(photos, text))


def test_images_are_no_group(photos):
    with pytest.raises(UserError, match="'image' is no group"):
        read(write(photos, "image,Male\na.jpg,1\n"), ["image"])


def test_files_that_are_no_table_are_refused(photos):
    with pytest.raises(UserError, match="a table must be one of"):
        read(photos / "a.jpg")
    (photos / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be read"):
        read(photos / "bad.parquet")
    (photos / "bad.csv").write_bytes(b"image,Male\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"bad\.csv cannot be read"):
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
    assert table.labels == {
        "Male": [True, False],
        "Wearing_Mask": [False, False],
        "Freckles": [True, None],
        "Bald": [None, True],
    }
