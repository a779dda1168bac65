"""Photos in, the attributes of every face out, in order, however they are batched."""

import json
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from label2label.errors import UserError
from label2label.faces import detection
from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.prediction.backends import load_model
from label2label.prediction.predictor import AttributePredictor
from PIL import Image
from safetensors.torch import load_file, save_file


@pytest.fixture
def predictor(model_folder):
    with pytest.warns(UserWarning, match="Haar"):
        return AttributePredictor.from_pretrained(model_folder, batch_size=3)


@pytest.fixture
def crop_predictor(model_folder):
    return AttributePredictor.from_pretrained(model_folder, align=False, batch_size=3)


def test_face_has_box_score_and_every_attribute(predictor, portrait):
    (face,) = predictor(portrait)
    keys = ["box", "score", "size", "roll", "warnings", "attributes", "present"]
    assert list(face) == keys
    x0, y0, x1, y1 = face["box"]
    assert 0 <= x0 < 268 < x1 <= 512
    assert 0 <= y0 < 230 < y1 <= 600
    assert list(face["attributes"]) == list(predictor.backend.model.config.id2label.values())
    assert all(0 <= p <= 1 for p in face["attributes"].values())
    json.dumps(face)


def test_what_is_present_contradicts_itself_at_no_threshold(predictor):
    names = ["Bald", "Bangs", "Young", "Smiling", "Male"]
    asked = predictor.backend.preprocessing
    predictor.backend.preprocessing = replace(asked, attributes=names, thresholds=[0.5] * 5)
    attributes = dict(zip(names, [0.8, 0.7, 0.9, 0.1, 0.6], strict=True))
    assert predictor.find_present(attributes) == ["Young", "Bald", "Male"]
    predictor.threshold = 0.75
    assert predictor.find_present(attributes) == ["Young", "Bald"]
    predictor.threshold = 0.0
    assert predictor.find_present(attributes) == ["Young", "Bald", "Male", "Smiling"]


def test_attributes_are_those_of_the_aligned_crop(predictor, portrait):
    from label2label.faces.alignment import align_face

    (face,) = predictor(portrait)
    pixels = np.asarray(portrait)
    (found,) = predictor.detector(pixels)
    crop = align_face(pixels, found, predictor.backend.processor.alignment_template)
    with torch.inference_mode():
        pixel_values = predictor.backend.processor(crop, return_tensors="pt").pixel_values
        expected = predictor.backend.model(pixel_values).logits.sigmoid()[0]
    assert np.allclose(list(face["attributes"].values()), expected, atol=1e-4)


def test_several_faces_in_one_photo_are_told_apart(predictor, portrait):
    pair = Image.new("RGB", (1024, 600))
    pair.paste(portrait, (0, 0))
    pair.paste(portrait.convert("L").convert("RGB"), (512, 0))
    left, right = predictor(pair)
    assert left["box"][2] < 512 < right["box"][0]
    assert left["attributes"] != right["attributes"]


def test_photo_without_a_face_has_an_empty_list(predictor):
    assert predictor(Image.new("RGB", (300, 200), "gray")) == []


def test_entries_keep_their_order_and_their_faces_whatever_the_batches(
    model_folder, predictor, portrait, tmp_path
):
    paths = []
    for i in range(5):
        portrait.rotate(2 * i - 4).save(tmp_path / f"{i}.png")
        paths += [tmp_path / f"{i}.png", tmp_path / f"missing-{i}.png"]
    Image.new("RGB", (300, 200)).save(tmp_path / "blank.png")
    paths.insert(4, tmp_path / "blank.png")
    entries = list(predictor.predict_photos(paths))
    assert [entry["image"] for entry in entries] == [str(path) for path in paths]
    for path, entry in zip(paths, entries, strict=True):
        if "missing" in path.name:
            assert entry == {"image": str(path), "error": "no such file"}
        elif path.name == "blank.png":
            assert entry["faces"] == []
        else:
            (alone,) = predictor(path)
            (batched,) = entry["faces"]
            assert batched["box"] == alone["box"]
            assert batched["attributes"] == pytest.approx(alone["attributes"], abs=2e-4)


def test_photos_are_read_a_bounded_number_ahead_and_no_more_once_the_stream_is_left(
    crop_predictor, portrait
):
    taken = []

    def photos():
        for i in range(1000):
            taken.append(i)
            yield portrait

    before = set(threading.enumerate())
    entries = crop_predictor.predict_photos(photos())
    next(entries)
    time.sleep(0.5)
    # A batch that is gathered, one that waits to be taken, and one ahead with a photo a thread.
    assert 3 <= len(taken) <= 4 * 3 + crop_predictor.threads
    entries.close()
    left_at = len(taken)
    time.sleep(0.2)
    assert len(taken) == left_at
    started = set(threading.enumerate()) - before
    assert not [thread for thread in started if thread.name.startswith("ThreadPoolExecutor")]


