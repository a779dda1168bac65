"""The Space offers what is there, and says what it costs."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from catalogue import MODELS_VARIABLE, load_catalogue, load_models
from label2label.checkpoints import checkpoint_names, default_checkpoint
from label2label.export.onnx import export_onnx
from label2label.files import sha256
from label2label.prediction.backends import OnnxBackend, load_backend

pytestmark = pytest.mark.slow


def random_crops(model, count=2):
    size = model.preprocessing.crop_size
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    (model,) = load_models(str(tiny_folder))
    return model


def test_the_model_that_ships_comes_first_and_a_broken_folder_is_left_out(
    tiny_folder, tmp_path, monkeypatch, caplog
):
    (tmp_path / "broken").mkdir()
    monkeypatch.setenv(MODELS_VARIABLE, f"{tmp_path / 'broken'}, {tiny_folder}")
    with caplog.at_level(logging.WARNING):
        catalogue = load_catalogue()
    whole = [model for model in catalogue.values() if not model.int8]
    first, other = whole[0], whole[-1]
    assert [*catalogue.values()][: len(whole)] == whole
    assert (first.kind, first.key) == ("default", "mobilefacenet")
    assert (other.key, other.kind) == ("random-tiny", "tiny")
    assert "broken is not offered" in caplog.text


def test_size_and_speed_are_the_models_own(tiny, tiny_folder):
    backend = load_backend(tiny_folder)
    assert tiny.parameters == sum(p.numel() for p in backend.model.parameters())
    assert tiny.file_bytes == (tiny_folder / "model.safetensors").stat().st_size
    assert 0 < tiny.milliseconds < 10_000


def test_probabilities_are_those_of_the_packages_own_backend(tiny):
    crops = random_crops(tiny)
    expected = tiny.backend.predict(crops)
    np.testing.assert_allclose(tiny.predict(crops).probabilities, expected, atol=1e-5)


def test_maps_have_one_grid_an_attribute_whose_strongest_cell_is_1(tiny):
    maps = tiny.predict(random_crops(tiny)).maps
    assert maps.shape[:2] == (2, 6)
    assert maps.shape[2] == maps.shape[3] > 1
    np.testing.assert_allclose(maps.max(axis=(2, 3)), 1, atol=1e-6)
    assert maps.min() >= 0


def test_known_attributes_keep_their_value_and_move_others(tiny):
    crops = random_crops(tiny)
    free = tiny.predict(crops).probabilities
    names = tiny.preprocessing.attributes
    smiling = names.index("Smiling")
    known = {"Smiling": bool(free[0, smiling] < 0.5)}  # the contrary of what it guessed
    pinned = tiny.predict(crops[:1], known).probabilities[0]
    assert pinned[smiling] == known["Smiling"]
    others = np.arange(len(names)) != smiling
    assert np.abs(pinned - free[0])[others].max() > 1e-3


def test_an_int8_file_beside_the_weights_is_offered_too(tiny_folder, tmp_path):
    folder = tmp_path / "random-tiny"
    folder.mkdir()
    for file in tiny_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    backend = load_backend(folder)
    export_onnx(
        *(backend.model, backend.preprocessing, folder / "model.onnx"),
        known_labels=True,
        weights_sha256=sha256(folder / "model.safetensors"),
    )
    shutil.copy(folder / "model.onnx", folder / "model_int8.onnx")  # only the name matters here
    whole, small = load_models(str(folder))
    assert [whole.key, small.key] == ["random-tiny", "random-tiny/model_int8"]
    assert [whole.int8, small.int8] == [False, True]
    assert small.kind == "tiny"
    assert small.parameters == whole.parameters
    assert small.conditioned is small.backend
    crops = random_crops(small)
    for known in ({}, {"Male": True}):
        np.testing.assert_allclose(
            small.predict(crops, known).probabilities,
            whole.predict(crops, known).probabilities,
            atol=1e-4,
        )
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config["thresholds"] = [0.3] * len(backend.preprocessing.attributes)  # as of `calibrate`
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    assert [model.key for model in load_models(str(folder))] == ["random-tiny"]


@pytest.mark.parametrize("place", [".", "onnx"])  # in a folder, and in a pushed repository
def test_a_model_runs_by_its_export_and_known_attributes_in_torch(
    tiny, tiny_folder, tmp_path, place
):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "random-tiny"))
    (folder / place).mkdir(exist_ok=True)
    backend = load_backend(folder)
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    file = folder / place / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, file, weights_sha256=weights)
    (model,) = load_models(str(folder))
    assert isinstance(model.backend, OnnxBackend)
    assert model.describe() | {"milliseconds": 0} == tiny.describe() | {"milliseconds": 0}
    crops = random_crops(model)
    for known in ({}, {"Male": True}):
        found, expected = model.predict(crops, known), tiny.predict(crops, known)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(found.maps, expected.maps, atol=1e-3)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"temperature": 2.0}))
    (changed,) = load_models(str(folder))
    assert changed.backend is changed.conditioned


def test_the_package_offers_its_models_the_default_first(monkeypatch):
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    offered = [model for model in load_catalogue().values() if not model.int8]
    assert [model.key for model in offered] == checkpoint_names()
    assert offered[0].kind == "default"
    assert all(model.kind in ("tiny", "korean11") for model in offered[1:])


def test_an_onnx_file_from_anywhere_goes_by_its_own_name_and_int8_comes_last(
    tiny_folder, tmp_path, monkeypatch
):
    (tmp_path / "exported").mkdir()
    file = tmp_path / "exported/model_int8.onnx"  # only the name matters here
    backend = load_backend(tiny_folder)
    export_onnx(backend.model, backend.preprocessing, file)
    for name in (file, file.parent):  # a file, and a folder that holds no weights
        (model,) = load_models(str(name))
        assert (model.key, model.kind, model.int8) == ("exported/model_int8", "", True)
        assert model.parameters is None
        assert model.file_bytes == file.stat().st_size
    monkeypatch.setenv(MODELS_VARIABLE, f"{file},{tiny_folder}")
    models = [*load_catalogue().values()]
    assert "exported/model_int8" in [model.key for model in models if model.int8]
    assert [model.int8 for model in models] == sorted(model.int8 for model in models)


def test_the_model_that_ships_takes_known_attributes_and_tells_maps():
    models = load_models(default_checkpoint())
    assert models[0].conditioned
    assert models[0].tells_maps
    assert models[0].describe()["thresholds"] == models[0].preprocessing.thresholds
