"""A face lands on the template, from any pose and size, without aliasing."""

import numpy as np
import pytest
from label2label.faces.alignment import (
    HAAR_LANDMARKS,
    align_face,
    estimate_crop_transform,
    estimate_similarity,
)
from label2label.faces.face import ARCFACE_TEMPLATE, Face
from label2label.models import Label2LabelImageProcessor

TEMPLATE = np.array(ARCFACE_TEMPLATE)


def move(points, angle, scale, shift):
    """Points turned by `angle` degrees, scaled and shifted."""
    a = np.deg2rad(angle)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return scale * points @ rotation.T + shift


@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (30, 0.2), (-75, 12), (180, 3)])
def test_similarity_is_recovered_exactly(angle, scale):
    moved = move(TEMPLATE, angle, scale, (40.0, -7.0))
    matrix = estimate_similarity(moved, TEMPLATE)
    assert np.allclose(moved @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    noisy = move(TEMPLATE, 20, 2, (5, 9)) + rng.normal(0, 3, TEMPLATE.shape)
    matrix = estimate_similarity(noisy, TEMPLATE)
    # The same problem as linear regression of (a, b, x, y) with matrix [[a, -b, x], [b, a, y]].
    zeros, ones = np.zeros(5), np.ones(5)
    x, y = noisy.T
    design = np.vstack([np.c_[x, -y, ones, zeros], np.c_[y, x, zeros, ones]])
    a, b, dx, dy = np.linalg.lstsq(design, np.r_[TEMPLATE[:, 0], TEMPLATE[:, 1]], rcond=None)[0]
    assert np.allclose(matrix, [[a, -b, dx], [b, a, dy]])


def test_similarity_never_mirrors():
    mirrored = TEMPLATE * [-1, 1]
    assert np.linalg.det(estimate_similarity(mirrored, TEMPLATE)[:, :2]) > 0


def test_one_point_defines_no_transform():
    with pytest.raises(ValueError, match="one point"):
        estimate_similarity(np.ones((5, 2)), TEMPLATE)


def draw_face(landmarks, height, width, radius):
    """A gray photo with a bright disc at each landmark."""
    y, x = np.mgrid[:height, :width] + 0.5
    photo = np.full((height, width), 60.0)
    for cx, cy in landmarks:
        photo += 180 * np.clip(radius - np.hypot(x - cx, y - cy) + 0.5, 0, 1)
    return np.repeat(photo.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def find_discs(crop, template, reach=7):
    """Centre of brightness around each of the template's points."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]] + 0.5
    centres = []
    for cx, cy in template:
        weight = (crop[..., 0] - 60.0).clip(0) * (np.hypot(x - cx, y - cy) < reach)
        centres.append([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
    return np.array(centres)


@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (0, 6.3), (25, 4), (-40, 0.6), (8, 15)])
def test_landmarks_land_on_the_template_to_a_fifth_of_a_pixel(angle, scale):
    landmarks = move(TEMPLATE - 56, angle, scale, (1000, 900))
    photo = draw_face(landmarks, 1800, 2000, 3 * scale)
    crop = align_face(photo, Face((0, 0, 1, 1), 1.0, landmarks), ARCFACE_TEMPLATE)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    assert np.abs(find_discs(crop, TEMPLATE) - TEMPLATE).max() < 0.2


def test_large_face_does_not_alias():
    # Stripes far finer than a crop pixel must turn gray, not into coarse bands.
    photo = np.zeros((1600, 1600, 3), np.uint8)
    photo[:, ::2] = 255
    landmarks = move(TEMPLATE - 56, 3, 11.37, (800, 800))
    crop = align_face(photo, Face((0, 0, 1, 1), 1.0, landmarks), ARCFACE_TEMPLATE)
    assert abs(float(crop.mean()) - 127.5) < 3
    assert crop.std() < 6


def test_crop_over_the_edge_repeats_the_edge():
    photo = np.full((112, 112, 3), 10, np.uint8)
    photo[:, 0] = 200
    landmarks = TEMPLATE - [50, 0]
    crop = align_face(photo, Face((0, 0, 1, 1), 1.0, landmarks), ARCFACE_TEMPLATE)
    assert (crop[:, :50] == 200).all()
    assert (crop[:, 52:] == 10).all()


def test_identity_alignment_keeps_every_pixel():
    photo = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    crop = align_face(photo, Face((0, 0, 112, 112), 1.0, TEMPLATE), ARCFACE_TEMPLATE)
    assert (crop == photo).all()


def test_box_alone_puts_the_face_where_the_template_has_it():
    face = Face((100.0, 50.0, 300.0, 250.0), 0.9)
    matrix = estimate_crop_transform(face, ARCFACE_TEMPLATE)
    points = HAAR_LANDMARKS * 200 + [100, 50]
    assert np.abs(points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE).max() < 4


def test_cascade_crop_resembles_the_landmarks_crop(yunet, cascade, portrait):
    template = Label2LabelImageProcessor().alignment_template
    (exact,), (rough,) = yunet(portrait), cascade(portrait)
    matrix = estimate_crop_transform(rough, template)
    landmarks = exact.landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(landmarks - template).max() < 8


def test_training_photos_align_to_what_the_processor_crops(yunet, shared):
    """The template's purpose: a training photo, aligned, is the crop that it was trained on."""
    import io
    import zipfile

    from PIL import Image

    processor = Label2LabelImageProcessor(do_normalize=False, do_rescale=False)
    scales, shifts = [], []
    with zipfile.ZipFile(shared / "data" / "celeba" / "img_align_celeba.zip") as archive:
        for name in [n for n in archive.namelist() if n.endswith(".jpg")][:60]:
            photo = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            faces = yunet(photo)
            if len(faces) != 1:
                continue
            matrix = estimate_crop_transform(faces[0], processor.alignment_template)
            scales.append(np.sqrt(np.linalg.det(matrix[:, :2])))
            # Where alignment puts the photo's middle; the processor puts it in the crop's.
            shifts.append(matrix @ [89 / 2, 109 / 2, 1] - 56)
    assert np.mean(scales) == pytest.approx(112 / 89, rel=0.05)
    assert np.abs(np.mean(shifts, axis=0)).max() < 1.5
