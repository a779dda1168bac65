"""Loading: splits, labels, crops that are decoded once, and what an epoch draws."""

import io
import os
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from label2label import Label2LabelImageProcessor
from label2label.cli import main
from label2label.data import loading
from label2label.data.loading import (
    FaceCrops,
    attribute_frequencies,
    crop_with_margin,
    draw_epoch,
    draw_probabilities,
    label_array,
    load_split,
    normalize_pixels,
)
from label2label.errors import UserError
from label2label.evaluation.evaluate import predict_dataset
from label2label.prediction.backends import TorchBackend
from PIL import Image

SOURCES = np.array([0] * 60 + [1] * 40)
GROUPS = np.array([-1] * 60 + [0] * 30 + [1] * 8 + [2] * 2)
FEATURES = datasets.Features({"image": datasets.Image(), "Male": datasets.Value("bool")})


@pytest.fixture(scope="module")
def faces() -> datasets.Dataset:
    rng = np.random.default_rng(0)
    sizes = [(109, 89), (200, 200), (90, 300), (112, 112)]
    noise = [Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)) for _ in sizes]
    images = [image.resize(size[::-1]) for image, size in zip(noise, sizes, strict=True)]
    rows = {"image": images, "Male": [True, False, None, True]}
    return datasets.Dataset.from_dict(rows, features=FEATURES)


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    "steps",
    [{}, {"do_normalize": False}, {"do_rescale": False}, {"image_mean": 0.4, "image_std": 0.2}],
)
def test_crops_that_are_not_augmented_are_the_processors(faces, cache, steps):
    processor = Label2LabelImageProcessor(**steps)
    crops = FaceCrops(faces, processor, cache=cache, threads=2)
    expected = processor(list(faces["image"]), return_tensors="pt")["pixel_values"]
    seen = normalize_pixels(crops.batch(np.arange(4)), processor)
    assert torch.allclose(seen, expected, atol=1e-5, rtol=1e-5)


def test_what_is_no_plain_rgb_is_converted_alike_in_training_validation_and_evaluation():
    clear = np.zeros((112, 112, 4), np.uint8)  # all transparent: white, not the black beneath
    ramp = np.full((112, 112), 128 * 257, np.uint16)  # 16 bits
    images = [Image.fromarray(clear), Image.fromarray(ramp)]
    rows = datasets.Dataset.from_dict({"image": images, "Male": [True, False]}, features=FEATURES)
    processor = Label2LabelImageProcessor()
    expected = processor(images, return_tensors="pt")["pixel_values"]
    plain = FaceCrops(rows, processor).batch(np.arange(2))
    assert torch.allclose(normalize_pixels(plain, processor), expected, atol=1e-5)
    augmented = FaceCrops(rows, processor, augmented=True).batch(np.arange(2))
    assert augmented.flatten(1).float().std(dim=1).max() == 0
    assert augmented[:, 0, 0, 0].tolist() == [255, 128]

    class Corner(torch.nn.Module):
        config = SimpleNamespace(head_type="fc", num_labels=1, id2label={0: "Male"})

        def forward(self, pixel_values):
            return SimpleNamespace(logits=pixel_values[:, 0, 0, :1], query_logits=None)

    model = TorchBackend(Corner(), processor)
    found, _ = predict_dataset(Accelerator(cpu=True), model, rows)
    assert found[:, 0] == pytest.approx(expected[:, 0, 0, 0].sigmoid().numpy(), abs=1e-5)


@pytest.mark.parametrize("size", [(218, 178), (89, 109), (112, 112), (500, 100), (100, 500)])
def test_a_margin_is_what_the_image_has_and_then_its_edge(size):
    image = np.mgrid[0 : size[0], 0 : size[1]].transpose(1, 2, 0)
    image = np.dstack([image * [[[255 / size[0], 255 / size[1]]]], 0 * image[..., :1]])
    crop = crop_with_margin(image.astype(np.uint8), 140, 168)
    assert crop.shape == (168, 140, 3)
    assert np.abs(crop[84, 70, :2].astype(int) - 127).max() <= 3
    # One pixel of the crop is so many of the image.
    step = min(size) / 140
    inside = min(168, round(size[0] / step))
    rows = crop[:, 70, 0].astype(float)
    assert (rows.max() - rows.min()) == pytest.approx(255 * inside * step / size[0], abs=6)
    if inside < 167:
        assert (crop[0] == crop[1]).all()


