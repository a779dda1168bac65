"""An exported file says what the model says, at every batch size, and what it is."""

import copy
import hashlib
import io
import json
import sys
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from label2label.checkpoints import checkpoint_names, default_checkpoint, find_checkpoint
from label2label.cli import main
from label2label.errors import UserError
from label2label.export.onnx import export_onnx
from label2label.prediction.backends import OnnxBackend, TorchBackend, is_outdated
from PIL import Image


@pytest.fixture(scope="module")
def exported(backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path)
    return path


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_probabilities_are_those_of_torch(exported, backend, faces, batch):
    probabilities = OnnxBackend(exported).predict(faces[:batch])
    assert probabilities.shape == (batch, 5)
    assert probabilities.std() > 0.01
    assert np.abs(probabilities - backend.predict(faces[:batch])).max() < 1e-4


def test_attention_is_that_of_torch(exported, backend, faces):
    pixels = backend.preprocessing.normalize(faces[:3])
    (attention,) = OnnxBackend(exported).session.run(["attention"], {"pixel_values": pixels})
    with torch.inference_mode():
        outputs = backend.model(torch.from_numpy(pixels), output_attentions=True)
    expected = torch.stack(outputs.cross_attentions).mean(dim=(0, 2))
    assert attention.shape == (3, 5, expected.shape[-1])
    assert np.abs(attention - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("head_type", ["fc", "query2label"])
def test_other_heads_are_exported_too(head_type, make_backend, faces, tmp_path):
    backend = make_backend(head_type=head_type)
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    probabilities = OnnxBackend(tmp_path / "model.onnx").predict(faces[:3])
    assert np.abs(probabilities - backend.predict(faces[:3])).max() < 1e-4


def test_model_is_left_alone(backend, tmp_path):
    before = copy.deepcopy(backend.model.state_dict())
    attention = backend.model.config._attn_implementation
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    assert all(torch.equal(before[name], x) for name, x in backend.model.state_dict().items())
    assert backend.model.config._attn_implementation == attention


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"num_query_layers": 2, "num_mlm_layers": 2},
        {"words_see_queries": True, "num_mlm_layers": 2},
    ],
    ids=["two layers each", "words see queries"],
)
def test_variants_of_the_head_are_exported_with_known_labels(
    options, make_backend, faces, tmp_path
):
    backend = make_backend(**options)
    export_onnx(backend.model, backend.preprocessing, tmp_path / "m.onnx", known_labels=True)
    known = np.array([[1, 0, -100, -100, -100], [-100] * 5, [0, 0, 1, 1, -100]])
    pixels = backend.preprocessing.normalize(faces[:3])
    inputs = {"pixel_values": pixels, "known_labels": known}
    (found,) = OnnxBackend(tmp_path / "m.onnx").session.run(["probabilities"], inputs)
    with torch.inference_mode():
        labels = torch.from_numpy(known)
        logits = backend.model(torch.from_numpy(pixels), known_labels=labels).logits
    assert np.abs(found - logits.sigmoid().numpy()).max() < 1e-4


def test_a_model_on_a_gpu_is_exported_on_the_cpu(backend, tmp_path):
    # The meta device stands in for a GPU: what tries to move its weights to the CPU hears of it.
    elsewhere = copy.deepcopy(backend.model).to("meta")
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        export_onnx(elsewhere, backend.preprocessing, tmp_path / "model.onnx")


def test_metadata_make_the_file_self_sufficient(exported, backend):
    assert OnnxBackend(exported).preprocessing == backend.preprocessing
    properties = {p.key: p.value for p in onnx.load(exported).metadata_props}
    assert json.loads(properties["label2label.attributes"])[0] == "Smiling"
    assert json.loads(properties["label2label.thresholds"]) == backend.preprocessing.thresholds


def test_file_tells_nothing_of_the_machine_it_was_made_on(exported):
    assert b"site-packages" not in exported.read_bytes()
    assert b".py" not in exported.read_bytes()


def test_uint8_input_needs_no_preprocessing(backend, faces, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path, uint8_input=True)
    session = OnnxBackend(path).session
    (probabilities,) = session.run(["probabilities"], {"pixel_values": faces})
    assert np.abs(probabilities - backend.predict(faces)).max() < 1e-4


