"""`label2label push`, in this process, against a Hub on this machine."""

import json
import re
from pathlib import Path

import pytest
from label2label.checkpoints import default_checkpoint
from label2label.cli import main
from label2label.files import sha256
from label2label.hub.repositories import PACKAGE, default_space, model_repository

from .conftest import save_model


def head(hub, kind, repo_id, revision="main"):
    return hub.repository(kind, repo_id).resolve(revision)


def test_model_dataset_and_space_are_one_commit_each_and_private(
    hub, push, model_folder, make_dataset, space_folder
):
    code, out, err = push(
        *("--model", model_folder, "--repo-id", "someone/faces"),
        *("--dataset", make_dataset(), "--dataset-id", "someone/data"),
        *("--space", space_folder, "--space-id", "someone/demo"),
    )
    assert code == 0
    assert "warning" not in err
    for kind, name in (("model", "faces"), ("dataset", "data"), ("space", "demo")):
        repository = hub.repository(kind, f"someone/{name}")
        assert repository.private
        made, first = repository.history()
        assert first.message == "initial commit"
        assert f"commit {made.oid[:7]}" in out
    assert hub.repository("space", "someone/demo").sdk == "gradio"
    assert f"dataset {hub.endpoint}/datasets/someone/data: commit" in out


def test_a_model_repository_carries_code_handler_card_and_no_path_of_this_machine(
    hub, push, model_folder, tmp_path
):
    config = json.loads((model_folder / "config.json").read_text())
    config["_name_or_path"] = config["backbone_config"]["_name_or_path"] = str(tmp_path)
    del config["auto_map"]
    (model_folder / "config.json").write_text(json.dumps(config))
    assert push("--model", model_folder, "--repo-id", "someone/faces")[0] == 0
    files = head(hub, "model", "someone/faces").files
    package = {path for path in files if path.startswith("label2label/")}
    assert set(files) - package == {
        ".gitattributes",
        "README.md",
        "config.json",
        *(path.name for path in (PACKAGE / "models").glob("[!_]*_*.py")),
        "handler.py",
        "model.safetensors",
        "preprocessor_config.json",
        "requirements.txt",
    }
    assert {"label2label/faces/alignment.py", "label2label/prediction/photos.py"} <= package
    assert "label2label/__init__.py" not in package  # which would import the rest of it
    uploaded = hub.content("model", "someone/faces", "config.json").decode()
    assert str(tmp_path) not in uploaded
    assert json.loads(uploaded)["auto_map"]["AutoModelForImageClassification"] == (
        "modeling_label2label.Label2LabelForImageClassification"
    )
    weights = (model_folder / "model.safetensors").read_bytes()
    assert hub.content("model", "someone/faces", "model.safetensors") == weights
    assert files["model.safetensors"].sha256
    code = (PACKAGE / "models/modeling_label2label.py").read_bytes()
    assert hub.content("model", "someone/faces", "modeling_label2label.py") == code
    assert '"someone/faces"' in hub.content("model", "someone/faces", "README.md").decode()
    needed = hub.content("model", "someone/faces", "requirements.txt").decode()
    assert "transformers<6,>=" in needed
    assert "opencv-python-headless" in needed
    assert "onnxruntime" in needed
    assert "torch" not in needed


def test_pushing_again_sends_and_commits_nothing(hub, push, model_folder):
    push("--model", model_folder, "--repo-id", "someone/faces")
    sent = hub.count("PUT", "/objects/"), hub.count("POST", "/commit/")
    code, out, _ = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 0
    assert out.rstrip().endswith("unchanged")
    assert (hub.count("PUT", "/objects/"), hub.count("POST", "/commit/")) == sent == (1, 1)


def test_what_an_earlier_push_left_goes_and_what_others_added_stays(
    hub, push, make_dataset, tmp_path
):
    dataset = make_dataset()
    push("--dataset", dataset, "--dataset-id", "someone/data")
    repository = hub.repository("dataset", "someone/data")
    files = dict(repository.resolve("main").files)
    shard = "data/train-00000-of-00001.parquet"
    files["data/train-00000-of-00002.parquet"] = files["data/train-00001-of-00002.parquet"] = files[
        shard
    ]
    files["NOTES.md"] = files["README.md"]
    repository.add_commit("main", "as an earlier push, of two shards", files)
    push("--dataset", dataset, "--dataset-id", "someone/data")
    held = set(head(hub, "dataset", "someone/data").files)
    assert {path for path in held if path.startswith("data/train")} == {shard}
    assert "NOTES.md" in held


