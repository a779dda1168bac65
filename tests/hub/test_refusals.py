"""What push refuses, in one line, before anything leaves this machine or half of it arrives."""

import pickle
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import close_session
from label2label.files import sha256
from label2label.hub.answers import explain
from PIL import Image

from .conftest import save_model

# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "notes.md": "hf_" + "a1B2" * 9,
    "train.log": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "aws.txt": "AKIA" + "ABCDEFGH12345678",
    "remote.txt": "https://someone:" + "correct-horse@example.com/repo.git",
    "nested/deep.yaml": "key: sk-" + "a1B2" * 10,
    "anthropic.txt": "sk-ant-api03-" + "a1-B2_c" * 12,
    "project.txt": "sk-proj-" + "a1-B2_c" * 20,
    "service.txt": "sk-svcacct-" + "a1_B2-c" * 20,
    "router.txt": "sk-or-v1-" + "0a1b" * 16,
    "own.txt": "token-of-someone",
}


def one_error(err):
    """The only line of an error."""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


def refused(hub, push, *arguments):
    code, _, err = push(*arguments)
    assert code == 2
    assert not hub.count("POST", "/api/repos/create|/commit/")
    assert not hub.state.objects
    return one_error(err)


@pytest.mark.parametrize("path", SECRETS)
def test_text_that_holds_a_secret_is_refused(hub, push, model_folder, path):
    (model_folder / path).parent.mkdir(exist_ok=True)
    (model_folder / path).write_text(f"some text\n{SECRETS[path]}\n")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert str(model_folder / path) in line
    assert SECRETS[path] not in line


@pytest.mark.parametrize(
    "name", [".env", "id_rsa", "server.key", "cert.pem", ".netrc", "credentials.json", "token"]
)
def test_a_file_named_like_a_secret_is_refused(hub, push, space_folder, name):
    (space_folder / name).write_text("x")
    line = refused(hub, push, "--space", space_folder, "--space-id", "someone/demo")
    assert f"{name} looks like a secret by its name" in line


@pytest.mark.parametrize("name", ["pytorch_model.bin", "old.pt", "scaler.pkl", "extra.npz"])
def test_pickles_are_refused_by_name(hub, push, model_folder, name):
    (model_folder / name).write_bytes(b"weights")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "upload safetensors only" in line


@pytest.mark.parametrize("save", [pickle.dump, torch.save])
def test_pickles_under_another_name_are_refused(hub, push, model_folder, save):
    with (model_folder / "weights.dat").open("wb") as file:
        save({"a": [1, 2]}, file)
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "is a pickle under another name" in line


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("000042.jpg", (64, 64), "named like an image of CelebA"),
        ("25_0_1_20170116174525125.jpg", (64, 64), "named like an image of UTKFace"),
        ("Grace_Hopper_0001.jpg", (64, 64), "named like an image of LFW"),
        ("example.jpg", (178, 218), "has the size of an image of CelebA"),
        ("example.png", (89, 109), "has the size of an image of CelebA"),
    ],
)
def test_images_of_restricted_sets_are_refused(hub, push, space_folder, name, size, message):
    (space_folder / "examples").mkdir()
    Image.fromarray(np.full((*size[::-1], 3), 99, np.uint8)).save(space_folder / "examples" / name)
    line = refused(hub, push, "--space", space_folder, "--space-id", "someone/demo")
    assert message in line


def test_a_real_image_of_celeba_is_refused_under_any_name(hub, push, space_folder, shared):
    archive = shared / "data/celeba/img_align_celeba.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with zipfile.ZipFile(archive) as images:
        name = next(name for name in images.namelist() if name.endswith(".jpg"))
        (space_folder / "example.jpg").write_bytes(images.read(name))
    line = refused(hub, push, "--space", space_folder, "--space-id", "someone/demo")
    assert "has the size of an image of CelebA" in line


def test_free_images_are_taken(hub, push, space_folder):
    Image.fromarray(np.full((64, 48, 3), 99, np.uint8)).save(space_folder / "hopper.jpg")
    assert push("--space", space_folder, "--space-id", "someone/demo")[0] == 0
    assert "hopper.jpg" in hub.repository("space", "someone/demo").resolve("main").files


