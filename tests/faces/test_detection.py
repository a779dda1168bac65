"""Faces of every size are found; without YuNet's file the cascade stands in."""

import hashlib
import time
import warnings
from unittest.mock import Mock

import numpy as np
import pytest
from label2label.errors import UserError
from label2label.faces import detection
from label2label.faces.detection import (
    DETECTOR_VARIABLE,
    Face,
    FaceDetector,
    find_detector_file,
    keep_distinct_faces,
)
from PIL import Image

FACE = (183, 120, 353, 333)  # of the portrait, as a person would draw it


def crop_face(portrait, size):
    """The portrait's face, filling an image of `size`."""
    x0, y0, x1, y1 = FACE
    return np.asarray(Image.fromarray(portrait[y0 - 10 : y1 + 10, x0 - 10 : x1 + 10]).resize(size))


def test_portrait_has_one_face_with_landmarks_in_order(yunet, portrait):
    (face,) = yunet(portrait)
    assert np.allclose(face.box, FACE, atol=12)
    assert 0.8 < face.score <= 1
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize("size", [(48, 59), (89, 109), (112, 112), (400, 490), (1500, 1840)])
def test_face_that_fills_the_image_is_found_at_any_size(yunet, portrait, size):
    (face,) = yunet(crop_face(portrait, size))
    width, height = size
    x0, y0, x1, y1 = face.box
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert (x1 - x0) * (y1 - y0) > 0.5 * width * height


def test_aligned_training_crops_are_found(yunet, shared):
    import io
    import zipfile

    with zipfile.ZipFile(shared / "data" / "celeba" / "img_align_celeba.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")][:40]
        photos = [np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in names]
    found = [len(yunet(photo)) for photo in photos]
    assert photos[0].shape == (109, 89, 3)
    assert sum(count >= 1 for count in found) >= 39


def test_small_faces_in_a_large_photo_are_found_from_left_to_right(yunet, portrait):
    crowd = np.full((1400, 2400, 3), 128, np.uint8)
    small = np.asarray(Image.fromarray(portrait).resize((128, 150)))
    places = [(1900, 900), (300, 200), (1100, 700)]
    for x, y in places:
        crowd[y : y + 150, x : x + 128] = small
    faces = yunet(crowd)
    assert len(faces) == 3
    for face, (x, y) in zip(faces, sorted(places), strict=True):
        expected = np.array(FACE) * 0.25 + [x, y, x, y]
        assert np.allclose(face.box, expected, atol=8)


def test_face_seen_at_two_sizes_is_one_face(yunet, portrait):
    large = np.asarray(Image.fromarray(portrait).resize((1536, 1800)))
    (face,) = yunet(large)
    assert np.allclose(np.array(face.box) / 3, FACE, atol=16)


def test_photo_without_a_face_has_none(yunet):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert yunet(noise) == []
    assert yunet(np.zeros((20, 3000, 3), np.uint8)) == []


@pytest.mark.parametrize("size", [(20, 3000), (3000, 20), (16, 16), (1, 40)])
def test_strip_has_no_faces(yunet, size):
    assert yunet(np.zeros((*size, 3), np.uint8)) == []


@pytest.mark.parametrize("degrees", [45, 90, 135, 180, 270, 315])
def test_turned_face_is_found_and_its_landmarks_turn_with_it(yunet, portrait, degrees):
    (upright,) = yunet(portrait)
    turned = Image.fromarray(portrait).rotate(-degrees, expand=True)
    (face,) = yunet(np.asarray(turned))
    assert abs((face.roll - upright.roll - degrees + 180) % 360 - 180) < 8
    a = np.deg2rad(degrees)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    middle = np.array(portrait.shape[1::-1]) / 2
    expected = (upright.landmarks - middle) @ rotation.T + np.array(turned.size) / 2
    assert np.abs(face.landmarks - expected).max() < 0.08 * upright.size


def test_flaws_tell_what_makes_an_answer_less_sure(yunet, portrait):
    (face,) = yunet(portrait)
    height, width = portrait.shape[:2]
    assert face.find_flaws(width, height) == []
    assert abs(face.yaw) < 20
    (small,) = yunet(np.asarray(Image.fromarray(portrait).resize((64, 75))))
    assert small.find_flaws(64, 75) == ["small"]
    cut = portrait[:, 250:]
    (face,) = yunet(cut)
    assert "cut" in face.find_flaws(cut.shape[1], cut.shape[0])


def test_yaw_follows_a_head_that_turns():
    head = np.array([[-30, 0, 20], [30, 0, 20], [0, 35, 56], [-25, 70, 20], [25, 70, 20]])
    for degrees in (-60, -30, 0, 30, 60):
        a = np.deg2rad(degrees)
        turned = np.stack([head[:, 0] * np.cos(a) + head[:, 2] * np.sin(a), head[:, 1]], axis=1)
        face = Face((0, 0, 100, 100), 1.0, turned)
        assert abs(face.yaw - degrees) < 1


