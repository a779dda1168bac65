"""Photos of every mode are read; what cannot be read gets one clear line."""

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from label2label.data import images
from label2label.data.images import convert_to_rgb, load_image
from label2label.errors import UserError
from label2label.models import Label2LabelImageProcessor
from label2label.prediction.photos import find_photos, load_photo, read_photo
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
        ours = convert_to_rgb(image)
        theirs = processor.process_image(image, do_convert_rgb=True).transpose(1, 2, 0)
        assert (ours == theirs).all(), image.mode


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("highest", [1.0, 255.0, 65535.0])
def test_float_tiff_is_scaled_by_its_range(highest):
    values = np.linspace(0, highest, 40 * 60, dtype=np.float32).reshape(40, 60)
    pixels = read_photo(encode(Image.fromarray(values), "TIFF"))
    assert np.abs(pixels[..., 1] - values * (255 / highest)).max() <= 1


def test_floats_of_another_range_are_refused():
    values = np.linspace(-1, 1e6, 40 * 60, dtype=np.float32).reshape(40, 60)
    with pytest.raises(UserError, match="floats from -1 to 1e"):
        read_photo(encode(Image.fromarray(values), "TIFF"))


def test_heic_is_read_or_its_extra_is_named(gradient, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    encoded = io.BytesIO()
    pillow_heif.from_pillow(gradient.resize((120, 80))).save(encoded, quality=95)
    pixels = read_photo(encoded.getvalue())
    assert np.abs(pixels.astype(int) - np.asarray(gradient.resize((120, 80)))).mean() < 5
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        UserError, match=r"pillow-heif: install label2label with its extra \[heic\]"
    ):
        read_photo(encoded.getvalue())


def test_jpeg_beyond_the_limit_is_decoded_at_reduced_size(gradient, monkeypatch):
    encoded = encode(gradient.resize((600, 400)), "JPEG", quality=95)
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    large = load_image(encoded)
    assert large.pixels.shape == (200, 300, 3)
    assert large.size == (600, 400)
    reduced = np.asarray(gradient.resize((300, 200))).astype(int)
    assert np.abs(large.pixels - reduced).mean() < 3
    with pytest.raises(UserError, match="600x400: too many pixels"):
        load_image(encode(gradient.resize((600, 400)), "PNG"))


@pytest.mark.parametrize(("subsampling", "width"), [(0, 300), (2, 600)])
def test_progressive_jpeg_of_many_coefficients_is_decoded_at_half_its_sides(
    subsampling, width, gradient, monkeypatch
):
    options = {"progressive": True, "subsampling": subsampling}
    encoded = encode(gradient.resize((600, 400)), "JPEG", **options)
    monkeypatch.setattr(images, "MAX_COEFFICIENT_BYTES", 1_000_000)
    assert load_image(encoded).pixels.shape[1] == width
    assert load_image(encode(gradient.resize((600, 400)), "JPEG")).pixels.shape[1] == 600


def test_jpeg_of_200_megapixels_is_read(tmp_path):
    Image.new("L", (20_000, 10_000), 77).save(tmp_path / "huge.jpg")
    photo = load_photo(tmp_path / "huge.jpg")
    assert photo.size == (20_000, 10_000)
    assert photo.pixels.shape == (5_000, 10_000, 3)


def test_reduced_decoding_keeps_the_pixels_that_are_enough_and_the_orientation(gradient):
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(gradient.resize((1200, 800)), "JPEG", exif=exif)
    photo = load_image(encoded, enough=60_000)
    assert photo.size == (800, 1200)
    assert photo.pixels.shape == (300, 200, 3)
    assert load_image(encoded, enough=60_001).pixels.shape == (600, 400, 3)


def test_photo_with_damaged_exif_is_read(gradient):
    exif = Image.Exif()
    exif[0x0112] = 1
    encoded = encode(gradient, "JPEG", exif=exif)
    at = encoded.index(b"Exif\0\0") + 6
    damaged = encoded[: at + 4] + b"\xff\xff\xff\x7f" + encoded[at + 8 :]
    assert read_photo(damaged).shape == (40, 60, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM"])
def test_damaged_images_end_in_the_one_error(kind, gradient):
    random = np.random.default_rng(0)
    whole = np.frombuffer(encode(gradient, kind), np.uint8)
    refused = 0
    for _ in range(125):
        mutant = whole.copy()
        places = random.integers(0, len(mutant), random.integers(1, 9))
        mutant[places] = random.integers(0, 256, len(places))
        if random.random() < 0.2:
            mutant = mutant[: random.integers(1, len(mutant))]
        try:
            pixels = read_photo(mutant.tobytes())
        except UserError:
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
    assert refused


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read memory from")
@pytest.mark.parametrize(
    ("mode", "size", "kind", "options"),
    [
        ("RGB", (8064, 6048), "JPEG", {}),
        ("RGB", (8064, 6048), "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGB", (14000, 12000), "JPEG", {}),
        ("RGBA", (8000, 6000), "PNG", {"compress_level": 1}),
        ("I;16", (8000, 6000), "PNG", {"compress_level": 1}),
    ],
)
def test_largest_photos_take_less_than_600_megabytes(mode, size, kind, options, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, size).save(tmp_path / "photo", kind, exif=exif, **options)
    program = (
        "import sys; from label2label.prediction.photos import read_photo; read_photo(sys.argv[1]);"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"  # kilobytes
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "photo"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600_000


@pytest.mark.parametrize(
    "photo", [5, None, np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3)), ["photo.jpg"]]
)
def test_what_is_no_photo_is_a_type_error(photo):
    with pytest.raises(TypeError, match="uint8 RGB"):
        load_photo(photo)


def test_paths_bytes_images_and_arrays_are_the_same_photo(gradient, tmp_path):
    gradient.save(tmp_path / "photo.png")
    encoded = (tmp_path / "photo.png").read_bytes()
    path = tmp_path / "photo.png"
    for photo in (path, str(path), encoded, bytearray(encoded), gradient, np.asarray(gradient)):
        assert (read_photo(photo) == np.asarray(gradient)).all()


def test_folders_are_searched_in_order_and_hidden_files_left_out(tmp_path):
    for name in ("b.JPG", "a/deep/z.png", "a/y.webp", "notes.txt", ".hidden.jpg", ".git/x.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "odd.bin").touch()
    missing = tmp_path / "missing.jpg"
    found = list(find_photos([missing, tmp_path / "in", tmp_path / "odd.bin"]))
    names = ["missing.jpg", "in/b.JPG", "in/a/y.webp", "in/a/deep/z.png", "odd.bin"]
    assert found == [tmp_path / name for name in names]


def test_folder_without_photos_stays_to_be_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    assert [*find_photos([tmp_path / "empty"])] == [tmp_path / "empty"]
