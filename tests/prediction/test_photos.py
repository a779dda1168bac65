"""Photos of every mode are read; what cannot be read gets one clear line."""

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from label2label.errors import UserError
from label2label.models import Label2LabelImageProcessor
from label2label.prediction.photos import convert_to_rgb, find_photos, read_photo
from PIL import Image


@pytest.fixture(scope="module")
def gradient():
    """An RGB image in which every corner has its own colour."""
    y, x = np.mgrid[0:40, 0:60]
    return Image.fromarray(np.stack([x * 4, y * 6, 255 - x * 4], axis=-1).astype(np.uint8))


def write_missing(path, image):
    return "no such file"


def write_folder(path, image):
    path.mkdir()
    return "no photos in this folder"


def write_empty(path, image):
    path.touch()
    return "empty"


def write_text(path, image):
    path.write_text("no image at all")
    return "not an image"


def write_truncated(path, image):
    image.resize((600, 400)).save(path, "JPEG")
    os.truncate(path, path.stat().st_size // 2)
    return "damaged or truncated"


def write_truncated_png(path, image):
    noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    os.truncate(path, path.stat().st_size // 2)
    return "damaged or truncated"


def write_header_only(path, image):
    image.save(path, "PNG")
    os.truncate(path, 12)
    return ""


def write_one_pixel_wide(path, image):
    image.resize((1, 300)).save(path, "PNG")
    return "1x300 pixels"


def write_bomb(path, image):
    """A PNG of 30,000 x 30,000 pixels in a few bytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    return "too many pixels"


def write_postscript(path, image):
    image.save(path, "EPS")  # Pillow would start another program to draw it
    return "not an image"


BAD_WRITERS = [
    write_missing,
    write_folder,
    write_empty,
    write_text,
    write_truncated,
    write_truncated_png,
    write_header_only,
    write_one_pixel_wide,
    write_bomb,
    write_postscript,
]


@pytest.mark.parametrize("write", BAD_WRITERS)
def test_unreadable_file_gets_one_clear_line(write, gradient, tmp_path):
    path = tmp_path / "bad.jpg"
    expected = write(path, gradient)
    with pytest.raises(UserError) as error:
        read_photo(path)
    assert expected in str(error.value)
    assert str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_file_that_is_out_of_reach_gets_one_clear_line(number, monkeypatch):
    def fail(path, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(UserError) as error:
        read_photo("photo.jpg")
    assert str(error.value) == f"cannot be read: {os.strerror(number)}"


def test_name_that_no_file_can_have_is_no_file():
    with pytest.raises(UserError, match="no such file"):
        read_photo("a\0b.jpg")


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match="not a regular file"):
        read_photo(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_mode_becomes_the_rgb_that_pillow_shows(mode, gradient, tmp_path):
    image = gradient.convert(mode)
    image.save(tmp_path / "photo.tif")
    pixels = read_photo(tmp_path / "photo.tif")
    assert pixels.shape == (40, 60, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    pixels = read_photo(tmp_path / "deep.png")
    assert np.abs(pixels[..., 0].astype(float) - values / 257).max() <= 1
    assert len(np.unique(pixels)) == 256


def test_transparency_is_white(gradient, tmp_path):
    image = gradient.convert("RGBA")
    image.putalpha(0)
    image.save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_photo_upright(orientation, gradient, tmp_path):
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = gradient if undo is None else gradient.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert (read_photo(tmp_path / "turned.png") == np.asarray(gradient)).all()


def test_photos_are_read_as_the_image_processor_reads_them(gradient):
    processor = Label2LabelImageProcessor()
    deep = Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27)
    half = gradient.convert("RGBA")
    half.putalpha(100)
    images = [gradient.convert(m) for m in ("RGB", "L", "P", "CMYK", "1", "I")] + [deep, half]
    for image in images:
        ours = np.asarray(convert_to_rgb(image))
        theirs = processor.process_image(image, do_convert_rgb=True).transpose(1, 2, 0)
        assert (ours == theirs).all(), image.mode


def test_folders_are_searched_in_order_and_hidden_files_left_out(tmp_path):
    for name in ("b.JPG", "a/deep/z.png", "a/y.webp", "notes.txt", ".hidden.jpg", ".git/x.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "odd.bin").touch()
    missing = tmp_path / "missing.jpg"
    found = find_photos([missing, tmp_path / "in", tmp_path / "odd.bin"])
    names = ["missing.jpg", "in/b.JPG", "in/a/y.webp", "in/a/deep/z.png", "odd.bin"]
    assert found == [tmp_path / name for name in names]


def test_folder_without_photos_stays_to_be_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    assert find_photos([tmp_path / "empty"]) == [tmp_path / "empty"]
