"""The image processor: any image people have, the same crop, the same numbers."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from label2label import Label2LabelImageProcessor
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


@pytest.fixture
def processor() -> Label2LabelImageProcessor:
    return Label2LabelImageProcessor()


@pytest.fixture
def rgb() -> np.ndarray:
    """A smooth colour image of 112x112 pixels."""
    rows, columns = np.mgrid[0:112, 0:112]
    return np.stack([rows * 2, columns * 2, (rows + columns)], axis=-1).astype(np.uint8)


def pixels(processor, image, **kwargs) -> np.ndarray:
    """What the model sees, back in 0..255."""
    values = processor(image, return_tensors="np", **kwargs)["pixel_values"][0]
    return (values.transpose(1, 2, 0) * STD + MEAN) * 255


def test_a_square_of_112_pixels_is_only_normalised(processor, rgb):
    assert np.allclose(pixels(processor, Image.fromarray(rgb)), rgb, atol=1e-3)


def test_celebas_crop_is_its_middle_square(processor):
    image = np.zeros((218, 178, 3), np.uint8)
    image[20:198] = 200  # the middle square
    crop = pixels(processor, Image.fromarray(image))
    assert crop.shape == (112, 112, 3)
    assert np.allclose(crop[3:-3], 200, atol=1)


def test_numpy_and_torch_images_equal_pil_ones(processor, rgb):
    expected = pixels(processor, Image.fromarray(rgb))
    for image in (
        rgb,
        rgb.transpose(2, 0, 1),
        torch.from_numpy(rgb),
        torch.from_numpy(rgb.transpose(2, 0, 1).copy()),
        rgb.astype(np.float32) / 255,
        torch.from_numpy(rgb).double() / 255,
        rgb.astype(np.uint16) * 257,
        rgb.astype(np.int64),
        (torch.from_numpy(rgb) / 255).requires_grad_(),
    ):
        assert np.allclose(pixels(processor, image), expected, atol=1e-3)
    half = (torch.from_numpy(rgb) / 255).bfloat16()  # eight bits of precision
    assert np.allclose(pixels(processor, half), expected, atol=1.01)


def test_floats_whose_rescaling_a_call_turns_off_stay_in_0_to_1(processor, rgb):
    large = np.kron(rgb, np.ones((2, 2, 1), np.uint8))
    expected = pixels(processor, large)
    assert np.allclose(pixels(processor, large / 255, do_rescale=False), expected, atol=1e-3)


def test_a_list_and_a_batched_tensor_give_a_batch(processor, rgb):
    batch = torch.from_numpy(np.stack([rgb, 255 - rgb]))
    for images in ([Image.fromarray(rgb), Image.fromarray(255 - rgb)], batch):
        assert processor(images, return_tensors="pt")["pixel_values"].shape == (2, 3, 112, 112)


def test_gray_images_have_equal_channels(processor, rgb):
    gray = rgb[..., 0]
    for image in (gray, gray[..., None], gray[None], Image.fromarray(gray), torch.from_numpy(gray)):
        crop = pixels(processor, image)
        assert np.allclose(crop, gray[..., None], atol=1e-3)


def test_transparency_is_laid_over_white(processor, rgb):
    alpha = np.full((112, 112, 1), 255, np.uint8)
    alpha[:56] = 0
    rgba = np.concatenate([rgb, alpha], axis=-1)
    for image in (rgba, Image.fromarray(rgba), torch.from_numpy(rgba.transpose(2, 0, 1).copy())):
        crop = pixels(processor, image)
        assert np.allclose(crop[:56], 255, atol=1e-3)
        assert np.allclose(crop[56:], rgb[56:], atol=1e-3)


def test_sixteen_bit_images_keep_their_range(processor, rgb):
    wide = rgb[..., 0].astype(np.uint16) * 257
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")
    for image in (Image.open(buffer), Image.fromarray(wide.astype(np.int32))):
        assert np.allclose(pixels(processor, image), rgb[..., :1], atol=1.01)


@pytest.mark.parametrize("mode", ["CMYK", "P", "LA", "1", "YCbCr", "HSV", "F"])
def test_other_modes_become_rgb(processor, rgb, mode):
    image = Image.fromarray(rgb).convert("L" if mode in ("LA", "F") else "RGB").convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.allclose(pixels(processor, image), expected, atol=2)


def test_exif_orientation_is_applied(processor, rgb):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.fromarray(rgb).save(buffer, "PNG", exif=exif)
    crop = pixels(processor, Image.open(buffer))
    assert np.allclose(crop, np.rot90(rgb, -1), atol=1e-3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((9, 9, 3), 300, np.int64), "0..255"),
        (np.full((9, 9, 3), -0.5), "0..1"),
        (np.full((9, 9, 3), np.nan), "0..1"),
    ],
)
def test_values_out_of_range_are_refused(processor, image, message):
    with pytest.raises(ValueError, match=message):
        processor(image)


def test_one_pixel_is_an_image(processor):
    assert processor(Image.new("RGB", (1, 1)), return_tensors="pt")["pixel_values"].isfinite().all()


def test_the_template_survives_saving(processor, tmp_path):
    processor.alignment_template = [[1.0, 2.0]] * 5
    processor.save_pretrained(tmp_path)
    again = Label2LabelImageProcessor.from_pretrained(tmp_path)
    assert again.alignment_template == [[1.0, 2.0]] * 5
    assert Label2LabelImageProcessor().alignment_template[0] == [44.11, 58.10]


def test_attributes_are_decided_by_the_stored_thresholds(tmp_path):
    Label2LabelImageProcessor(attributes=["Young", "Bald"], thresholds=[0.9, 0.2]).save_pretrained(
        tmp_path
    )
    processor = Label2LabelImageProcessor.from_pretrained(tmp_path)
    outputs = SimpleNamespace(logits=torch.logit(torch.tensor([[0.3, 0.3], [0.95, 0.1]])))
    first, second = processor.post_process_attributes(outputs)
    assert list(first) == ["Young", "Bald"]
    assert first["Bald"] == {"probability": pytest.approx(0.3), "present": True}
    assert first["Young"] == {"probability": pytest.approx(0.3), "present": False}
    assert [second[name]["present"] for name in second] == [True, False]


def test_one_threshold_can_stand_for_all():
    processor = Label2LabelImageProcessor(attributes=["Young", "Bald"], thresholds=[0.9, 0.2])
    outputs = SimpleNamespace(logits=np.array([[1.0, -1.0]]))
    (decisions,) = processor.post_process_attributes(outputs, threshold=0.5)
    assert [d["present"] for d in decisions.values()] == [True, False]


def test_without_stored_thresholds_names_come_from_the_config(processor):
    outputs = SimpleNamespace(logits=np.array([[-800.0, 800.0]]))
    (decisions,) = processor.post_process_attributes(outputs, id2label={0: "Bald", 1: "Young"})
    assert decisions["Bald"] == {"probability": 0.0, "present": False}
    assert decisions["Young"] == {"probability": 1.0, "present": True}
    with pytest.raises(ValueError, match="give id2label="):
        processor.post_process_attributes(outputs)


def test_given_names_win_and_keep_their_stored_thresholds():
    processor = Label2LabelImageProcessor(attributes=["Young", "Bald"], thresholds=[0.9, 0.2])
    outputs = SimpleNamespace(logits=np.zeros((1, 3)))
    names = {0: "Bald", 1: "Tall", 2: "Young"}
    (decisions,) = processor.post_process_attributes(outputs, id2label=names)
    assert {name: d["present"] for name, d in decisions.items()} == {
        "Bald": True,
        "Tall": True,
        "Young": False,
    }


def test_names_of_the_config_are_taken_by_their_number(processor):
    outputs = SimpleNamespace(logits=np.array([[-800.0] * 10 + [800.0]]))
    names = {str(i): f"a{i}" for i in (0, 1, 10, *range(2, 10))}
    for id2label in (names, {int(i): name for i, name in names.items()}):
        (decisions,) = processor.post_process_attributes(outputs, id2label=id2label)
        assert list(decisions) == [f"a{i}" for i in range(11)]
        assert decisions["a10"]["present"]


def test_logits_of_other_attributes_are_refused():
    processor = Label2LabelImageProcessor(attributes=["Young", "Bald"], thresholds=[0.9, 0.2])
    with pytest.raises(ValueError, match=r"\(batch, 2\), got \(1, 3\)"):
        processor.post_process_attributes(SimpleNamespace(logits=np.zeros((1, 3))))
