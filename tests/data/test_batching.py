"""Batches: what the processor would give, decoded once, the same in any order."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from label2label import Label2LabelImageProcessor
from label2label.data.augmentation import Augmentation
from label2label.data.batching import (
    AttributeDataset,
    batch_loader,
    label_array,
    normalize_pixels,
)
from label2label.errors import UserError
from label2label.prediction.labelled import predict_dataset
from PIL import Image

AUGMENTATION = Augmentation(flip=0.5, shift=0.1, rotation=10, color=0.3, blur=0.5, erasing=0.5)


@pytest.fixture(scope="module")
def faces() -> datasets.Dataset:
    rng = np.random.default_rng(0)
    sizes = [(109, 89), (200, 200), (90, 300), (112, 112)]
    images = [
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).resize(size[::-1])
        for size in sizes
    ]
    return datasets.Dataset.from_dict(
        {"image": images, "Male": [True, False, None, True]},
        features=datasets.Features({"image": datasets.Image(), "Male": datasets.Value("bool")}),
    )


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"image_mean": 0.4, "image_std": 0.2},
    ],
)
def test_without_augmentation_pixels_are_the_processors(faces, keep, steps):
    processor = Label2LabelImageProcessor(**steps)
    data = AttributeDataset(faces, ["Male"], processor, keep_decoded=keep)
    batch = next(iter(batch_loader(data, 4)))
    expected = processor(list(faces["image"]), return_tensors="pt")["pixel_values"]
    seen = normalize_pixels(batch["pixels"], processor)
    assert torch.allclose(seen, expected, atol=1e-5, rtol=1e-5)
    assert batch["labels"].tolist() == [[1], [0], [-100], [1]]
    assert batch["row"].tolist() == [0, 1, 2, 3]


def test_what_is_no_plain_rgb_is_converted_alike_in_training_validation_and_evaluation():
    clear = np.zeros((112, 112, 4), np.uint8)  # all transparent: white, not the black beneath
    ramp = np.full((112, 112), 128 * 257, np.uint16)  # 16 bits
    images = [Image.fromarray(clear), Image.fromarray(ramp)]
    rows = datasets.Dataset.from_dict(
        {"image": images, "Male": [True, False]},
        features=datasets.Features({"image": datasets.Image(), "Male": datasets.Value("bool")}),
    )
    processor = Label2LabelImageProcessor()
    expected = processor(images, return_tensors="pt")["pixel_values"]
    for augmentation in (None, Augmentation()):
        data = AttributeDataset(rows, ["Male"], processor, augmentation)
        seen = normalize_pixels(data.__getitems__([0, 1])["pixels"], processor)
        assert torch.allclose(seen, expected, atol=1e-5)

    class Corner(torch.nn.Module):
        def forward(self, pixel_values):
            return SimpleNamespace(logits=pixel_values[:, 0, 0, :1], query_logits=None)

    found, _ = predict_dataset(Accelerator(cpu=True), Corner(), processor, rows)
    assert found[:, 0] == pytest.approx(expected[:, 0, 0, 0].sigmoid().numpy(), abs=1e-5)


def test_kept_images_are_the_decoded_ones_and_are_decoded_once(faces, monkeypatch):
    processor = Label2LabelImageProcessor()
    plain = AttributeDataset(faces, ["Male"], processor, AUGMENTATION, seed=2)
    AttributeDataset(faces, ["Male"], processor, AUGMENTATION, seed=2, keep_decoded=True)
    monkeypatch.setattr(datasets.Image, "decode_example", None)  # a second decoding would fail
    kept = AttributeDataset(faces, ["Male"], processor, AUGMENTATION, seed=2, keep_decoded=True)
    monkeypatch.undo()
    assert torch.equal(
        plain.__getitems__([0, 1, 2, 3])["pixels"], kept.__getitems__([0, 1, 2, 3])["pixels"]
    )


def test_a_face_is_changed_the_same_way_in_any_batch_and_another_way_in_another_epoch(faces):
    data = AttributeDataset(faces, ["Male"], Label2LabelImageProcessor(), AUGMENTATION, seed=2)
    together = data.__getitems__([3, 1])["pixels"][1]
    assert torch.equal(together, data[1]["pixels"])
    data.epoch = 1
    assert not torch.equal(together, data[1]["pixels"])


def test_a_face_that_is_drawn_again_is_changed_another_way_in_any_batch(faces):
    data = AttributeDataset(faces, ["Male"], Label2LabelImageProcessor(), AUGMENTATION, seed=2)
    batch = data.__getitems__([(3, 0), (1, 0), (1, 1), (1, 2)])
    pixels = batch["pixels"]
    assert batch["row"].tolist() == [3, 1, 1, 1]
    assert torch.equal(pixels[1], data[1]["pixels"])
    assert torch.equal(pixels[2], data.__getitems__([(1, 1)])["pixels"][0])
    assert not any(torch.equal(pixels[a], pixels[b]) for a, b in [(1, 2), (1, 3), (2, 3)])


@pytest.mark.parametrize("values", [[1, 0, None], [1.0, 0.0, None]])
def test_numbers_that_are_one_or_zero_are_labels(values):
    labels = label_array(datasets.Dataset.from_dict({"Male": values}), ["Male"])
    assert labels[:, 0].tolist() == [1, 0, -100]


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


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing_behind(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    def no_room(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("label2label.data.decoding.os.replace", no_room)
    with pytest.raises(UserError, match=r"No space left on device.*keep_decoded=false") as told:
        AttributeDataset(faces, ["Male"], Label2LabelImageProcessor(), keep_decoded=True)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.rglob("*.pixels*"))
    assert not list(tmp_path.rglob(".*"))


def test_an_image_that_cannot_be_read_is_named_by_its_row(faces):
    broken = (
        faces.cast_column("image", datasets.Image(decode=False))
        .map(
            lambda row, index: {
                "image": {
                    "bytes": b"no image" if index == 2 else row["image"]["bytes"],
                    "path": None,
                }
            },
            with_indices=True,
        )
        .cast_column("image", datasets.Image())
    )
    data = AttributeDataset(broken, ["Male"], Label2LabelImageProcessor())
    with pytest.raises(UserError, match="the image in row 2 cannot be read"):
        data.__getitems__([0, 1, 2])
