"""Up by the command, down by the libraries that people use, each in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from label2label import (
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
    MobileFaceNetModel,
)
from label2label.cli import main
from PIL import Image

from .conftest import ATTRIBUTES, TOKEN

pytestmark = pytest.mark.slow


@pytest.fixture
def run(hub, tmp_path):
    """Run Python in a fresh process with an empty cache, against the Hub on this machine."""
    hub.part_size = 50_000  # so that weights are uploaded in parts

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "HF_ENDPOINT": hub.endpoint,
                "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / f"cache-{len(hub.requests)}"),
                "HF_HUB_DISABLE_XET": "1",
                **environment,
            },
        )

    return run


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


LOAD = """
import json, os, sys
sys.modules["label2label"] = None  # as where it is not installed
import torch
from datasets import load_dataset
from huggingface_hub import hf_hub_download
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
name, photo = "someone/faces", sys.argv[1]
trust = dict(trust_remote_code=True)
assert not os.path.exists(os.environ["HF_HOME"])
model = AutoModelForImageClassification.from_pretrained(name, **trust).eval()
processor = AutoImageProcessor.from_pretrained(name, **trust)
with torch.no_grad():
    logits = model(**processor(Image.open(photo), return_tensors="pt")).logits[0].tolist()
classify = pipeline("image-classification", model=name, **trust)
scores = {entry["label"]: entry["score"] for entry in classify(photo, top_k=None)}
data = load_dataset("someone/data")
rows = [
    [split, row["image"].size, row["image"].getpixel((0, 0))[0], row["Eyeglasses"], row["identity"]]
    for split in ("train", "test")
    for row in data[split]
]
app = open(hf_hub_download("someone/demo", "app.py", repo_type="space")).read()
print(json.dumps({"logits": logits, "scores": scores, "rows": rows, "app": app}))
"""


def test_what_is_pushed_loads_in_a_fresh_process_without_the_package_and_gives_the_same_numbers(
    hub, run, model_folder, make_dataset, space_folder, photo
):
    command = ["-m", "label2label", "push"]
    command += ["--model", model_folder, "--repo-id", "someone/faces"]
    command += ["--dataset", make_dataset(rows=6), "--dataset-id", "someone/data"]
    command += ["--space", space_folder, "--space-id", "someone/demo"]
    # The server fails in the middle of the second of three commits; the same command goes on.
    hub.fail("POST", "/api/datasets/someone/data/commit/", 500, "Internal Error")
    failed = run(*command)
    assert failed.returncode == 2
    assert "someone/data was not uploaded" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert set(hub.repository("dataset", "someone/data").resolve("main").files) == {
        ".gitattributes"
    }
    sent = hub.count("PUT", "/(objects|parts)/")
    pushed = run(*command)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.splitlines()[0].endswith("someone/faces: unchanged")
    assert hub.count("PUT", "/(objects|parts)/") == sent
    for kind, name in (("model", "faces"), ("dataset", "data"), ("space", "demo")):
        assert len(hub.repository(kind, f"someone/{name}").history()) == 2

    done = run("-c", LOAD, photo)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    model = Label2LabelForImageClassification.from_pretrained(model_folder).eval()
    inputs = Label2LabelImageProcessor.from_pretrained(model_folder)(
        Image.open(photo), return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    assert result["logits"] == pytest.approx(logits.tolist(), abs=1e-6)
    expected = dict(zip(ATTRIBUTES, logits.sigmoid().tolist(), strict=True))
    assert result["scores"] == pytest.approx(expected, abs=1e-6)
    assert result["rows"] == [
        ["test" if i == 5 else "train", [16, 16], 10 * i, i % 2 == 0, str(i)] for i in range(6)
    ]
    assert result["app"] == (space_folder / "app.py").read_text()
    # The storage's addresses are signed: a client that sent it the token would have been refused.
    assert hub.count("GET", "^/objects/") >= 3
    assert not [request for request in hub.requests if request[2] == 400]


def test_nobody_else_can_load_a_private_repository(hub, run, push, model_folder):
    assert push("--model", model_folder, "--repo-id", "someone/faces")[0] == 0
    refused = run(
        "-c", "from huggingface_hub import model_info; model_info('someone/faces')", HF_TOKEN=""
    )
    assert refused.returncode == 1
    assert "RepositoryNotFoundError" in refused.stderr


FETCH = """
from label2label.errors import UserError
from label2label.prediction.backends import fetch_model, list_onnx, load_backend
folder = fetch_model("someone/faces")
assert list_onnx(folder) == [folder / "onnx/model.onnx"]
assert fetch_model("someone/faces/onnx/model.onnx") == folder / "onnx/model.onnx"
print(type(load_backend("someone/faces")).__name__)  # its export is not outdated
try:
    load_backend("someone/gone")
except UserError as error:
    print(error)
"""


def test_a_pushed_model_is_predicted_by_the_export_in_its_repository(
    hub, run, push, model_folder, tmp_path
):
    exports = tmp_path / "exports"
    assert main(["export", "--model", str(model_folder), "--output", str(exports)]) == 0
    assert push("--model", model_folder, "--onnx", exports, "--repo-id", "someone/faces")[0] == 0
    done = run("-c", FETCH)
    assert done.returncode == 0, done.stderr
    backend, error = done.stdout.splitlines()
    assert backend == "OnnxBackend"
    assert error.startswith("someone/gone does not exist here and cannot be fetched from the Hub")
    assert hub.count("GET", "^/api/models/someone/faces/revision/main") == 2  # one per load


LOAD_BACKBONE = """
import json, sys
sys.modules["label2label"] = None
import torch
from transformers import AutoBackbone, AutoImageProcessor, AutoModel
trust = dict(trust_remote_code=True)
backbone = AutoBackbone.from_pretrained("someone/backbone", **trust).eval()
encoder = AutoModel.from_pretrained("someone/backbone", **trust).eval()
processor = AutoImageProcessor.from_pretrained("someone/backbone", **trust)
pixels = torch.linspace(-1, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
with torch.no_grad():
    features = backbone(pixels).feature_maps[-1]
    embedding = encoder(pixels).pooler_output
print(json.dumps({
    "features": features.sum().item(),
    "shape": list(features.shape),
    "embedding": embedding[0].tolist(),
    "template": processor.alignment_template[0],
}))
"""


def load_backbone(run, push, folder):
    assert push("--model", folder, "--repo-id", "someone/backbone")[0] == 0
    done = run("-c", LOAD_BACKBONE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    model = MobileFaceNetModel.from_pretrained(folder).eval()
    pixels = torch.linspace(-1, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
    with torch.no_grad():
        expected = model(pixels)
    assert result["features"] == pytest.approx(expected.last_hidden_state.sum().item(), rel=1e-4)
    assert result["embedding"] == pytest.approx(expected.pooler_output[0].tolist(), abs=1e-5)
    return result


def test_autobackbone_loads_a_backbone_by_its_hub_id(run, push, backbone_folder):
    result = load_backbone(run, push, backbone_folder)
    assert result["shape"] == [1, 24, 7, 7]


def test_autobackbone_loads_what_convert_wrote(run, push, shared, tmp_path):
    checkpoint = shared / "weights/mobilefacenet_ms1m_relu6.pt"
    if not checkpoint.is_file():
        pytest.skip(f"no {checkpoint}")
    assert main(["convert", str(checkpoint), str(tmp_path / "converted")]) == 0
    result = load_backbone(run, push, tmp_path / "converted")
    assert result["shape"] == [1, 512, 7, 7]
    assert result["template"] == pytest.approx([38.2946, 51.6963])  # a recogniser's crop
