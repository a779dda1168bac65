"""From a photo to its faces' attributes, and from a face and what is known of it."""

import base64
import shutil
from dataclasses import replace

import numpy as np
import pytest
from analysis import MAX_FACES, Analyser, keep_largest
from catalogue import load_models
from label2label.faces import detection
from label2label.faces.detection import Face
from label2label.models import Label2LabelImageProcessor
from label2label.prediction.predictor import AttributePredictor
from photos import PhotoError, decode_data_url


@pytest.fixture(scope="module", autouse=True)
def cascade():
    """OpenCV's, which needs no file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "find_detector_file", lambda: None)
        yield


def make_analyser(folder):
    with pytest.warns(UserWarning, match="Haar"):
        return Analyser({model.key: model for model in load_models(str(folder))})


@pytest.fixture(scope="module")
def analyser(tiny_folder):
    return make_analyser(tiny_folder)


@pytest.fixture(scope="module")
def result(analyser, portrait, encode):
    return analyser.analyse(encode(portrait), ["random-tiny"])


def test_the_face_is_boxed_in_the_photos_own_pixels(result, portrait):
    assert (result["width"], result["height"]) == portrait.size
    (face,) = result["faces"]
    x0, y0, x1, y1 = face["box"]
    assert x0 < 265 < x1  # between her eyes
    assert y0 < 200 < y1
    assert face["size"] == pytest.approx(((x1 - x0) * (y1 - y0)) ** 0.5, abs=0.2)
    assert (face["roll"], face["warnings"]) == (0, [])  # the cascade tells no landmarks


def test_the_same_face_asked_again_gets_the_same_numbers(analyser, result):
    face = result["faces"][0]
    again = analyser.condition(decode_data_url(face["crop"]), "", {})
    assert again == face["predictions"]["random-tiny"]


@pytest.mark.filterwarnings("ignore:cannot get")
def test_aligned_faces_are_not_resized_again(tiny_folder, portrait, encode, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "random-tiny")
    Label2LabelImageProcessor(size={"shortest_edge": 160}).save_pretrained(folder)
    analyser = make_analyser(folder)
    (face,) = analyser.analyse(encode(portrait), [""])["faces"]
    (expected,) = AttributePredictor.from_pretrained(folder)(portrait)
    told = face["predictions"]["random-tiny"]
    assert told["probabilities"] == pytest.approx([*expected["attributes"].values()], abs=2e-4)
    assert analyser.condition(decode_data_url(face["crop"]), "", {}) == told


def test_a_known_attribute_keeps_its_value(analyser, result):
    face = result["faces"][0]
    known = analyser.condition(decode_data_url(face["crop"]), "random-tiny", {"Young": True})
    assert known["probabilities"][4] == 1
    assert known["probabilities"] != face["predictions"]["random-tiny"]["probabilities"]


def test_maps_are_one_byte_a_cell(result):
    maps = result["faces"][0]["predictions"]["random-tiny"]["maps"]
    cells = np.frombuffer(base64.b64decode(maps["data"]), np.uint8)
    assert cells.reshape(6, maps["rows"], maps["columns"]).max(axis=(1, 2)).tolist() == [255] * 6


def test_a_photo_without_a_face_and_an_unknown_model_are_refused(analyser, photo_files):
    with pytest.raises(PhotoError, match="no_face"):
        analyser.analyse(photo_files["no_face.png"].read_bytes(), [""])
    with pytest.raises(PhotoError, match="no_model"):
        analyser.analyse(photo_files["portrait.jpg"].read_bytes(), ["gpt"])
    with pytest.raises(PhotoError, match="no_model"):
        analyser.condition(b"", ["a list"], {})


def test_an_animation_is_noted(analyser, photo_files):
    notes = analyser.analyse(photo_files["animated.gif"].read_bytes(), [""])["notes"]
    assert notes == [{"code": "animated", "values": {}}]


def test_the_largest_faces_are_kept_in_their_order():
    faces = [Face((float(x), 0.0, x + 1.0 + x % 7, 5.0), 0.9) for x in range(30)]
    kept = keep_largest(faces, MAX_FACES)
    assert len(kept) == MAX_FACES
    assert [face.box[0] for face in kept] == sorted(face.box[0] for face in kept)
    left_out = [face for face in faces if face not in kept]
    assert max(f.box[2] - f.box[0] for f in left_out) <= min(f.box[2] - f.box[0] for f in kept)


def test_decisions_break_no_rule_and_what_is_known_stays(analyser, monkeypatch):
    asked = replace(
        analyser.find_model("").preprocessing,
        exclusive_answers=[["Smiling", "Male", "Young"], ["Young", "Eyeglasses"]],
        thresholds=[0.5] * 6,
    )
    model = analyser.find_model("")
    monkeypatch.setattr(model.backend, "preprocessing", asked)
    told = np.array([[0.7, 0.6, 0.1, 0.9, 0.8, 0.75]], np.float32)
    monkeypatch.setattr(model.backend, "run", lambda *_: (told, None))
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    # Young is likelier than each of the three, but not than Smiling and Eyeglasses together.
    assert model.predict(crop).present.tolist() == [[True, False, False, True, False, True]]
    assert model.predict(crop, {"Smiling": False, "Eyeglasses": False}).present.tolist() == [
        [False, False, False, True, True, False]
    ]
    contradictory = {"Smiling": True, "Male": True}
    assert model.predict(crop, contradictory).present[0, :2].tolist() == [True, True]
