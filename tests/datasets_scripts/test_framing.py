"""Framing faces as CelebA does."""

import cv2
import numpy as np
import pytest
from label2label.faces.alignment import choose_face
from label2label.faces.detection import Face
from label2label.models import Label2LabelImageProcessor
from preparation.framing import CELEBA_LANDMARKS, CELEBA_SIZE, align_like_celeba


def test_landmarks_land_where_celeba_has_them():
    angle, scale, shift = 0.4, 2.5, np.array([310.0, 40.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = CELEBA_LANDMARKS @ turn.T + shift
    photo = np.zeros((700, 700, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(photo, (round(x - 0.5), round(y - 0.5)), 6, (255, 255, 255), -1)
    crop = align_like_celeba(photo, Face((0, 0, 700, 700), 1.0, landmarks))
    assert crop.shape == (218, 178, 3)
    number, _, _, centres = cv2.connectedComponentsWithStats((crop[..., 0] > 127).astype(np.uint8))
    assert number == 1 + 5
    found = centres[1:][np.argsort(centres[1:, 1])]
    wanted = CELEBA_LANDMARKS[np.argsort(CELEBA_LANDMARKS[:, 1])] - 0.5
    assert found == pytest.approx(wanted, abs=0.5)


def test_the_face_in_the_middle_is_chosen_over_a_larger_bystander():
    photo = np.zeros((250, 250, 3), np.uint8)
    middle = Face((80, 70, 160, 170), 0.8)
    bystander = Face((0, 0, 110, 140), 0.9)
    assert choose_face([bystander, middle], photo) is middle


def test_datasets_are_framed_as_photos_are():
    processor = Label2LabelImageProcessor()
    side, (width, height) = processor.size["shortest_edge"], CELEBA_SIZE
    resized = np.array([side, int(height * side / width)])
    crop = CELEBA_LANDMARKS * resized / CELEBA_SIZE - (resized - side) // 2
    assert crop == pytest.approx(np.array(processor.alignment_template), abs=0.01)
