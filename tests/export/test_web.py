"""What `label2label export --web` lays out for the page that runs on a user's device."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from label2label.cli import main
from label2label.export import web
from label2label.faces import detection
from label2label.prediction.backends import OnnxBackend
from label2label.prediction.drawing import ATTRIBUTE_NAMES

RUNTIME = {web.RUNTIME_MODULE: b"export const env = {};", web.RUNTIME_WASM: b"\0asm"}


@pytest.fixture(autouse=True)
def detector(tmp_path, monkeypatch):
    """A detector's file; it is only copied."""
    path = tmp_path / "yunet.onnx"
    path.write_bytes(b"a detector")
    monkeypatch.setenv(detection.DETECTOR_VARIABLE, str(path))
    return path


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that packs a small runtime, whose content is the pinned one; it counts its runs."""
    for name, content in RUNTIME.items():
        monkeypatch.setitem(web.RUNTIME_SHA256, name, hashlib.sha256(content).hexdigest())
    folder = tmp_path / "bin"
    folder.mkdir()
    archive = folder / "package.tgz"

    def pack(contents):
        with tarfile.open(archive, "w:gz") as file:
            for name, content in contents.items():
                entry = tarfile.TarInfo(f"package/dist/{name}")
                entry.size = len(content)
                file.addfile(entry, io.BytesIO(content))

    pack(RUNTIME)
    script = folder / "npm"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/runs\ncp {archive} runtime.tgz')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return {"pack": pack, "runs": folder / "runs", "script": script}


@pytest.fixture
def export(model_folder, capsys):
    """Runs the command; returns its exit code and standard error."""

    def run(*arguments):
        code = main(["export", "--model", str(model_folder), "--web", *map(str, arguments)])
        return code, capsys.readouterr().err

    return run


def test_page_gets_all_that_it_needs(npm, export, backend, faces, tmp_path, detector):
    assets = tmp_path / "assets"
    assert export("--output", assets) == (0, "")
    assert sorted(file.name for file in assets.iterdir()) == sorted(["model.onnx", *web.WEB_FILES])
    page = json.loads((assets / web.PAGE_FILE).read_text(encoding="utf-8"))
    for part in ("model", "detector", "runtime"):
        assert (assets / page[part]["file"]).stat().st_size == page[part]["bytes"]
    assert (assets / page["detector"]["file"]).read_bytes() == detector.read_bytes()
    assert (assets / page["runtime"]["module"]).read_bytes() == RUNTIME[web.RUNTIME_MODULE]
    preprocessing = OnnxBackend(assets / "model.onnx").preprocessing
    assert page["attributes"] == preprocessing.attributes == backend.preprocessing.attributes
    assert page["thresholds"] == preprocessing.thresholds
    assert page["alignment_template"] == preprocessing.alignment_template
    assert page["exclusive_answers"] == preprocessing.exclusive_answers != []
    assert page["detector"]["score_threshold"] == detection.SCORE_THRESHOLD
    assert page["crop_size"] == 112
    assert sorted(name for names in page["groups"].values() for name in names) == sorted(
        page["attributes"]
    )
    assert page["groups"]["expression"] == ["Smiling"]
    for language, names in page["names"].items():
        assert names == {name: ATTRIBUTE_NAMES[language][name] for name in page["attributes"]}
    session = onnxruntime.InferenceSession(assets / "model.onnx")
    (probabilities,) = session.run(["probabilities"], {"pixel_values": faces[:2]})
    assert np.abs(probabilities - backend.predict(faces[:2])).max() < 1e-4


def test_attributes_of_no_group_are_shown_too(npm, make_backend, tmp_path):
    named = make_backend().preprocessing
    named.attributes[0] = "Freckles"
    for name in (*RUNTIME, "model.onnx", web.DETECTOR_FILE):
        (tmp_path / name).touch()
    page = web.describe_page(tmp_path, "model.onnx", named)
    assert page["names"]["ko"]["Freckles"] == "Freckles"
    assert page["groups"]["other"] == ["Freckles"]
    assert "expression" not in page["groups"]


def test_runtime_that_is_there_is_not_fetched_again(npm, backend, tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder, earlier in zip(folders, [tmp_path / "none", *folders], strict=False):
        folder.mkdir()
        if folder.name == "third":
            (earlier / web.RUNTIME_WASM).write_bytes(b"damaged")
        web.fetch_web_files(folder, backend.preprocessing, earlier)
        assert (folder / web.RUNTIME_WASM).read_bytes() == RUNTIME[web.RUNTIME_WASM]
    runs = npm["runs"].read_text()
    assert runs.count("\n") == 2  # for the first, and for the third as the second's is damaged
    assert f"onnxruntime-web@{web.RUNTIME_VERSION}" in runs


def test_runtime_of_other_content_is_refused(npm, export, tmp_path):
    npm["pack"]({**RUNTIME, web.RUNTIME_WASM: b"something else"})
    code, err = export("--output", tmp_path / "assets")
    assert code == 2
    assert "differs from the files that the page was tested with" in err
    npm["pack"]({"README.md": b""})
    assert "differs from the files" in export("--output", tmp_path / "assets")[1]
    assert not (tmp_path / "assets").exists()


def test_registry_that_cannot_be_reached_is_one_line(npm, export, tmp_path):
    npm["script"].write_text("#!/bin/sh\necho 'npm error code ENOTFOUND\nnpm error x' >&2; exit 1")
    code, err = export("--output", tmp_path / "assets")
    assert code == 2
    assert err.count("\n") == 1
    assert f"npm cannot get onnxruntime-web@{web.RUNTIME_VERSION}: npm error code ENOTFOUND" in err
    assert not (tmp_path / "assets").exists()


def test_machine_without_npm_is_one_line(export, tmp_path, monkeypatch):
    monkeypatch.setattr(web.shutil, "which", lambda name: None)
    code, err = export("--output", tmp_path / "assets")
    assert (code, err.count("\n")) == (2, 1)
    assert "install Node.js and npm" in err


def test_machine_without_the_detector_is_one_line(npm, export, tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "find_detector_file", lambda: None)
    code, err = export("--output", tmp_path / "assets")
    assert (code, err.count("\n")) == (2, 1)
    assert f"set {detection.DETECTOR_VARIABLE}" in err
    assert not (tmp_path / "assets").exists()


@pytest.mark.parametrize("option", ["--backbone-only", "--known-labels"])
def test_other_models_than_the_page_runs_are_refused(option, export, tmp_path):
    code, err = export("--output", tmp_path / "assets", option)
    assert code == 2
    assert "--web exports one float model" in err
    assert not Path(tmp_path / "assets").exists()


def test_model_that_resizes_its_crops_is_refused(make_backend, tmp_path):
    preprocessing = make_backend().preprocessing
    object.__setattr__(preprocessing, "shortest_edge", 128)
    with pytest.raises(web.UserError, match="resizes them to 128 pixels"):
        web.fetch_web_files(tmp_path, preprocessing, earlier=tmp_path)
