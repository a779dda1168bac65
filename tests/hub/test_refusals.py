"""What push refuses, in one line, before anything leaves this machine or half of it arrives."""

import base64
import io
import json
import os
import pickle
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import onnx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from label2label.cli import main
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


@pytest.fixture
def folders(model_folder, space_folder, make_dataset):
    """Write a folder of each kind of repository."""
    return {"model": model_folder, "space": space_folder, "dataset": make_dataset()}


def arguments(kind, folder):
    """The options that push a folder."""
    names = {"model": "--repo-id", "space": "--space-id", "dataset": "--dataset-id"}
    return (f"--{kind}", folder, names[kind], f"someone/{kind}")


@pytest.fixture
def refuse(hub, push):
    """Run `push`; return the one line of its error, after which nothing may have been sent."""

    def run(*options):
        sent = hub.count("PUT", ""), hub.count("POST", "/commit/")
        code, _, err = push(*options)
        assert (code, "Traceback" in err) == (2, False)
        assert (hub.count("PUT", ""), hub.count("POST", "/commit/")) == sent
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return line

    return run


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


LISTED_ELSEWHERE = {"model": "data/train-0.parquet", "space": "plots/a.svg", "dataset": "app.py"}


@pytest.mark.parametrize("kind", LISTED_ELSEWHERE)
def test_a_file_that_no_such_repository_consists_of_is_refused_by_name(refuse, folders, kind):
    folder = folders[kind]
    for name, content in {**FOREIGN, LISTED_ELSEWHERE[kind]: b"x"}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
        line = refuse(*arguments(kind, folder), "--dry-run")
        assert f"holds {name!r}, which does not belong" in line
        (folder / name).unlink()


def test_links_out_of_the_folder_and_pipes_are_refused_and_not_opened(refuse, folders, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("x")
    model, space = folders["model"], folders["space"]
    (model / "LICENSE").symlink_to(tmp_path / "outside/secret")
    assert "is a symbolic link out of the folder" in refuse(*arguments("model", model))
    (space / "page").symlink_to(tmp_path / "outside")
    assert "is a symbolic link out of the folder" in refuse(*arguments("space", space))
    (model / "LICENSE").unlink()
    os.mkfifo(model / "LICENSE")
    assert "holds 'LICENSE'" in refuse(*arguments("model", model))


def jpeg(size, **options):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "JPEG", **options)
    return file.getvalue()


def encoded(text, charset="utf-8", before=""):
    """Base64 in lines, after other bytes of the same block."""
    return base64.encodebytes((before + text).encode(charset))


KEY = "holds what looks like a key"
CONTENTS = [
    *(("space", "app.py", f"VALUE = 1  # {secret}\n".encode(), KEY) for secret in SECRETS),
    *(
        ("space", "app.py", encoded(secret, before="key=" * n), KEY)
        for n, secret in enumerate(SECRETS)
    ),
    ("space", "app.py", b'A = "' + encoded(TOKEN_LIKE, "utf-16").strip(), KEY),
    ("space", "app.py", b"x=" + base64.urlsafe_b64encode(TOKEN_LIKE.encode()).rstrip(b"="), KEY),
    ("model", "LICENSE", TOKEN_LIKE.encode("utf-16"), "LICENSE is not UTF-8 text"),
    ("model", "LICENSE", pickle.dumps([1], 5), "LICENSE is not UTF-8 text"),
    ("model", "LICENSE", b"a\0b", "LICENSE is not text"),
    ("model", "README.md", b"---\nlicense: [\n---\n", "its metadata cannot be read"),
    ("model", "model.safetensors", b"\x80\x02", "is not a safetensors file"),
    (
        "space",
        "on_device/example.jpg",
        jpeg((64, 48), comment=TOKEN_LIKE),
        "has metadata ('comment')",
    ),
    ("space", "on_device/example.jpg", jpeg((178, 218)), "the size of an image of CelebA"),
    ("space", "on_device/example.jpg", b"no image", "cannot be read as an image"),
    ("dataset", "data/train-9.parquet", b"PAR1", "is not a shard of a prepared dataset"),
]