@pytest.mark.parametrize("size", [(2400, 1800), (9000, 700)])
def test_faces_of_40_pixels_are_found_in_large_photos(yunet, portrait, size):
    width, height = size
    photo = np.full((height, width, 3), 120, np.uint8)
    small = np.asarray(Image.fromarray(portrait).resize((104, 122), Image.Resampling.BOX))
    places = [(x, (7 * x) % (height - 130)) for x in range(50, width - 110, 400)]
    for x, y in places:
        photo[y : y + 122, x : x + 104] = small
    faces = yunet(photo)
    assert len(faces) == len(places)
    assert all(25 < face.size < 50 for face in faces)


def test_large_canvases_are_searched_in_tiles_and_faces_on_their_seams_once(
    yunet, portrait, monkeypatch
):
    photo = np.full((900, 1200, 3), 120, np.uint8)
    small = np.asarray(Image.fromarray(portrait).resize((104, 122), Image.Resampling.BOX))
    for x in range(20, 1080, 150):
        photo[x // 2 : x // 2 + 122, x : x + 104] = small
    whole = yunet(photo)
    assert len(whole) == 8
    sides, search = [], yunet._yunet
    monkeypatch.setattr(detection, "TILE_SIDE", 320)
    monkeypatch.setattr(
        yunet,
        "_yunet",
        lambda canvas, least: sides.append(max(canvas.shape)) or search(canvas, least),
    )
    tiled = yunet(photo)
    assert max(sides) <= 321
    boxes = [[face.box for face in faces] for faces in (whole, tiled)]
    assert np.abs(np.subtract(*boxes)).max() < 6


def test_overlapping_boxes_keep_the_surest():
    weak, strong = Face((0, 0, 10, 10), 0.7), Face((1, 1, 11, 11), 0.9)
    inside, apart = Face((3, 3, 6, 6), 0.8), Face((9, 9, 19, 19), 0.75)
    assert keep_distinct_faces([weak, inside, strong, apart]) == [strong, apart]


def test_cascade_finds_the_portrait_without_landmarks(cascade, portrait):
    (face,) = cascade(portrait)
    assert face.landmarks is None
    assert 0 <= face.score <= 1
    x0, y0, x1, y1 = face.box
    assert x0 < 268 < x1
    assert y0 < 230 < y1


def test_cascade_finds_a_face_that_fills_a_small_image(cascade, portrait):
    (face,) = cascade(crop_face(portrait, (112, 112)))
    assert face.box[2] - face.box[0] > 56


def test_cascade_warns_once(monkeypatch, portrait):
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = FaceDetector()
        detector(portrait)
        detector(portrait)
    assert [str(w.message).count(DETECTOR_VARIABLE) for w in caught] == [1]


def test_missing_file_of_the_variable_is_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setenv(DETECTOR_VARIABLE, str(tmp_path / "none.onnx"))
    with pytest.raises(UserError, match=r"none\.onnx.*not a file"):
        FaceDetector()


def test_damaged_file_of_the_variable_is_a_user_error(monkeypatch, tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"not a network" * 100)
    monkeypatch.setenv(DETECTOR_VARIABLE, str(tmp_path / "damaged.onnx"))
    with pytest.raises(UserError, match=r"damaged\.onnx is not a YuNet model"):
        FaceDetector()


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A Hub cache that holds nothing, and no file given."""
    monkeypatch.delenv(DETECTOR_VARIABLE, raising=False)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


def test_offline_mode_falls_back_quickly(empty_cache, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    assert find_detector_file() is None
    assert time.monotonic() - start < 10


def test_no_network_falls_back_after_one_try(empty_cache, monkeypatch):
    import huggingface_hub

    tries = []

    class Unreachable:
        def head(self, *args, **kwargs):
            tries.append(kwargs["timeout"])
            raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "get_session", Unreachable)
    assert find_detector_file() is None
    assert tries == [detection.HUB_TIMEOUT]


def test_file_of_the_hub_is_used_only_with_the_pinned_content(empty_cache, monkeypatch, tmp_path):
    import huggingface_hub

    cached = tmp_path / "cached.onnx"
    cached.write_bytes(b"another release")
    monkeypatch.setattr(huggingface_hub, "get_session", Mock())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: str(cached))
    assert find_detector_file() is None
    digest = hashlib.sha256(b"another release").hexdigest()
    monkeypatch.setattr(detection, "DETECTOR_SHA256", digest)
    assert find_detector_file() == str(cached)


def test_pinned_content_is_the_file_that_was_checked(shared):
    content = (shared / "weights" / detection.DETECTOR_FILE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == detection.DETECTOR_SHA256