def test_known_labels_are_a_second_input(backend, faces, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path, known_labels=True)
    onnx_backend = OnnxBackend(path)
    pixels = backend.preprocessing.normalize(faces[:4])
    with torch.inference_mode():
        guesses = backend.model(torch.from_numpy(pixels)).query_logits.numpy() > 0
    known = np.full((4, 5), -100)
    known[:, :2] = ~guesses[:, :2]
    (probabilities,) = onnx_backend.session.run(
        ["probabilities"], {"pixel_values": pixels, "known_labels": known}
    )
    with torch.inference_mode():
        expected = backend.model(torch.from_numpy(pixels), known_labels=torch.from_numpy(known))
    assert np.abs(probabilities - expected.logits.sigmoid().numpy()).max() < 1e-4
    unconditioned = onnx_backend.predict(faces[:4])
    assert np.abs(unconditioned - backend.predict(faces[:4])).max() < 1e-4
    assert np.abs(unconditioned - probabilities).max() > 1e-3


def test_backbone_alone_gives_features(backend, faces, tmp_path):
    import onnxruntime

    path = tmp_path / "backbone.onnx"
    export_onnx(backend.model, backend.preprocessing, path, backbone_only=True)
    pixels = backend.preprocessing.normalize(faces[:3])
    (features,) = onnxruntime.InferenceSession(path).run(None, {"pixel_values": pixels})
    with torch.inference_mode():
        expected = backend.model.label2label.backbone(torch.from_numpy(pixels)).feature_maps[-1]
    assert np.allclose(features, expected, atol=1e-4)
    with pytest.raises(UserError, match="only a backbone"):
        OnnxBackend(path)


@pytest.mark.parametrize("side", [112, 100])
def test_features_of_earlier_stages_are_in_the_file(side, make_backend, tmp_path):
    # 100 pixels a side: 25 features a side, averaged to 7, which they are no multiple of
    backend = make_backend(out_features=["stage1", "stage2", "features"])
    preprocessing = replace(backend.preprocessing, crop_size=side)
    path = tmp_path / "model.onnx"
    export_onnx(backend.model, preprocessing, path)
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    (found,) = OnnxBackend(path).session.run(["probabilities"], {"pixel_values": pixels.numpy()})
    with torch.inference_mode():
        expected = backend.model(pixels).logits.sigmoid().numpy()
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("opset", [18, 22])
def test_opset_is_the_one_asked_for(opset, backend, faces, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path, opset=opset)
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert {item.domain: item.version for item in model.opset_import} == {"": opset}
    for node in model.graph.node:
        assert onnx.defs.has(node.op_type, opset, node.domain), node.op_type
    assert np.abs(OnnxBackend(path).predict(faces) - backend.predict(faces)).max() < 1e-4