def test_data_is_refused_outside_a_dataset_repository(hub, push, model_folder):
    (model_folder / "faces.parquet").write_bytes(b"PAR1")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "belongs in a dataset repository" in line


def test_a_dataset_whose_terms_forbid_it_is_refused(hub, push, make_dataset):
    dataset = make_dataset(redistributable=False, terms="Research only.", title="Faces")
    line = refused(hub, push, "--dataset", dataset, "--dataset-id", "someone/data")
    assert "Faces may not be uploaded: Research only." in line


def test_rows_of_a_restricted_set_are_refused_whatever_the_card_says(hub, push, make_dataset):
    dataset = make_dataset(source="celeba", redistributable=True)
    line = refused(hub, push, "--dataset", dataset, "--dataset-id", "someone/data")
    assert "rows of celeba" in line


def test_whoever_has_the_right_may_upload_it(hub, push, make_dataset):
    dataset = make_dataset(source="celeba", redistributable=False)
    right = "--i-have-the-right-to-redistribute"
    assert push("--dataset", dataset, "--dataset-id", "someone/data", right)[0] == 0


def test_exports_of_other_weights_are_refused(hub, push, model_folder, tmp_path):
    pytest.importorskip("onnx")
    from label2label.export.onnx import export_onnx
    from label2label.prediction.backends import TorchBackend

    (tmp_path / "exports").mkdir()
    ours = TorchBackend.from_pretrained(model_folder)
    export_onnx(ours.model, ours.preprocessing, tmp_path / "exports/model.onnx")
    command = ("--repo-id", "someone/faces", "--onnx", tmp_path / "exports", "--model")
    line = refused(hub, push, *command, save_model(tmp_path / "other", seed=1))
    assert "is of other weights" in line
    assert push(*command, model_folder)[0] == 0
    exported = (tmp_path / "exports/model.onnx").read_bytes()
    assert hub.content("model", "someone/faces", "onnx/model.onnx") == exported
    # In the model's folder they are found as well.
    (model_folder / "model.onnx").write_bytes(exported)
    code, out, _ = push("--model", model_folder, "--repo-id", "someone/faces")
    assert (code, out.rstrip().endswith("unchanged")) == (0, True)


@pytest.mark.parametrize("uint8_input", [False, True])
def test_backbones_that_cannot_run_or_of_other_weights_are_refused(
    hub, push, model_folder, tmp_path, uint8_input
):
    pytest.importorskip("onnx")
    from label2label.export.onnx import export_onnx
    from label2label.prediction.backends import TorchBackend

    exports = tmp_path / "exports"
    exports.mkdir()
    file = exports / "backbone.onnx"
    command = ("--repo-id", "someone/faces", "--onnx", exports, "--model")
    file.write_bytes(b"no model")
    line = refused(hub, push, *command, model_folder)
    assert "backbone.onnx is no ONNX file that can run" in line
    ours = TorchBackend.from_pretrained(model_folder)
    options = {"uint8_input": uint8_input, "backbone_only": True}
    export_onnx(ours.model, ours.preprocessing, file, **options)
    line = refused(hub, push, *command, save_model(tmp_path / "other", seed=1))
    assert "backbone.onnx is of another model or of other weights than" in line
    assert push(*command, model_folder)[0] == 0
    assert hub.content("model", "someone/faces", "onnx/backbone.onnx") == file.read_bytes()


