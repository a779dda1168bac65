"""Detectors and a photo for the tests of faces."""

import numpy as np
import pytest
from label2label.faces import detection


@pytest.fixture
def yunet(shared, monkeypatch):
    """Return the YuNet detector, from the folder of real images and weights."""
    monkeypatch.setenv(
        detection.DETECTOR_VARIABLE, str(shared / "weights" / detection.DETECTOR_FILE)
    )
    return detection.FaceDetector()


@pytest.fixture
def cascade(monkeypatch):
    """Return the fallback detector, used without network and without YuNet's file."""
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)
    with pytest.warns(UserWarning, match="Haar cascade"):
        return detection.FaceDetector()


@pytest.fixture(scope="session")
def portrait(portrait):
    """Return a public-domain portrait, uint8 RGB (600, 512, 3), with one face."""
    return np.asarray(portrait)