@pytest.mark.parametrize(("kind", "name", "content", "message"), CONTENTS)
def test_a_listed_file_holds_what_it_should(refuse, folders, kind, name, content, message):
    path = folders[kind] / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    line = refuse(*arguments(kind, folders[kind]))
    assert message in line
    assert not any(secret in line for secret in SECRETS)


def test_configs_and_weights_carry_no_keys(refuse, model_folder):
    config = model_folder / "config.json"
    before = config.read_text()
    config.write_text(json.dumps({**json.loads(before), "wandb_api_key": "0a1b" * 10}))
    assert f"config.json {KEY}" in refuse(*arguments("model", model_folder))
    config.write_text(before)
    weights = model_folder / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "note": TOKEN_LIKE})
    assert "has metadata ('note')" in refuse(*arguments("model", model_folder))


def test_a_photo_of_the_space_without_metadata_is_uploaded(hub, push, space_folder):
    (space_folder / "on_device").mkdir()
    (space_folder / "on_device/example.jpg").write_bytes(jpeg((64, 48)))
    code, _, err = push(*arguments("space", space_folder))
    assert (code, err) == (0, "")


def test_terms_that_forbid_it_need_the_right_to_redistribute(hub, refuse, push, make_dataset):
    forbidden = make_dataset(redistributable=False, terms="Research only.")
    assert "may not be uploaded: Research only." in refuse(*arguments("dataset", forbidden))
    # Whatever the record says, rows of a restricted dataset are found.
    restricted = make_dataset("restricted", source="celeba")
    assert "rows of celeba" in refuse(*arguments("dataset", restricted))
    right = "--i-have-the-right-to-redistribute"
    assert push(*arguments("dataset", restricted), right)[0] == 0
    assert hub.repository("dataset", "someone/dataset").private


