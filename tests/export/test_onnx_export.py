"""An exported file says what the model says, at every batch size, and what it is."""

import io
import json
import zipfile

import numpy as np
import onnx
import pytest
import torch
from label2label.checkpoints import default_checkpoint
from label2label.cli import main
from label2label.errors import UserError
from label2label.export.folding import fold_batch_norms
from label2label.export.onnx_export import export_onnx
from label2label.prediction.backend import load_backend
from label2label.prediction.onnx_backend import OnnxBackend
from PIL import Image
from torch import nn


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


@pytest.mark.parametrize("head_type", ["fc", "query2label"])
def test_other_heads_are_exported_too(head_type, make_backend, faces, tmp_path):
    backend = make_backend(head_type=head_type)
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    probabilities = OnnxBackend(tmp_path / "model.onnx").predict(faces[:3])
    assert np.abs(probabilities - backend.predict(faces[:3])).max() < 1e-4


def test_batch_norms_are_folded_and_the_model_is_left_alone(exported, backend):
    graph = onnx.load(exported).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    folded = fold_batch_norms(backend.model)
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not any(isinstance(module, kinds) for module in folded.modules())
    assert any(isinstance(module, kinds) for module in backend.model.modules())
    assert backend.model.config.temperature == 1.7


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
    (probabilities,) = session.run(None, {"pixel_values": faces})
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
        None, {"pixel_values": pixels, "known_labels": known}
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
    with pytest.raises(UserError, match="backbone alone"):
        OnnxBackend(path)


@pytest.mark.parametrize("opset", [18, 22])
def test_opset_is_the_one_asked_for(opset, backend, faces, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(backend.model, backend.preprocessing, path, opset=opset)
    assert onnx.load(path).opset_import[0].version == opset
    assert np.abs(OnnxBackend(path).predict(faces) - backend.predict(faces)).max() < 1e-4


@pytest.fixture(scope="module")
def real_faces(shared):
    """200 aligned photos of celebrities, uint8 (200, 112, 112, 3)."""
    processor = load_backend(None)
    with zipfile.ZipFile(shared / "data" / "celeba" / "img_align_celeba.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:200]
        photos = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    return np.stack([processor.crop(np.asarray(photo)) for photo in photos])


def test_shipped_model_agrees_with_torch_on_real_faces(real_faces, tmp_path):
    backend = load_backend(default_checkpoint())
    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    onnx_backend = OnnxBackend(tmp_path / "model.onnx")
    for start in range(0, 200, 50):
        batch = real_faces[start : start + 50]
        assert np.abs(onnx_backend.predict(batch) - backend.predict(batch)).max() < 1e-4


@pytest.fixture
def export(model_folder, capsys):
    """Runs the command; returns its exit code and standard error."""

    def run(*arguments):
        code = main(["export", "--model", str(model_folder), *map(str, arguments)])
        return code, capsys.readouterr().err

    return run


def test_command_writes_int8_beside_float(export, backend, faces, tmp_path):
    (tmp_path / "faces").mkdir()
    for i, face in enumerate(faces[:24]):
        Image.fromarray(face).save(tmp_path / "faces" / f"{i}.png")
    output = tmp_path / "new" / "out"
    code, err = export("--int8", "--calibration", tmp_path / "faces", "--output", output)
    assert code == 0, err
    assert sorted(file.name for file in output.iterdir()) == ["model.onnx", "model_int8.onnx"]
    sizes = [(output / name).stat().st_size for name in ("model.onnx", "model_int8.onnx")]
    assert sizes[1] < sizes[0]
    int8 = OnnxBackend(output / "model_int8.onnx")
    assert int8.preprocessing == backend.preprocessing
    assert np.abs(int8.predict(faces) - backend.predict(faces)).mean() < 0.03
    assert list((tmp_path / "new").iterdir()) == [output]
    assert export("--output", output)[0] == 0  # files of an earlier export are replaced


def test_folder_with_other_content_is_left_alone(export, tmp_path):
    (tmp_path / "thesis.txt").touch()
    code, err = export("--output", tmp_path)
    assert code == 2
    assert err == f"error: --output {tmp_path} holds other files (thesis.txt): give a new folder\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--opset", 7], "opset 7 is not supported"),
        (["--opset", 99], "opset 99 is not supported"),
        (["--int8"], "--int8 needs --calibration"),
        (["--calibration", "faces"], "--calibration is for --int8"),
        (["--backbone-only", "--known-labels"], "known labels condition"),
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
        ({}, "is empty"),
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