def test_crops_are_decoded_once_and_kept_as_one_file(faces, monkeypatch):
    processor = Label2LabelImageProcessor()
    plain = FaceCrops(faces, processor, augmented=True).batch(np.array([3, 1, 1]))
    FaceCrops(faces, processor, augmented=True, cache=True)
    monkeypatch.setattr(loading, "load_image", None)  # a second decoding would fail
    kept = FaceCrops(faces, processor, augmented=True, cache=True)
    assert kept.pixels.shape == (4, 168, 140, 3)
    assert torch.equal(plain, kept.batch(np.array([3, 1, 1])))
    kept.move(torch.device("cpu"))  # where they lie already
    assert kept.pixels.device.type == "cpu"


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing_behind(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    def no_room(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("label2label.data.loading.os.replace", no_room)
    with pytest.raises(UserError, match=r"No space left on device.*cache_pixels=false") as told:
        FaceCrops(faces, Label2LabelImageProcessor(), cache=True)
    assert "\n" not in str(told.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_blamed_and_not_the_dataset(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file/cache")
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="cache of datasets cannot be written; set HF_HOME") as told:
        load_split(tmp_path / "data", "train")
    assert str(tmp_path / "data") not in str(told.value)


def write(folder, column, **labels) -> str:
    """A dataset whose training split has a column `image` as it is given."""
    (folder / "data").mkdir(parents=True)
    table = pa.table({"image": column, **labels})
    pq.write_table(table, folder / "data/train-00000-of-00001.parquet")
    return str(folder)


def test_images_may_be_bytes_or_paths(tmp_path):
    image = np.full((32, 32, 3), 99, np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(image))
    path = str(tmp_path / "a.png")
    columns = {
        "bytes": [{"bytes": encoded(image), "path": "a.png"}],
        "paths": [{"bytes": None, "path": path}],
        "text": [path],
        "cast": datasets.Dataset.from_dict({"image": [path]}, features=None).data.column("image"),
    }
    for name, column in columns.items():
        rows = load_split(write(tmp_path / name, column), "train")
        assert isinstance(rows.features["image"], datasets.Image)
        crop = FaceCrops(rows, Label2LabelImageProcessor()).batch(np.array([0]))
        assert (crop == 99).all()
    # as `Dataset.to_parquet` writes images that were given by path
    rows = datasets.Dataset.from_dict({"image": [path]}).cast_column("image", datasets.Image())
    (tmp_path / "written/data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "written/data/train-00000-of-00001.parquet")
    read = load_split(tmp_path / "written", "train")
    assert (FaceCrops(read, Label2LabelImageProcessor()).batch(np.array([0])) == 99).all()


@pytest.mark.parametrize("column", [[1, 2], [{"bytes": 5, "path": "x"}]])
def test_a_column_that_holds_no_images_ends_in_one_line(tmp_path, column):
    with pytest.raises(UserError, match="column 'image' holds no images or paths") as told:
        load_split(write(tmp_path, column), "train")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("bad", [b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n" * 9, b"", None])
def test_an_image_that_cannot_be_read_is_named_by_its_row(bad):
    good = encoded(np.zeros((32, 32, 3), np.uint8))
    rows = [{"bytes": good, "path": None}, {"bytes": bad, "path": None}]
    crops = FaceCrops(datasets.Dataset.from_dict({"image": rows}), Label2LabelImageProcessor())
    with pytest.raises(UserError, match="the image in row 1 cannot be read"):
        crops.batch(np.array([0, 1]))


def test_a_pipe_in_place_of_an_image_does_not_wait_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    rows = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": str(tmp_path / "a.png")}]})
    with pytest.raises(UserError, match=r"a\.png \(row 0\) cannot be read: not a regular file"):
        FaceCrops(rows, Label2LabelImageProcessor()).batch(np.array([0]))


@pytest.mark.parametrize("values", [[1, 0, None], [1.0, 0.0, None], [True, False, None]])
def test_numbers_that_are_one_or_zero_are_labels(values):
    for rows in (datasets.Dataset.from_dict({"Male": values}), {"Male": values}):
        assert label_array(rows, ["Male"])[:, 0].tolist() == [1, 0, -100]


def test_an_attribute_is_read_from_its_opposite():
    rows = {"No_Beard": [True, False, None]}
    assert label_array(rows, ["Beard"]).tolist() == [[0], [1], [-100]]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, -1], "holds -1"),
        ([0, None, -100], "holds -100"),
        ([0.5, 1.0], "holds 0.5"),
        ([1.0, float("nan")], "holds nan"),
        (["true", "no"], "type string"),
        ([[True], [False]], "type list"),
    ],
)
def test_what_is_no_boolean_is_no_label(values, told):
    with pytest.raises(UserError, match=f"column 'Male' must hold booleans.*{told}"):
        label_array(datasets.Dataset.from_dict({"Male": values}), ["Male"])


def test_frequencies_count_known_labels_only():
    labels = np.array([[1, -100, -100], [0, 1, -100], [0, 1, -100]])
    assert attribute_frequencies(labels).tolist() == pytest.approx([2 / 5, 3 / 4, 0.5])


def test_a_packed_dataset_holds_the_same_rows_as_crops_in_small_parts(
    faces, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "faces"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("Terms: none.\n")
    for split in ("train", "validation"):
        faces.to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    monkeypatch.setattr(loading, "CACHED_AT_ONCE", 2)
    monkeypatch.setattr(loading, "PART_BYTES", 1)
    packed = tmp_path / "packed"
    arguments = ["pack", "--data", str(folder), "--output", str(packed)]
    assert main(arguments) == 0
    assert "8 images" in capsys.readouterr().out
    names = sorted(path.name for path in (packed / "data").iterdir())
    assert names == [f"{s}-0000{i}.parquet" for s in ("train", "validation") for i in (0, 1)]
    assert (packed / "README.md").read_text() == "Terms: none.\n"
    rows = load_split(packed, "train")
    assert rows["Male"] == faces["Male"]
    assert {image.size for image in rows["image"]} == {(140, 168)}
    processor = Label2LabelImageProcessor()
    before, after = (
        FaceCrops(part, processor, augmented=True).batch(np.arange(4)).float()
        for part in (faces, rows)
    )
    assert (before - after).abs().mean() < 2
    assert main(arguments) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [("empty", "is not a prepared dataset"), ("missing", "no such folder"), ("file", "is a file")],
)
def test_only_a_prepared_dataset_is_packed_and_other_data_end_in_one_line(
    tmp_path, capsys, name, told
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    data = str(tmp_path / name)
    assert main(["pack", "--data", data, "--output", str(tmp_path / "packed")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert data in lines[0]
    assert told in lines[0]
    assert "datasets_scripts/" in lines[0]


def test_without_probabilities_every_image_comes_once():
    rows, occurrences = draw_epoch(50, seed=3, epoch=0)
    assert sorted(rows) == list(range(50))
    assert not occurrences.any()
    assert not np.array_equal(draw_epoch(50, 3, 1)[0], rows)


def test_an_image_comes_as_often_as_its_probability_says():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(200))
    for epoch in range(5):
        rows, occurrences = draw_epoch(200, 1, epoch, probabilities)
        counts = np.bincount(rows, minlength=200)
        assert len(set(zip(rows, occurrences, strict=True))) == 200
        assert occurrences.max() == counts.max() - 1
        assert counts.sum() == 200
        assert (np.abs(counts - 200 * probabilities) < 1).all()


def test_groups_are_drawn_equally_often_and_the_rest_keeps_its_share():
    probabilities = draw_probabilities(SOURCES, [None, None], GROUPS)
    mass = [probabilities[group == GROUPS].sum() for group in (-1, 0, 1, 2)]
    assert mass == pytest.approx([0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3])
    drawn = np.bincount(GROUPS[draw_epoch(100, 0, 0, probabilities)[0]] + 1)
    assert np.abs(drawn - 100 * np.array(mass)).max() <= 8


def test_shares_are_kept_and_the_others_divide_what_is_left():
    sources = np.array([0] * 30 + [1] * 10 + [2] * 5)
    probabilities = draw_probabilities(sources, [None, None, 0.5])
    mass = [probabilities[sources == source].sum() for source in range(3)]
    assert mass == pytest.approx([0.375, 0.125, 0.5])
    assert draw_probabilities(sources, [None, None, None]) is None


def test_a_group_of_a_source_without_a_share_is_not_drawn():
    sources = np.array([0] * 60 + [1] * 30 + [2] * 10)
    probabilities = draw_probabilities(sources, [None, None, 0], GROUPS)
    mass = [probabilities[group == GROUPS].sum() for group in (-1, 0, 1, 2)]
    assert mass == pytest.approx([2 / 3, 1 / 3, 0, 0])


@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.8, 0.4], [1.0, None]])
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(ValueError, match="not to 1"):
        draw_probabilities(SOURCES, shares)