def test_a_pushed_config_keeps_its_attributes_in_the_order_of_the_logits(tmp_path):
    names = [f"Attribute_{i}" for i in range(12)]
    files = model_repository(save_model(tmp_path / "many", attributes=names), "someone/many").files
    assert list(json.loads(files["config.json"])["id2label"].values()) == names


def test_dry_run_lists_files_and_sizes_and_asks_nobody(hub, push, model_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    code, out, _ = push("--model", model_folder, "--repo-id", "someone/faces", "--dry-run")
    assert code == 0
    assert not hub.requests
    size = (model_folder / "model.safetensors").stat().st_size
    assert f"{size:>15,}  model.safetensors" in out
    assert out.startswith("model someone/faces (private if it is new)")
    listed = [int(line.split()[0].replace(",", "")) for line in out.splitlines()[1:]]
    assert listed[-1] == sum(listed[:-1])
    assert out.rstrip().endswith(f"bytes in {len(listed) - 1} files")


def test_an_existing_repository_keeps_its_visibility_and_push_says_so(hub, push, model_folder):
    push("--model", model_folder, "--repo-id", "someone/faces", "--public")
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 0
    assert "someone/faces exists and stays public" in err


def test_revision_makes_a_branch_and_leaves_main_alone(hub, push, model_folder):
    code, _, _ = push("--model", model_folder, "--repo-id", "someone/faces", "--revision", "v2")
    assert code == 0
    assert set(head(hub, "model", "someone/faces").files) == {".gitattributes"}
    assert "config.json" in head(hub, "model", "someone/faces", "v2").files
    code, out, _ = push("--model", model_folder, "--repo-id", "someone/faces", "--revision", "v2")
    assert (code, out.rstrip().endswith("unchanged")) == (0, True)


def test_pull_request_needs_no_right_to_write_and_can_be_gone_on_with(
    hub, push, model_folder, monkeypatch
):
    push("--model", model_folder, "--repo-id", "someone/faces", "--public")
    hub.add_user("guest", token="token-of-guest")
    monkeypatch.setenv("HF_TOKEN", "token-of-guest")
    (model_folder / "LICENSE").write_text("more")
    push_as = ("--model", model_folder, "--repo-id", "someone/faces", "--public")
    code, out, _ = push(*push_as, "--create-pr")
    assert code == 0
    assert f"model {hub.endpoint}/someone/faces/discussions/2: commit" in out
    assert "LICENSE" in head(hub, "model", "someone/faces", "refs/pr/2").files
    assert "LICENSE" not in head(hub, "model", "someone/faces").files
    monkeypatch.setenv("HF_TOKEN", "token-of-someone")
    code, out, _ = push(*push_as, "--revision", "refs/pr/2")
    assert (code, out.rstrip().endswith("unchanged")) == (0, True)


def test_a_failure_in_the_middle_commits_nothing_and_the_retry_sends_only_what_is_missing(
    hub, push, model_folder
):
    command = ("--model", model_folder, "--repo-id", "someone/faces")
    hub.fail("POST", "/commit/", 500, "Internal Error")
    code, out, err = push(*command)
    assert (code, out) == (2, "")
    assert "someone/faces was not uploaded: Internal Error: run the same command again" in err
    assert set(head(hub, "model", "someone/faces").files) == {".gitattributes"}
    assert hub.count("PUT", "/objects/") == 1
    code, out, _ = push(*command)
    assert code == 0
    assert hub.count("PUT", "/objects/") == 1  # the weights had arrived
    assert len(hub.repository("model", "someone/faces").history()) == 2


def test_a_storage_that_stays_down_ends_in_one_line(hub, push, model_folder):
    hub.fail("PUT", "/objects/", 503, "Slow Down", times=6)
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    line = err.splitlines()[-1]
    assert line.startswith("error: someone/faces was not uploaded: ")
    assert "run the same command again" in line
    assert "config.json" not in head(hub, "model", "someone/faces").files


def test_a_commit_whose_answer_is_lost_is_not_repeated(hub, push, model_folder):
    push("--model", model_folder, "--repo-id", "someone/faces")
    (model_folder / "LICENSE").write_text("more")
    hub.fail("POST", "/commit/", 0)
    code, _, err = push("--model", model_folder, "--repo-id", "someone/faces")
    assert code == 2
    assert f"the Hub at {hub.endpoint} cannot be reached" in err
    assert push("--model", model_folder, "--repo-id", "someone/faces")[0] == 0
    assert len(hub.repository("model", "someone/faces").history()) == 3


def test_a_backbone_is_pushed_with_a_card_of_its_own(hub, push, backbone_folder):
    assert push("--model", backbone_folder, "--repo-id", "someone/backbone")[0] == 0
    files = head(hub, "model", "someone/backbone").files
    assert {"configuration_mobilefacenet.py", "modeling_mobilefacenet.py"} <= set(files)
    assert not {"handler.py", "modeling_label2label.py"} & set(files)
    card = hub.content("model", "someone/backbone", "README.md").decode()
    assert 'AutoBackbone.from_pretrained("someone/backbone"' in card
    assert "pipeline_tag: image-feature-extraction" in card


def test_a_space_that_needs_the_package_carries_it_and_the_results(
    hub, push, space_folder, tmp_path
):
    (space_folder / "requirements.txt").write_text("gradio==6.31.0\nlabel2label==0.1.0\nnumpy\n")
    (tmp_path / "results").mkdir()
    evaluation = (Path(__file__).parents[2] / "results/fairface_test.json").read_text()
    (tmp_path / "results/fairface_test.json").write_text(evaluation)
    (tmp_path / "results/prices.json").write_text("{}")
    assert push("--space", space_folder, "--space-id", "someone/demo")[0] == 0
    files = set(head(hub, "space", "someone/demo").files)
    assert {"label2label/__init__.py", "label2label/models/modeling_label2label.py"} <= files
    assert "label2label/checkpoints/mobilefacenet/model.safetensors" in files
    assert "label2label/prediction/attribute_names.json" in files
    assert {path for path in files if "results" in path} == {"results/fairface_test.json"}
    assert not [path for path in files if "__pycache__" in path]
    needed = hub.content("space", "someone/demo", "requirements.txt")
    assert needed == b"gradio==6.31.0\nnumpy\n"


def test_the_projects_own_space_passes_every_check(hub, push):
    if not default_space().is_dir():
        pytest.skip("no spaces_app beside the package: it is installed, and no checkout")
    code, _, err = push("--space-id", "someone/demo")
    assert code == 0, err
    repository = hub.repository("space", "someone/demo")
    assert repository.sdk == "gradio"
    assert {"app.py", "label2label/cli.py"} <= set(repository.resolve("main").files)


def test_a_space_without_the_files_of_its_device_tab_is_warned_of_in_one_line(push, space_folder):
    command = ("--space", space_folder, "--space-id", "someone/demo", "--dry-run")
    assert push(*command)[2] == ""  # one that has no such tab at all
    (space_folder / "on_device/assets").mkdir(parents=True)
    (space_folder / "on_device/index.html").write_text("<h1>Here</h1>")
    code, _, err = push(*command)
    assert code == 0
    (warning,) = err.splitlines()
    assert warning.startswith("warning: the Space will have no tab On device")
    assert f"`label2label export --web --output {space_folder}/on_device/assets`" in warning
    (space_folder / "on_device/assets/page.json").write_text("{}")
    assert push(*command)[2] == ""


@pytest.fixture
def int8_folder(tmp_path):
    """A function that exports a folder's model under the name of its INT8 file."""

    def export(model):
        folder = tmp_path / "exported"
        assert main(["export", "--model", str(model), "--output", str(folder)]) == 0
        (folder / "model.onnx").rename(folder / "model_int8.onnx")
        return folder

    return export


INT8_IN_SPACE = "label2label/checkpoints/mobilefacenet/onnx/model_int8.onnx"


def test_a_space_takes_the_int8_file_beside_the_weights_that_it_carries(
    hub, push, space_folder, int8_folder
):
    (space_folder / "requirements.txt").write_text("label2label==0.1.0\n")
    exported = int8_folder(default_checkpoint())
    command = ("--space", space_folder, "--space-id", "someone/demo")
    code, _, err = push(*command, "--onnx", exported)
    assert (code, "warning" in err) == (0, False)
    assert hub.content("space", "someone/demo", INT8_IN_SPACE) == (
        (exported / "model_int8.onnx").read_bytes()
    )
    assert push(*command)[0] == 0
    assert INT8_IN_SPACE not in head(hub, "space", "someone/demo").files


def test_an_int8_file_of_other_weights_is_refused_for_a_space(push, space_folder, int8_folder):
    (space_folder / "requirements.txt").write_text("label2label==0.1.0\n")
    code, _, err = push(
        *("--space", space_folder, "--space-id", "someone/demo", "--dry-run"),
        *("--onnx", int8_folder(default_checkpoint()), "--model", "mobilefacenet-tiny"),
    )
    assert code == 2
    assert "model_int8.onnx belongs to other weights than" in err.splitlines()[-1]


def test_exports_that_a_space_cannot_offer_are_warned_of(
    push, space_folder, model_folder, int8_folder, tmp_path
):
    (space_folder / "requirements.txt").write_text("label2label==0.1.0\n")
    command = ("--space", space_folder, "--space-id", "someone/demo", "--dry-run", "--onnx")
    (tmp_path / "float").mkdir()
    code, out, err = push(*command, tmp_path / "float")
    assert (code, INT8_IN_SPACE in out) == (0, False)
    assert "float, which holds no model_int8.onnx: `label2label export --int8`" in err
    code, out, err = push(*command, int8_folder(model_folder), "--model", model_folder)
    assert (code, INT8_IN_SPACE in out) == (0, False)
    assert f"as it does not carry {model_folder}" in err
    assert "LABEL2LABEL_SPACE_MODELS" in err


def test_results_make_the_card_and_its_plots_of_a_model_that_ships(hub, push):
    results = Path(__file__).parents[2] / "results/celeba_test.json"
    assert push("--repo-id", "someone/faces", "--results", results)[0] == 0
    card = hub.content("model", "someone/faces", "README.md").decode()
    assert 'model="someone/faces"' in card
    assert "model-index:" in card
    plots = re.findall(r"\]\((plots/[^)]*\.svg)\)", card)
    held = set(head(hub, "model", "someone/faces").files)
    assert len(plots) >= 2
    assert set(plots) == {path for path in held if path.startswith("plots/")}


def test_results_of_another_form_and_a_card_that_is_there_end_in_one_line(
    hub, push, model_folder, tmp_path
):
    results = Path(__file__).parents[2] / "results/celeba_test.json"
    told = json.loads(results.read_text())
    told["model"]["weights_sha256"] = sha256(model_folder / "model.safetensors")
    del told["reliability"]
    (tmp_path / "older.json").write_text(json.dumps(told))
    command = ("--model", model_folder, "--repo-id", "someone/faces", "--dry-run", "--results")
    code, _, err = push(*command, tmp_path / "older.json")
    assert code == 2
    assert "not in the current format of `label2label evaluate`" in err
    (model_folder / "README.md").write_text("# Mine")
    code, _, err = push(*command, tmp_path / "older.json")
    assert (code, "which is used as its card" in err) == (2, True)


def test_a_repository_that_was_downloaded_can_be_pushed_again(hub, push, model_folder, tmp_path):
    results = Path(__file__).parents[2] / "results/celeba_test.json"
    copy = tmp_path / "copy"
    for path, content in model_repository(
        Path(default_checkpoint()), "someone/faces", results=[results]
    ).files.items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    (copy / ".cache/huggingface").mkdir(parents=True)
    (copy / ".cache/huggingface/config.json.metadata").write_text("1")
    assert push("--model", copy, "--repo-id", "someone/copy")[0] == 0
    held = set(head(hub, "model", "someone/copy").files) - {".gitattributes"}
    assert held == {
        path.relative_to(copy).as_posix()
        for path in copy.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }
