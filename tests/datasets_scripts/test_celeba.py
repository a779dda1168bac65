"""CelebA: real files, and what the program refuses."""

import shutil
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
from label2label.data.schema import dataset_features
from label2label.data.vocabulary import CELEBA_ATTRIBUTES, get_vocabulary
from label2label.faces.detection import Face, FaceDetector
from preparation import framing

from .conftest import Run, draw_jpeg, load_rows, write_celeba

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


def test_other_layouts_give_the_same_rows(celeba: Path, tmp_path: Path, run: Run):
    run("celeba", "--source", celeba, "--output", tmp_path / "torchvision")
    rows = load_rows(tmp_path / "torchvision")
    (celeba / "Anno").mkdir()
    (celeba / "Eval").mkdir()
    (celeba / "Img").mkdir()
    for path in celeba.glob("*.txt"):
        path.rename(celeba / ("Eval" if "partition" in path.name else "Anno") / path.name)
    shutil.make_archive(
        str(celeba / "Img/img_align_celeba"), "zip", celeba, base_dir="img_align_celeba"
    )
    shutil.rmtree(celeba / "img_align_celeba")
    assert run("celeba", "--source", celeba, "--output", tmp_path / "official") == 0
    assert load_rows(tmp_path / "official") == rows
    shutil.make_archive(str(tmp_path / "CelebA"), "zip", celeba)
    assert run("celeba", "--source", tmp_path / "CelebA.zip", "--output", tmp_path / "zip") == 0
    assert load_rows(tmp_path / "zip") == rows


def test_csv_files_of_kaggle_have_no_identities_and_say_so(
    celeba: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    run("celeba", "--source", celeba, "--output", tmp_path / "out")
    rows = [{**row, "identity": None} for row in load_rows(tmp_path / "out")]
    (celeba / "identity_CelebA.txt").unlink()
    for name, header in (("list_attr_celeba", 2), ("list_eval_partition", 0)):
        lines = (celeba / f"{name}.txt").read_text().splitlines()[header:]
        names = ",".join(CELEBA_ATTRIBUTES) if header else "partition"
        lines = [f"image_id,{names}", *(",".join(line.split()) for line in lines)]
        (celeba / f"{name}.csv").write_text("\n".join(lines))
        (celeba / f"{name}.txt").unlink()
    (celeba / "img_align_celeba").rename(celeba / "inner")
    (celeba / "img_align_celeba").mkdir()
    (celeba / "inner").rename(celeba / "img_align_celeba/img_align_celeba")
    assert run("celeba", "--source", celeba, "--output", tmp_path / "kaggle") == 0
    assert load_rows(tmp_path / "kaggle") == rows
    assert "holds no identities" in capsys.readouterr().err
    assert "holds no identities" in (tmp_path / "kaggle/README.md").read_text()


def test_original_photos_are_read_on_request_and_boxes_choose_the_face(
    celeba: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    def find_two(self: FaceDetector, photo: np.ndarray) -> list[Face]:
        return [Face((40.0, 40.0, 60.0, 60.0), 1.0), Face((0.0, 0.0, 20.0, 20.0), 1.0)]

    monkeypatch.setattr(FaceDetector, "__init__", lambda self: setattr(self, "name", "yunet"))
    monkeypatch.setattr(FaceDetector, "__call__", find_two)
    chosen = []
    monkeypatch.setattr(
        framing, "align_like_celeba", lambda photo, face: chosen.append(face.box) or photo
    )
    (celeba / "img_align_celeba").rename(celeba / "img_celeba")
    folders = ("--source", celeba, "--output", tmp_path / "out")
    assert run("celeba", *folders) == 2
    boxes = ["2", "image_id x_1 y_1 width height", "000001.jpg 0 0 22 24", "000002.jpg 70 90 8 9"]
    (celeba / "list_bbox_celeba.txt").write_text("\n".join(boxes))
    assert run("celeba", *folders, "--original", align=True) == 0
    assert chosen[0] == (0.0, 0.0, 20.0, 20.0)
    assert set(chosen[1:]) == {(40.0, 40.0, 60.0, 60.0)}  # nearest to the middle
    paths = [row["image"]["path"] for row in load_rows(tmp_path / "out")]
    assert [path for path in paths if "#" in path] == ["000002.jpg#unaligned"]


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
        ("list_attr_celeba.txt", 1, "12", "13", "holds 12 images, but should hold 13"),
        ("list_attr_celeba.txt", 1, "12", "many", "list_attr_celeba.txt, line 1"),
        ("list_attr_celeba.txt", 2, "Young", "Old", "list_attr_celeba.txt, line 2"),
        ("list_eval_partition.txt", 4, " 0", " 3", "list_eval_partition.txt, line 4"),
        ("list_eval_partition.txt", 2, " 0", " 1", "person 0 is in"),
        ("identity_CelebA.txt", 2, "000002", "000003", "000002.jpg has no line in identity"),
        (
            "identity_CelebA.txt",
            12,
            "000012.jpg 3",
            "",
            "000012.jpg has no line in identity",
        ),
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


@pytest.mark.parametrize("missing", ["list_attr_celeba", "list_eval_partition", "img_align_celeba"])
def test_wrong_folder_is_refused(
    celeba: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], missing: str
):
    for path in celeba.glob(f"{missing}*"):
        path.rename(celeba / "elsewhere")
    assert run("celeba", "--source", celeba, "--output", tmp_path / "out") == 2
    assert missing in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_real_images_are_framed_where_celeba_frames_them(
    shared: Path, yunet: None, tmp_path: Path, run: Run
):
    images = write_celeba(shared, tmp_path / "source", step=300)
    folders = ("--source", tmp_path / "source", "--output", tmp_path / "out")
    assert run("celeba", *folders, align=True) == 0
    rows = load_rows(tmp_path / "out")
    framed = [row["image"] for row in rows if "#" not in row["image"]["path"]]
    assert len(framed) >= 0.95 * len(images)
    likeness = []
    for image in framed:  # half the size of the official ones, but framed alike
        before = cv2.resize(framing.decode_image(images[image["path"]]), framing.CELEBA_SIZE)
        after = framing.decode_image(image["bytes"])
        assert after.shape == (218, 178, 3)
        middles = [pixels[40:180, 20:160].ravel() for pixels in (before, after)]
        likeness.append(np.corrcoef(*middles)[0, 1])
    assert np.median(likeness) > 0.8