def test_large_jpegs_are_first_decoded_at_reduced_size(predictor, portrait, tmp_path, monkeypatch):
    large = portrait.resize((3072, 3600), Image.Resampling.LANCZOS)
    large.save(tmp_path / "large.jpg", quality=95)
    (whole,) = predictor(large)
    sizes = []
    detect = predictor.detector
    monkeypatch.setattr(
        predictor, "detector", lambda pixels: sizes.append(pixels.shape) or detect(pixels)
    )
    (face,) = predictor(tmp_path / "large.jpg")
    assert sizes == [(900, 768, 3)]
    assert face["box"] == pytest.approx(whole["box"], abs=60)
    assert face["attributes"] == pytest.approx(whole["attributes"], abs=0.1)
    wall = Image.new("RGB", (3072, 3600), "gray")
    wall.paste(portrait, (0, 0))  # its face is small in the reduced photo
    wall.save(tmp_path / "small.jpg", quality=95)
    sizes.clear()
    predictor(tmp_path / "small.jpg")
    assert sizes == [(900, 768, 3), (3600, 3072, 3)]


def test_what_is_no_photo_is_a_type_error(predictor):
    for photo in (5, np.zeros((20, 20))):
        with pytest.raises(TypeError, match="uint8 RGB"):
            predictor(photo)
    with pytest.raises(TypeError, match="not NoneType"):
        list(predictor.predict_photos([None]))


def test_one_photo_for_many_and_many_for_one_name_the_other_call(predictor, tmp_path):
    with pytest.raises(TypeError, match="predict_photos takes many"):
        predictor(["photo.jpg"])
    for photo in ("holiday", tmp_path, np.zeros((20, 20, 3), np.uint8)):
        with pytest.raises(TypeError, match=r"takes several photos, such as \[photo\]"):
            list(predictor.predict_photos(photo))


def test_package_offers_the_predictor():
    import label2label

    assert label2label.AttributePredictor is AttributePredictor


def test_encoded_image_is_predicted_like_its_file(crop_predictor, portrait, tmp_path):
    portrait.save(tmp_path / "portrait.png")
    (from_bytes, broken) = crop_predictor.predict_photos(
        [(tmp_path / "portrait.png").read_bytes(), b"no image"]
    )
    assert from_bytes == {"image": None, "faces": crop_predictor(tmp_path / "portrait.png")}
    assert broken == {"image": None, "error": "not an image, or of a format that cannot be read"}


def test_fault_of_the_detector_is_kept_with_its_photo(predictor, portrait, monkeypatch):
    detect = predictor.detector

    def fail_on_squares(pixels):
        if pixels.shape[0] == pixels.shape[1]:
            raise cv2.error("no memory")
        return detect(pixels)

    monkeypatch.setattr(predictor, "detector", fail_on_squares)
    square = portrait.resize((300, 300))
    first, second, third = predictor.predict_photos([portrait, square, portrait])
    assert "no memory" in second["error"]
    assert len(first["faces"]) == len(third["faces"]) == 1


def test_threads_that_share_a_detector_find_what_one_finds(predictor, portrait):
    photos = [portrait.rotate(3 * i - 12) for i in range(9)]
    alone = [[face["box"] for face in predictor(photo)] for photo in photos]
    predictor.threads = 4
    together = predictor.predict_photos(photos)
    assert [[face["box"] for face in entry["faces"]] for entry in together] == alone


def test_without_alignment_the_whole_image_is_the_crop(crop_predictor, portrait):
    (face,) = crop_predictor(portrait)
    assert face["box"] == [0.0, 0.0, 512.0, 600.0]
    assert face["score"] == 1.0
    with torch.inference_mode():
        pixel_values = crop_predictor.backend.processor(portrait, return_tensors="pt").pixel_values
        expected = crop_predictor.backend.model(pixel_values).logits.sigmoid()[0]
    assert np.allclose(list(face["attributes"].values()), expected, atol=1e-4)


def test_one_unreadable_photo_is_an_error_that_names_it(crop_predictor, tmp_path):
    with pytest.raises(UserError, match=r"gone\.jpg: no such file"):
        crop_predictor(tmp_path / "gone.jpg")