@pytest.fixture(scope="module")
def real_faces(shared):
    """64 aligned photos of celebrities, uint8 (64, 112, 112, 3)."""
    preprocessing = TorchBackend.from_pretrained(default_checkpoint()).preprocessing
    with zipfile.ZipFile(shared / "data" / "celeba" / "img_align_celeba.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:64]
        photos = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    return np.stack([preprocessing.crop(np.asarray(photo)) for photo in photos])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The model that ships, in PyTorch and exported."""
    backend = TorchBackend.from_pretrained(default_checkpoint())
    path = tmp_path_factory.mktemp("shipped") / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path)
    return backend, OnnxBackend(path)


def greatest_difference(shipped, crops, batch):
    """Of the probabilities by PyTorch and by ONNX Runtime, so many crops at a time."""
    backend, onnx_backend = shipped
    batches = [crops[start : start + batch] for start in range(0, len(crops), batch)]
    return max(np.abs(onnx_backend.predict(x) - backend.predict(x)).max() for x in batches)


@pytest.mark.parametrize("batch", [1, 64])
def test_shipped_model_agrees_with_torch_on_real_faces(batch, shipped, real_faces):
    assert greatest_difference(shipped, real_faces, batch) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", checkpoint_names()[1:])
def test_other_models_that_ship_agree_with_torch_on_real_faces(name, real_faces, tmp_path):
    backend = TorchBackend.from_pretrained(find_checkpoint(name))
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    shipped = backend, OnnxBackend(tmp_path / "model.onnx")
    assert greatest_difference(shipped, real_faces[:20], 20) < 1e-4


@pytest.mark.slow
def test_shipped_model_agrees_of_uint8_pixels_and_known_words_of_real_faces(
    shipped, real_faces, tmp_path
):
    backend, crops = shipped[0], real_faces[:20]
    export_onnx(
        backend.model,
        backend.preprocessing,
        tmp_path / "model.onnx",
        uint8_input=True,
        known_labels=True,
    )
    session = OnnxBackend(tmp_path / "model.onnx").session
    # Against the model's own guesses, where words that are given change most.
    guesses = backend.predict(crops)
    known = np.where(np.arange(guesses.shape[1]) % 4 == 0, guesses < 0.5, -100)
    pixels = torch.from_numpy(backend.preprocessing.normalize(crops))
    for labels in (np.full_like(known, -100), known):
        inputs = {"pixel_values": crops, "known_labels": labels}
        (probabilities,) = session.run(["probabilities"], inputs)
        with torch.inference_mode():
            logits = backend.model(pixels, known_labels=torch.from_numpy(labels)).logits
        assert np.abs(probabilities - logits.sigmoid().numpy()).max() < 1e-4
    assert np.abs(probabilities - guesses)[:, known[0] == -100].max() > 0.01


@pytest.mark.parametrize("batch", [2])
def test_shipped_model_agrees_with_torch_on_random_input(batch, shipped, faces):
    assert greatest_difference(shipped, faces, batch) < 1e-4


@pytest.mark.parametrize("batch", [2, 64])
def test_a_face_has_the_same_probabilities_in_any_batch(batch, shipped, real_faces):
    together = shipped[1].predict(real_faces[:batch])
    alone = np.concatenate([shipped[1].predict(face[None]) for face in real_faces[:batch]])
    assert np.abs(together - alone).max() < 1e-4


@pytest.fixture
def export(model_folder, capsys):
    """Runs the command; returns its exit code and standard error."""

    def run(*arguments):
        code = main(["export", "--model", str(model_folder), *map(str, arguments)])
        return code, capsys.readouterr().err

    return run


def test_command_writes_int8_beside_float(export, backend, model_folder, faces, tmp_path):
    (tmp_path / "faces").mkdir()
    for i, face in enumerate(faces[:24]):
        Image.fromarray(face).save(tmp_path / "faces" / f"{i}.png")
    output = tmp_path / "new" / "out"
    code, err = export("--int8", "--calibration", tmp_path / "faces", "--output", output)
    assert code == 0, err
    assert sorted(file.name for file in output.iterdir()) == ["model.onnx", "model_int8.onnx"]
    tensors = onnx.load(output / "model_int8.onnx").graph.initializer
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in tensors)
    int8 = OnnxBackend(output / "model_int8.onnx")
    assert replace(int8.preprocessing, config_sha256="") == backend.preprocessing
    digest = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    properties = int8.session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["label2label.weights_sha256"]) == digest
    assert np.abs(int8.predict(faces) - backend.predict(faces)).mean() < 0.03
    assert list((tmp_path / "new").iterdir()) == [output]
    # Another model's float file must not come to lie beside this INT8 file.
    before = {file.name: file.read_bytes() for file in output.iterdir()}
    assert export("--output", output) == (
        2,
        f"error: --output {output} holds model_int8.onnx of an earlier export, which this one does "
        "not replace: remove it, or give a new folder\n",
    )
    assert {file.name: file.read_bytes() for file in output.iterdir()} == before


def test_onnxscript_that_is_not_installed_is_named_with_its_extra(export, tmp_path, monkeypatch):
    for name in ("onnxscript", *(name for name in sys.modules if name.startswith("onnxscript."))):
        monkeypatch.setitem(sys.modules, name, None)
    code, err = export("--output", tmp_path / "out")
    assert code == 2
    assert err == (
        "error: export needs onnxscript, which is not installed: install label2label with its "
        "extra [export]\n"
    )


@pytest.mark.slow
def test_files_of_an_earlier_export_are_replaced(export, tmp_path):
    output = tmp_path / "out"
    assert export("--output", output)[0] == 0
    (output / "model.onnx").write_bytes(b"of another model")
    assert export("--output", output)[0] == 0
    assert OnnxBackend(output / "model.onnx").preprocessing.attributes[0] == "Smiling"
    code, err = export("--output", output, "--backbone-only")
    assert code == 2
    assert "holds model.onnx of an earlier export" in err
    assert [file.name for file in output.iterdir()] == ["model.onnx"]


def test_file_in_place_of_the_output_folder_is_left_alone(export, tmp_path):
    (tmp_path / "out").write_text("thesis")
    code, err = export("--output", tmp_path / "out")
    assert code == 2
    assert err == f"error: --output {tmp_path / 'out'} is a file: give a folder\n"
    assert (tmp_path / "out").read_text() == "thesis"


def test_opset_that_is_no_number_is_refused(export, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        export("--output", tmp_path / "out", "--opset", "newest")
    assert stop.value.code == 2
    assert "newest" in capsys.readouterr().err


def test_model_that_is_damaged_is_one_line_and_writes_nothing(model_folder, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model_folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert main(["export", "--model", str(broken), "--output", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "cannot load the model" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [broken]


def test_an_export_of_a_hub_id_names_its_weights(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(model_folder))
    assert main(["export", "--model", "owner/name", "--output", str(tmp_path / "out")]) == 0
    backend = OnnxBackend(tmp_path / "out/model.onnx")
    assert not is_outdated(backend, model_folder)


def test_exported_file_is_no_model_to_export(exported, tmp_path, capsys):
    assert main(["export", "--model", str(exported), "--output", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "is a file: --model takes a folder, a Hub id or one of mobilefacenet" in err
    assert not (tmp_path / "out").exists()


def test_head_without_known_labels_is_said(make_backend, tmp_path):
    backend = make_backend(head_type="fc")
    path = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="known labels need a label2label head"):
        export_onnx(backend.model, backend.preprocessing, path, known_labels=True)
    assert not path.exists()


def test_folder_with_other_content_is_left_alone(export, tmp_path):
    (tmp_path / "thesis.txt").touch()
    code, err = export("--output", tmp_path)
    assert code == 2
    assert (
        err == f"error: --output {tmp_path} contains other files (thesis.txt): give a new folder\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opset", 7], "opset 7 is not supported"),
        (["--opset", 99], "opset 99 is not supported"),
        (["--int8"], "--int8 needs --calibration"),
        (["--calibration", "faces"], "--calibration is for --int8"),
        (["--backbone-only", "--known-labels"], "known labels need"),
    ],
)
def test_options_that_will_not_do_are_one_line_and_write_nothing(
    arguments, message, export, tmp_path
):
    code, err = export("--output", tmp_path / "out", *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "contains no images"),
        ({"a.png": (8, 8)}, "8x8 pixels"),
        ({"a.png": (112, 112)}, "one face"),
        ({"a.png": None, "b.png": (112, 112)}, "not an image"),
    ],
)
def test_calibration_faces_that_will_not_do_are_one_line(content, message, export, tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    for name, size in content.items():
        if size is None:
            (faces / name).write_text("no image")
        else:
            Image.new("RGB", size).save(faces / name)
    code, err = export("--int8", "--calibration", faces, "--output", tmp_path / "out")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_of_a_dataset_for_calibration_is_named_by_its_row(export, tmp_path):
    face = io.BytesIO()
    Image.new("RGB", (112, 112)).save(face, "PNG")
    images = [{"bytes": face.getvalue(), "path": "a.png"}, None]
    (tmp_path / "faces" / "data").mkdir(parents=True)
    shard = tmp_path / "faces" / "data" / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"image": images}), shard)
    code, err = export("--int8", "--calibration", tmp_path / "faces", "--output", tmp_path / "out")
    assert code == 2
    assert err.endswith(f"error: {tmp_path / 'faces'}, row 1: it is null\n")