def test_int8_of_other_weights_or_of_unknown_ones_is_refused(hub, push, model_folder, tmp_path):
    pytest.importorskip("onnx")
    from label2label.export.int8 import quantize_onnx
    from label2label.export.onnx import export_onnx
    from label2label.prediction.backends import TorchBackend

    exports = tmp_path / "exports"
    exports.mkdir()
    ours = TorchBackend.from_pretrained(model_folder)
    export_onnx(ours.model, ours.preprocessing, tmp_path / "float.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (8, 112, 112, 3), np.uint8)
    command = ("--repo-id", "someone/faces", "--onnx", exports, "--model")

    def quantize(digest):
        file = exports / "model_int8.onnx"
        quantize_onnx(tmp_path / "float.onnx", file, crops, 1.0, weights_sha256=digest)

    quantize(None)
    assert "does not say that it is of" in refused(hub, push, *command, model_folder)
    quantize(sha256(model_folder / "model.safetensors"))
    line = refused(hub, push, *command, save_model(tmp_path / "other", seed=1))
    assert "model_int8.onnx is of other weights than" in line
    assert push(*command, model_folder)[0] == 0
    exported = (exports / "model_int8.onnx").read_bytes()
    assert hub.content("model", "someone/faces", "onnx/model_int8.onnx") == exported


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to push"),
        (("--dataset", "x"), "nothing to push"),
        (("--repo-id", "someone/faces", "--dataset", "x"), "go together"),
        (("--repo-id", "faces"), "has no owner"),
        (("--repo-id", "someone/a..b"), "is no name of a repository"),
        (("--repo-id", "someone/faces", "--model", "no/such/folder"), "is no folder"),
        (("--dataset-id", "someone/x", "--dataset", "no/such"), "holds no prepared dataset"),
        (("--space-id", "someone/x", "--space", "no/such"), "holds no Space"),
        (("--space", "x", "--repo-id", "someone/faces"), "--space needs --space-id"),
        (("--model", "x", "--space-id", "someone/x"), "need --repo-id"),
        (("--repo-id", "someone/x", "--onnx", "no/such"), "holds no ONNX files"),
        (("--repo-id", "someone/x", "--create-pr", "--revision", "v1"), "without --revision"),
    ],
)
def test_wrong_arguments_end_in_one_line(hub, push, arguments, message):
    assert message in refused(hub, push, *arguments)


def test_a_folder_without_safetensors_or_with_other_weights_is_no_model(
    hub, push, model_folder, tmp_path
):
    other = save_model(tmp_path / "other")
    command = ("--repo-id", "someone/faces", "--model")
    (other / "model.safetensors").unlink()
    assert "has no model.safetensors" in refused(hub, push, *command, other)
    (model_folder / "model.safetensors").write_bytes(b"damaged")
    assert "cannot load the model" in refused(hub, push, *command, model_folder)
    assert "config.json cannot be read" in refused(hub, push, *command, tmp_path)


def test_a_card_whose_metadata_is_no_yaml_is_refused_here(hub, push, model_folder):
    (model_folder / "README.md").write_text("---\nlicense: [\n---\n")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "its metadata cannot be read" in line


def test_metadata_that_the_hub_refuses_ends_in_one_line(hub, push, model_folder):
    (model_folder / "README.md").write_text("---\nlicense: mine\n---\n")
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert '"license" must be one of' in one_error(err)
    assert not hub.state.objects


# What the Hub says no to.


def test_no_token(hub, push, model_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "no access token: log in with `hf auth login`, or set HF_TOKEN" in line
    assert not hub.requests


def test_a_token_that_is_not_valid(hub, push, model_folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "token-of-nobody")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "token is not valid" in line
    assert "token-of-nobody" not in line


def test_a_token_that_may_only_read(hub, push, model_folder, monkeypatch):
    hub.add_user("reader", token="token-of-reader", role="read")
    monkeypatch.setenv("HF_TOKEN", "token-of-reader")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "reader/faces")
    assert "may only read" in line


