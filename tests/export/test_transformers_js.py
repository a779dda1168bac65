"""A pushed repository's `onnx/` is read by transformers.js in Node, from local files."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from label2label.cli import main
from label2label.hub.repositories import model_repository
from PIL import Image

pytestmark = pytest.mark.slow
PACKAGE = "@huggingface/transformers@4.3.2"
PROGRAM = """
import { env, AutoModel, AutoImageProcessor, RawImage } from "@huggingface/transformers";
env.allowRemoteModels = false;
env.localModelPath = "./models/";
const processor = await AutoImageProcessor.from_pretrained("me/faces");
const model = await AutoModel.from_pretrained("me/faces", { dtype: "fp32" });
const { probabilities } = await model(await processor(await RawImage.read("face.png")));
console.log(JSON.stringify(Array.from(probabilities.data)));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A folder with transformers.js."""
    if not shutil.which("node") or not (npm := shutil.which("npm")):
        pytest.skip("no Node.js with npm")
    folder = tmp_path_factory.mktemp("node")
    # Without scripts: they fetch runtimes for GPUs.
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot get {PACKAGE}: {done.stderr.strip()[-200:]}")
    (folder / "program.mjs").write_text(PROGRAM)
    return folder


def test_probabilities_in_javascript_are_those_of_torch(
    node, backend, model_folder, faces, tmp_path
):
    command = ["export", "--model", str(model_folder), "--output", str(tmp_path / "onnx")]
    assert main(command) == 0
    repository = model_repository(model_folder, "me/faces", onnx=tmp_path / "onnx")
    assert "onnx/model.onnx" in repository.files
    for path, content in repository.files.items():
        file = node / "models/me/faces" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    face = Image.fromarray(faces[0])
    face.save(node / "face.png")
    done = subprocess.run(
        ["node", "program.mjs"], cwd=node, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pixels = backend.processor(face, return_tensors="pt").pixel_values
    with torch.inference_mode():
        expected = backend.model(pixels).logits.sigmoid()[0].numpy()
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert expected.std() > 0.01
    assert np.abs(found - expected).max() < 1e-3