def test_yunet_finds_the_portrait_too(shared, monkeypatch, model_folder, portrait):
    path = str(shared / "weights" / detection.DETECTOR_FILE)
    monkeypatch.setattr(detection, "find_detector_file", lambda: path)
    (face,) = AttributePredictor.from_pretrained(model_folder)(portrait)
    assert np.allclose(face["box"], (183, 120, 353, 333), atol=12)


@pytest.mark.parametrize("detector", ["cascade", "yunet"])
def test_shipped_model_finds_the_hat_and_the_glasses(detector, request, monkeypatch, portrait):
    if detector == "yunet":
        path = str(request.getfixturevalue("shared") / "weights" / detection.DETECTOR_FILE)
        monkeypatch.setattr(detection, "find_detector_file", lambda: path)
    (face,) = AttributePredictor.from_pretrained()(portrait)
    for name in ("Wearing_Hat", "Eyeglasses", "No_Beard"):
        assert face["attributes"][name] > 0.7, name
    for name in ("Bald", "Young", "Goatee", "Blond_Hair"):
        assert face["attributes"][name] < 0.3, name


@pytest.fixture
def broken(model_folder, tmp_path):
    """A copy of the model's folder, to be broken."""
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def remove_config(folder):
    (folder / "config.json").unlink()
    return "no config.json"


def remove_weights(folder):
    (folder / "model.safetensors").unlink()
    return "model.safetensors"


def remove_processor(folder):
    (folder / "preprocessor_config.json").unlink()
    return "preprocessor"


def spoil_config(folder):
    (folder / "config.json").write_text('{"model_type": ')
    return "config.json"


def spoil_processor(folder):
    (folder / "preprocessor_config.json").write_text("[]")
    return "cannot load"


def truncate_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    return "cannot load"


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")
    return "cannot load"


def drop_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return "weights do not match its config.json: they lack"


def add_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "extra": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    return "beyond the config, extra"


def widen_config(folder):
    edit_config(folder, hidden_size=32)
    return "cannot load"


def add_an_attribute(folder):
    names = dict(enumerate(["Smiling", "Male", "Wearing_Hat", "No_Beard", "Young", "Bald"]))
    edit_config(folder, id2label=names, label2id={name: i for i, name in names.items()})
    return "cannot load"


def change_head(folder):
    edit_config(folder, head_type="query2label")
    return "do not match"


def name_an_unknown_head(folder):
    edit_config(folder, head_type="oracle")
    return "head_type"


def name_another_model(folder):
    edit_config(folder, model_type="resnet")
    return "'resnet', not 'label2label'"


@pytest.mark.parametrize(
    "spoil",
    [
        remove_config,
        remove_weights,
        remove_processor,
        spoil_config,
        spoil_processor,
        truncate_weights,
        empty_weights,
        drop_a_weight,
        add_a_weight,
        widen_config,
        add_an_attribute,
        change_head,
        name_an_unknown_head,
        name_another_model,
    ],
)
def test_model_folder_that_does_not_fit_is_one_clear_line(spoil, broken):
    load_model(broken)
    expected = spoil(broken)
    with pytest.raises(UserError) as error:
        load_model(broken)
    assert expected in str(error.value)
    assert str(broken) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./relative", "one-word", "a/b/c"])
def test_name_that_is_neither_folder_nor_hub_id_does_not_reach_for_the_hub(name):
    with pytest.raises(UserError, match="does not exist: --model takes"):
        load_model(name)


def test_file_in_place_of_a_model_folder_is_named(model_folder):
    with pytest.raises(UserError, match="is a file"):
        load_model(model_folder / "config.json")


def test_loaded_model_is_the_saved_one(model_folder):
    model, processor = load_model(model_folder)
    assert isinstance(model, Label2LabelForImageClassification)
    assert isinstance(processor, Label2LabelImageProcessor)
    assert not model.training
    saved = load_file(model_folder / "model.safetensors")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())


def test_weights_of_half_precision_are_loaded_in_single_precision(broken, portrait):
    expected = AttributePredictor.from_pretrained(broken, align=False)(portrait)
    model, _ = load_model(broken)
    model.half().save_pretrained(broken)
    assert load_file(broken / "model.safetensors")["classifier.weight"].dtype == torch.float16
    loaded, _ = load_model(broken)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    (face,) = AttributePredictor.from_pretrained(broken, align=False)(portrait)
    assert face["attributes"] == pytest.approx(expected[0]["attributes"], abs=0.05)


def test_a_processor_that_does_not_resize_by_the_shorter_side_is_one_clear_line(broken):
    Label2LabelImageProcessor(size={"height": 112, "width": 112}).save_pretrained(broken)
    with pytest.raises(UserError, match="fix 'size' in preprocessor_config"):
        AttributePredictor.from_pretrained(broken)