def test_no_network(hub, push, model_folder, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert f"the Hub at {nobody} cannot be reached" in line
    assert "HF_ENDPOINT" in line


def test_offline_mode(hub, push, model_folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()  # the client asks for the mode when it is made
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    close_session()
    assert "HF_HUB_OFFLINE forbids" in line


def test_something_that_is_not_the_hub(hub, push, model_folder, monkeypatch):
    class Portal(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Please log in</html>")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Portal) as portal:
        threading.Thread(target=portal.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{portal.server_port}")
        line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
        portal.shutdown()
    assert "is not the Hub" in line


def test_a_server_without_xet_is_told_with_the_way_out():
    error = HTTPError("404 Not Found: http://127.0.0.1/api/models/a/b/xet-write-token/main")
    assert explain(error, "a/b").endswith("does not speak Xet: set HF_HUB_DISABLE_XET=1")


def test_a_plan_that_has_no_spaces(hub, push, space_folder):
    hub.fail("POST", "/api/repos/create", 402, "Payment required")
    line = refused(hub, push, "--space", space_folder, "--space-id", "someone/demo")
    assert "the plan of someone does not cover someone/demo (Payment required)" in line


def test_no_right_to_write_under_a_name(hub, push, model_folder):
    line = refused(hub, push, "--model", model_folder, "--repo-id", "stranger/faces")
    assert "no right to write to stranger/faces" in line
    assert 'under the namespace "stranger"' in line


def test_no_right_to_one_of_three_leaves_all_untouched(hub, push, model_folder, space_folder):
    code, _, err = push(
        *("--model", model_folder, "--repo-id", "someone/faces"),
        *("--space", space_folder, "--space-id", "stranger/demo"),
    )
    assert code == 2
    assert "no right to write to stranger/demo" in one_error(err)
    assert not hub.count("POST", "/commit/")
    assert not hub.state.objects


@pytest.mark.parametrize("option", [(), ("--revision", "v2")])
def test_somebody_elses_space_that_can_be_read_leaves_the_model_uncommitted(
    hub, push, model_folder, space_folder, monkeypatch, option
):
    hub.add_user("stranger", token="token-of-stranger")
    with monkeypatch.context() as other:
        other.setenv("HF_TOKEN", "token-of-stranger")
        assert push("--space", space_folder, "--space-id", "stranger/demo", "--public")[0] == 0
    sent = hub.count("PUT", "/objects/"), hub.count("POST", "/commit/")
    code, _, err = push(
        *("--model", model_folder, "--repo-id", "someone/faces"),
        *("--space", space_folder, "--space-id", "stranger/demo", *option),
    )
    assert code == 2
    assert "no right to write to stranger/demo" in one_error(err)
    assert (hub.count("PUT", "/objects/"), hub.count("POST", "/commit/")) == sent
    assert ("model", "someone/faces") not in hub.state.repositories
    assert not hub.count("POST", "/branch/")


def test_a_name_that_another_model_has(hub, push, model_folder):
    someone = hub.state.users["token-of-someone"]
    hub.state.create(someone, "model", "someone/faces", True, None)
    repository = hub.repository("model", "someone/faces")
    files = dict(repository.resolve("main").files)
    repository.add_commit("main", "a novel", {**files, "novel.txt": files[".gitattributes"]})
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert "the name someone/faces is taken by another model" in one_error(err)
    assert not hub.count("POST", "/commit/")


def test_a_name_that_is_taken_while_it_is_asked_for(hub, push, model_folder):
    hub.fail("POST", "/api/repos/create", 409, "You already created this model repo")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "the name someone/faces is taken" in line


@pytest.mark.parametrize("status", [402, 403, 413])
def test_a_full_quota(hub, push, model_folder, status):
    hub.fail("POST", "/commit/", status, "Private repository storage limit reached")
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert "someone has no room left on the Hub for someone/faces" in one_error(err)
    files = hub.repository("model", "someone/faces").resolve("main").files
    assert "config.json" not in files


def test_a_quota_that_the_weights_do_not_fit_into(hub, push, model_folder):
    hub.state.quota = 1000
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert "no room left on the Hub" in one_error(err)
    assert not hub.state.objects


def test_a_rate_limit(hub, push, model_folder):
    hub.fail("GET", "/api/whoami-v2", 429, "Too Many Requests")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "someone/faces")
    assert "slow down" in line


def test_a_revision_that_is_no_branch_and_cannot_be_one(hub, push, model_folder):
    push("--model", model_folder, "--repo-id", "someone/faces")
    code, _, err = push(
        "--model", model_folder, "--repo-id", "someone/faces", "--revision", "refs/pr/9"
    )
    assert code == 2
    assert "someone/faces has no such revision" in one_error(err)
