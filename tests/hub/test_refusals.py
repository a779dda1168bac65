"""What push refuses, in one line, before anything leaves this machine or half of it arrives."""

import base64
import json
import os
import pickle
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import onnx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import close_session
from label2label.cli import main
from label2label.hub.upload import explain
from PIL import Image
from safetensors.torch import load_file, save_file

from .conftest import save_model

# Put together here, so that no scanner takes this file for a leak.
TOKEN_LIKE = "hf_" + "a1B2" * 9
SECRETS = (
    TOKEN_LIKE,
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "AKIA" + "ABCDEFGH12345678",
    "https://someone:" + "correct-horse@example.com/repo.git",
    "sk-ant-api03-" + "a1-B2_c" * 12,
    "aws_secret_access_key = " + "wJalr/XUtnFEMI1K7MDENGbPx" + "RfiCYEXAMPLEKEY",
    "WANDB_API_KEY=" + "0a1b" * 10,
    "token-of-someone",
)


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


@pytest.fixture
def command(model_folder, space_folder, make_dataset):
    """The folder of each kind of repository, and the arguments that push it."""
    dataset = make_dataset()
    return {
        "model": (model_folder, ("--model", model_folder, "--repo-id", "someone/faces")),
        "space": (space_folder, ("--space", space_folder, "--space-id", "someone/demo")),
        "dataset": (dataset, ("--dataset", dataset, "--dataset-id", "someone/data")),
    }


# Files that no repository consists of.
FOREIGN = {
    ".bash_history": b"ls",
    ".envrc": b"x",
    ".env": b"x",
    "prod.env": b"x",
    ".hidden": b"x",
    ".ssh/id_rsa": b"x",
    "kaggle.json": b"{}",
    "notes.txt": b"aws_secret_access_key = x",
    "train.log": b"WANDB_API_KEY=x",
    "utf16.txt": TOKEN_LIKE.encode("utf-16"),
    "base64.txt": base64.b64encode(TOKEN_LIKE.encode()),
    "a.txt": pickle.dumps([1], 0),
    "pytorch_model.bin": b"weights",
    "old.pt": b"weights",
    "extra.npz": b"weights",
    "list_attr_celeba.txt": b"202599",
    "x.dat": b"\xff\xd8\xff",
    "000001.heic": b"x",
    "examples/000042.jpg": b"x",
    "chart.png": b"x",
    "images/25_0_1_20170116174525125.jpg": b"x",
    "data/faces.zip": b"PK",
    "runs/events.out.tfevents": b"x",
    "odd\nname\x1b[2J": b"x",
}


@pytest.mark.parametrize("kind", ["model", "space", "dataset"])
def test_a_file_that_no_such_repository_consists_of_is_refused_by_name(hub, push, command, kind):
    folder, arguments = command[kind]
    for name, content in FOREIGN.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
        line = refused(hub, push, *arguments, "--dry-run")
        assert f"holds {name!r}, which does not belong" in line
        (folder / name).unlink()


@pytest.mark.parametrize("kind", ["model", "space", "dataset"])
def test_what_is_listed_for_one_kind_of_repository_is_foreign_to_the_others(
    hub, push, command, kind
):
    others = {"model": "data/train-0.parquet", "space": "plots/a.svg", "dataset": "app.py"}
    folder, arguments = command[kind]
    (folder / others[kind]).parent.mkdir(exist_ok=True)
    (folder / others[kind]).write_bytes(b"x")
    assert f"holds {others[kind]!r}" in refused(hub, push, *arguments, "--dry-run")


@pytest.mark.parametrize(("kind", "name"), [("model", "LICENSE"), ("space", "page")])
def test_a_symbolic_link_out_of_the_folder_is_refused(hub, push, command, tmp_path, kind, name):
    folder, arguments = command[kind]
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("x")
    (folder / name).symlink_to(tmp_path / ("outside/secret" if name == "LICENSE" else "outside"))
    assert "is a symbolic link out of the folder" in refused(hub, push, *arguments)


def test_a_pipe_is_refused_and_not_opened(hub, push, command):
    folder, arguments = command["model"]
    os.mkfifo(folder / "LICENSE")
    assert "holds 'LICENSE'" in refused(hub, push, *arguments)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_key_in_a_listed_text_file_is_refused(hub, push, command, secret):
    folder, arguments = command["space"]
    (folder / "app.py").write_text(f"import os\nVALUE = 1  # {secret}\n")
    line = refused(hub, push, *arguments)
    assert "app.py holds what looks like a key" in line
    assert secret not in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TOKEN_LIKE.encode("utf-16"), "is not UTF-8 text"),
        (pickle.dumps([1], 5), "is not UTF-8 text"),
        (b"a\0b", "is not text"),
    ],
)
def test_a_listed_text_file_holds_text(hub, push, command, content, message):
    folder, arguments = command["model"]
    (folder / "LICENSE").write_bytes(content)
    assert f"LICENSE {message}" in refused(hub, push, *arguments)