@pytest.mark.parametrize("option", [(), ("--backbone-only",)])
def test_exports_of_other_weights_or_with_other_metadata_are_refused(
    hub, push, refuse, model_folder, tmp_path, option
):
    exports = tmp_path / "exports"
    assert main(["export", "--model", str(model_folder), "--output", str(exports), *option]) == 0
    (file,) = exports.glob("*.onnx")
    command = ("--repo-id", "someone/faces", "--onnx", exports, "--model")
    line = refuse(*command, save_model(tmp_path / "other", seed=1))
    assert "belongs to other weights" in line
    assert push(*command, model_folder)[0] == 0
    exported = file.read_bytes()
    assert hub.content("model", "someone/faces", f"onnx/{file.name}") == exported
    # In the model's folder they are found as well.
    (model_folder / file.name).write_bytes(exported)
    alone = ("--repo-id", "someone/faces", "--model", model_folder)
    assert push(*alone)[1].rstrip().endswith("unchanged")
    graph = onnx.load(file)
    onnx.helper.set_model_props(
        graph, {"note": TOKEN_LIKE, **{p.key: p.value for p in graph.metadata_props}}
    )
    onnx.save(graph, model_folder / file.name)
    assert "has metadata ('note')" in refuse(*alone)
    (model_folder / file.name).write_bytes(b"no model")
    assert "is not an ONNX file that can run" in refuse(*alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to push"),
        (("--dataset", "x"), "nothing to push"),
        (("--repo-id", "someone/faces", "--dataset", "x"), "go together"),
        (("--repo-id", "faces"), "has no owner"),
        (("--repo-id", "someone/a..b"), "is not a repository name"),
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
def test_wrong_arguments_end_in_one_line(refuse, arguments, message):
    assert message in refuse(*arguments)


def test_a_folder_without_safetensors_or_with_other_weights_is_no_model(
    refuse, model_folder, tmp_path
):
    save_file({"a": torch.zeros(1)}, model_folder / "model.safetensors", metadata={"format": "pt"})
    assert "do not match its config.json" in refuse(*arguments("model", model_folder))
    (model_folder / "model.safetensors").unlink()
    assert "has no model.safetensors" in refuse(*arguments("model", model_folder))
    assert "config.json cannot be read" in refuse(*arguments("model", tmp_path))


# What the Hub rejects.


@pytest.mark.parametrize(
    ("token", "owner", "message"),
    [
        ("", "someone", "no access token: log in with `hf auth login`, or set HF_TOKEN"),
        ("token-of-nobody", "someone", "hf auth login --force"),
        ("token-of-reader", "reader", "is read-only"),
        ("token-of-someone", "stranger", "not uploaded: You don't have the rights"),
    ],
)
def test_a_token_that_does_not_allow_it(
    hub, refuse, model_folder, monkeypatch, token, owner, message
):
    hub.add_user("reader", token="token-of-reader", role="read")
    monkeypatch.setenv("HF_TOKEN", token)
    line = refuse("--model", model_folder, "--repo-id", f"{owner}/faces")
    assert message in line
    assert not token or token not in line


def test_no_network_and_offline_mode(hub, refuse, model_folder, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", nobody)
        line = refuse(*arguments("model", model_folder))
    assert f"the Hub at {nobody} cannot be reached" in line
    assert "HF_ENDPOINT" in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()  # the client reads the mode when it is created
    assert "HF_HUB_OFFLINE is set" in refuse(*arguments("model", model_folder))
    close_session()


def test_something_that_is_not_the_hub(refuse, model_folder, monkeypatch):
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
        line = refuse(*arguments("model", model_folder))
        portal.shutdown()
    assert "is not the Hub" in line


@pytest.mark.parametrize("option", [(), ("--revision", "v2")])
def test_without_write_permission_to_one_repository_nothing_is_uploaded(
    hub, push, refuse, model_folder, space_folder, monkeypatch, option
):
    hub.add_user("stranger", token="token-of-stranger")
    with monkeypatch.context() as other:
        other.setenv("HF_TOKEN", "token-of-stranger")
        space = ("--space", space_folder, "--space-id", "stranger/demo", "--public")
        assert push(*space)[0] == 0
    assert "stranger/demo was not uploaded: Forbidden" in refuse(
        *arguments("model", model_folder), *space, *option
    )
    assert ("model", "someone/model") not in hub.state.repositories
    assert not hub.count("POST", "/branch/")


def test_a_name_that_another_model_has(hub, refuse, model_folder):
    someone = hub.state.users["token-of-someone"]
    hub.state.create(someone, "model", "someone/model", True, None)
    repository = hub.repository("model", "someone/model")
    files = dict(repository.resolve("main").files)
    repository.add_commit("main", "a novel", {**files, "novel.txt": files[".gitattributes"]})
    assert "someone/model is another model, without" in refuse(*arguments("model", model_folder))


@pytest.mark.parametrize(
    ("method", "path", "status", "said", "message"),
    [
        ("POST", "/repos/create", 402, "Payment required", "see the plan"),
        ("POST", "/repos/create", 409, "You already created this", "choose another name"),
        ("GET", "/api/whoami-v2", 429, "Too Many Requests", "wait some minutes"),
        ("POST", "/preupload/", 413, "Private repository storage limit reached", "limit reached"),
    ],
)
def test_an_error_of_the_hub_is_reported_in_one_line(
    hub, refuse, model_folder, method, path, status, said, message
):
    hub.fail(method, path, status, said)
    line = refuse(*arguments("model", model_folder))
    assert message in line
    assert said.split()[0] in line


def test_a_card_with_metadata_that_the_hub_rejects(refuse, model_folder):
    (model_folder / "README.md").write_text("---\nlicense: mine\n---\n")
    assert '"license" must be one of' in refuse(*arguments("model", model_folder))


def test_a_revision_that_does_not_exist_and_cannot_be_created(refuse, push, model_folder):
    command = arguments("model", model_folder)
    assert push(*command)[0] == 0
    assert "has no such revision" in refuse(*command, "--revision", "refs/pr/9")
