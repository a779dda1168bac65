"""What visitors send is checked in memory, and refused by a code that the page has words for."""

import base64

import numpy as np
import pytest
from photos import MAX_BYTES, PhotoError, decode_data_url, encode_data_url, read_photo
from PIL import Image


def refusal(function, *arguments):
    with pytest.raises(PhotoError) as caught:
        function(*arguments)
    return caught.value.code, caught.value.values


def test_a_data_url_and_bare_base64_give_the_same_bytes():
    text = base64.b64encode(b"some bytes").decode()
    assert decode_data_url(f"data:image/png;base64,{text}") == b"some bytes"
    assert decode_data_url(text) == b"some bytes"


def test_text_that_is_no_base64_is_refused():
    assert refusal(decode_data_url, "data:image/png;base64,<b>!</b>") == ("not_an_image", {})
    assert refusal(decode_data_url, "data:image/png;base64,") == ("no_photo", {})


def test_a_request_above_the_limit_is_refused_before_it_is_decoded():
    code, values = refusal(decode_data_url, "A" * (2 * MAX_BYTES))
    assert (code, values) == ("too_many_bytes", {"limit": MAX_BYTES // 1_000_000})


def test_pixels_are_the_photos_own_and_upright(encode):
    image = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    pixels, _, animated = read_photo(encode(image, "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(image), -1))
    assert not animated


@pytest.mark.parametrize(
    ("name", "code"),
    [("not_an_image.jpg", "not_an_image"), ("hundred_megapixels.png", "too_many_pixels")],
)
def test_bad_files_are_refused_with_their_reason(photo_files, name, code):
    assert refusal(read_photo, photo_files[name].read_bytes())[0] == code


def test_a_photo_of_100_megapixels_is_told_the_limit(photo_files):
    values = refusal(read_photo, photo_files["hundred_megapixels.png"].read_bytes())[1]
    assert values == {"limit": 50}


def test_a_truncated_photo_and_a_tiny_one_are_refused(portrait, encode):
    assert refusal(read_photo, encode(portrait, "JPEG")[:2000])[0] == "not_an_image"
    assert refusal(read_photo, encode(portrait.resize((8, 8))))[0] == "too_small"
    assert refusal(read_photo, b"")[0] == "no_photo"


def test_of_an_animation_the_first_frame_is_read(photo_files, portrait):
    pixels, _, animated = read_photo(photo_files["animated.gif"].read_bytes())
    assert animated
    assert pixels.shape == (portrait.height, portrait.width, 3)
    assert np.abs(pixels.astype(int) - np.asarray(portrait)).mean() < 10  # a palette's error


def test_a_crop_survives_the_way_to_the_page_and_back():
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    pixels, *_ = read_photo(decode_data_url(encode_data_url(Image.fromarray(crop), "png")))
    np.testing.assert_array_equal(pixels, crop)