def test_a_key_in_a_config_is_refused(hub, push, command):
    folder, arguments = command["model"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "wandb_api_key": "0a1b" * 10}))
    assert "config.json holds what looks like a key" in refused(hub, push, *arguments)


def test_weights_carry_no_metadata_and_are_no_pickle(hub, push, command):
    folder, arguments = command["model"]
    weights = folder / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "note": TOKEN_LIKE})
    assert "model.safetensors has metadata ('note')" in refused(hub, push, *arguments)
    torch.save({"a": [1]}, weights)
    assert "model.safetensors is not a safetensors file" in refused(hub, push, *arguments)


def test_the_spaces_photo_is_plain_and_not_of_a_restricted_set(hub, push, command, shared):
    folder, arguments = command["space"]
    photo = folder / "on_device/example.jpg"
    photo.parent.mkdir()
    Image.new("RGB", (64, 48)).save(photo, comment=TOKEN_LIKE)
    assert "on_device/example.jpg has metadata ('comment')" in refused(hub, push, *arguments)
    Image.new("RGB", (178, 218)).save(photo)
    assert "has the size of an image of CelebA" in refused(hub, push, *arguments)
    photo.write_bytes(b"no image")
    assert "cannot be read as an image" in refused(hub, push, *arguments)
    archive = shared / "data/celeba/img_align_celeba.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as images:
            name = next(name for name in images.namelist() if name.endswith(".jpg"))
            photo.write_bytes(images.read(name))
        assert "has the size of an image of CelebA" in refused(hub, push, *arguments)
    Image.new("RGB", (64, 48)).save(photo)
    assert push(*arguments)[0] == 0


def test_a_dataset_whose_terms_forbid_it_is_refused(hub, push, make_dataset):
    dataset = make_dataset(redistributable=False, terms="Research only.")
    line = refused(hub, push, "--dataset", dataset, "--dataset-id", "someone/data")
    assert "Faces may not be uploaded: Research only." in line


def test_rows_of_a_restricted_set_are_refused_whatever_the_record_says(hub, push, make_dataset):
    dataset = make_dataset(source="celeba", redistributable=True)
    line = refused(hub, push, "--dataset", dataset, "--dataset-id", "someone/data")
    assert "rows of celeba" in line


def test_whoever_has_the_right_may_upload_it(hub, push, make_dataset):
    dataset = make_dataset(source="celeba", redistributable=False)
    right = "--i-have-the-right-to-redistribute"
    assert push("--dataset", dataset, "--dataset-id", "someone/data", right)[0] == 0
    assert hub.repository("dataset", "someone/data").private


def test_a_shard_that_is_no_parquet_is_refused(hub, push, command):
    folder, arguments = command["dataset"]
    (folder / "data/train-00001-of-00002.parquet").write_bytes(b"PAR1")
    assert "is not a shard of a prepared dataset" in refused(hub, push, *arguments)


@pytest.mark.parametrize("option", [(), ("--backbone-only",)])
def test_exports_of_other_weights_or_with_other_metadata_are_refused(
    hub, push, model_folder, tmp_path, option
):
    exports = tmp_path / "exports"
    assert main(["export", "--model", str(model_folder), "--output", str(exports), *option]) == 0
    (file,) = exports.glob("*.onnx")
    command = ("--repo-id", "someone/faces", "--onnx", exports, "--model")
    line = refused(hub, push, *command, save_model(tmp_path / "other", seed=1))
    assert "belongs to other weights" in line
    assert push(*command, model_folder)[0] == 0
    exported = file.read_bytes()
    assert hub.content("model", "someone/faces", f"onnx/{file.name}") == exported
    # In the model's folder they are found as well.
    (model_folder / file.name).write_bytes(exported)
    arguments = ("--model", model_folder, "--repo-id", "someone/faces")
    assert push(*arguments)[1].rstrip().endswith("unchanged")
    graph = onnx.load(file)
    onnx.helper.set_model_props(
        graph, {"note": TOKEN_LIKE, **{p.key: p.value for p in graph.metadata_props}}
    )
    onnx.save(graph, model_folder / file.name)
    code, _, err = push(*arguments)
    assert (code, "has metadata ('note')" in one_error(err)) == (2, True)
    (model_folder / file.name).write_bytes(b"no model")
    code, _, err = push(*arguments)
    assert (code, "is not an ONNX file that can run" in one_error(err)) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to push"),
        (("--dataset", "x"), "nothing to push"),
        (("--repo-id", "someone/faces", "--dataset", "x"), "go together"),
        (("--repo-id", "faces"), "has no owner"),
        (("--repo-id", "someone/a..b"), "is no repository name"),
        (("--repo-id", "someone/faces", "--model", "no/such/folder"), "is not a folder"),
        (("--dataset-id", "someone/x", "--dataset", "no/such"), "is not a prepared dataset"),
        (("--space-id", "someone/x", "--space", "no/such"), "is not a Space"),
        (("--space", "x", "--repo-id", "someone/faces"), "--space needs --space-id"),
        (("--model", "x", "--space-id", "someone/x"), "need --repo-id"),
        (("--results", "x", "--space-id", "someone/x"), "give --repo-id"),
        (("--repo-id", "someone/x", "--results", "no/such"), "cannot be read"),
        (("--repo-id", "someone/x", "--trained-on", "faces"), "terms of 'faces' are unknown"),
        (("--repo-id", "someone/x", "--onnx", "no/such"), "holds no ONNX files"),
        (("--repo-id", "someone/x", "--create-pr", "--revision", "v1"), "leave out --revision"),
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
    save_file({"a": torch.zeros(1)}, model_folder / "model.safetensors", metadata={"format": "pt"})
    assert "do not match its config.json" in refused(hub, push, *command, model_folder)
    assert "config.json cannot be read" in refused(hub, push, *command, tmp_path)


def test_a_card_of_ones_own_is_taken_as_it_is_or_refused(hub, push, model_folder):
    arguments = ("--model", model_folder, "--repo-id", "someone/faces")
    (model_folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert "its metadata cannot be read" in refused(hub, push, *arguments)
    (model_folder / "README.md").write_text("---\nlicense: mine\n---\n")
    code, _, err = push(*arguments)
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
    assert "token is no longer valid" in line
    assert "token-of-nobody" not in line


def test_a_token_that_may_only_read(hub, push, model_folder, monkeypatch):
    hub.add_user("reader", token="token-of-reader", role="read")
    monkeypatch.setenv("HF_TOKEN", "token-of-reader")
    line = refused(hub, push, "--model", model_folder, "--repo-id", "reader/faces")
    assert "is read-only" in line


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
    assert "HF_HUB_OFFLINE is set" in line


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
    assert explain(error, "a/b").endswith("does not support Xet: set HF_HUB_DISABLE_XET=1")


def test_no_right_to_write_under_a_name(hub, push, model_folder):
    line = refused(hub, push, "--model", model_folder, "--repo-id", "stranger/faces")
    assert "no permission to write to stranger/faces" in line
    assert 'under the namespace "stranger"' in line


def test_no_right_to_one_of_three_leaves_all_untouched(hub, push, model_folder, space_folder):
    code, _, err = push(
        *("--model", model_folder, "--repo-id", "someone/faces"),
        *("--space", space_folder, "--space-id", "stranger/demo"),
    )
    assert code == 2
    assert "no permission to write to stranger/demo" in one_error(err)
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
    assert "no permission to write to stranger/demo" in one_error(err)
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
    assert "someone/faces is another model, without" in one_error(err)
    assert not hub.count("POST", "/commit/")


@pytest.mark.parametrize(
    ("method", "path", "status", "said", "told"),
    [
        (
            "POST",
            "/api/repos/create",
            402,
            "Payment required",
            "the plan of someone does not cover",
        ),
        ("POST", "/api/repos/create", 409, "You already created this", "someone/faces is taken"),
        ("GET", "/api/whoami-v2", 429, "Too Many Requests", "rate limit"),
        ("POST", "/commit/", 402, "Private repository storage limit reached", "no storage left"),
        ("POST", "/commit/", 403, "Private repository storage limit reached", "no storage left"),
        ("POST", "/commit/", 413, "Too large", "no storage left"),
    ],
)
def test_what_the_hub_says_no_to_is_told_in_one_line(
    hub, push, model_folder, method, path, status, said, told
):
    hub.fail(method, path, status, said)
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert told in one_error(err)
    assert said.split()[0] in err
    assert not hub.count("POST", "/commit/")


def test_a_quota_that_the_weights_do_not_fit_into(hub, push, model_folder):
    hub.state.quota = 1000
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert "no storage left on the Hub" in one_error(err)
    assert not hub.state.objects


def test_a_revision_that_is_no_branch_and_cannot_be_one(hub, push, model_folder):
    push("--model", model_folder, "--repo-id", "someone/faces")
    code, _, err = push(
        "--model", model_folder, "--repo-id", "someone/faces", "--revision", "refs/pr/9"
    )
    assert code == 2
    assert "someone/faces has no such revision" in one_error(err)
