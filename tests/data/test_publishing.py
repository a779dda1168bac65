"""Upload to the Hub: refused where the terms forbid it, private where nothing else is said."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.images import encode_image
from label2label.data.preparation.program import dataset_parser, prepare
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from numpy import full

from ..hub.hub_server import HubServer

RIGHT = "--i-have-the-right-to-redistribute"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """What the Hub's client was asked for."""
    calls: dict[str, dict] = {}

    def create_repo(self, repo_id: str, **options) -> str:
        calls["create_repo"] = {"repo_id": repo_id, **options}
        return f"https://huggingface.co/datasets/{repo_id}"

    def upload_folder(self, *, folder_path: Path, **options) -> None:
        files = {path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*.*")}
        calls["upload_folder"] = {"files": files, **options}

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return calls


def run(output: Path, *options: str, redistributable: bool = False) -> None:
    command = ["--output", str(output), "--workers", "1", "--push-to-hub", "me/faces", *options]
    description = DatasetDescription(
        title="Faces",
        summary="",
        origin="",
        terms="Not to be given to others.",
        process="",
        biases="",
        program="test",
        redistributable=redistributable,
    )
    image = encode_image(full((8, 8, 3), 99, "uint8"))
    prepare(
        dataset_parser("Test.").parse_args(command),
        [Sample(key="a.jpg", split="train", source="faces")],
        lambda sample: [(sample, image)],
        get_vocabulary("korean-11"),
        description,
    )


def test_forbidden_upload_is_refused_with_the_reason_before_anything_is_written(
    calls: dict, tmp_path: Path
):
    with pytest.raises(UserError, match=f"Not to be given to others.*{RIGHT}"):
        run(tmp_path / "out")
    assert not calls
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "private"), [((), True), (("--public",), False)])
def test_upload_carries_card_and_shards_and_is_private_by_default(
    calls: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str], options, private
):
    run(tmp_path / "out", *options, redistributable=True)
    assert calls["create_repo"]["repo_id"] == calls["upload_folder"]["repo_id"] == "me/faces"
    assert calls["create_repo"]["repo_type"] == calls["upload_folder"]["repo_type"] == "dataset"
    assert calls["create_repo"]["private"] is private
    uploaded = calls["upload_folder"]["files"]
    assert {"README.md", "data/train-00000-of-00001.parquet"} <= uploaded
    assert "uploaded to https://huggingface.co/datasets/me/faces" in capsys.readouterr().out


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine, where `me` may write."""
    with HubServer() as server:
        server.add_user("me", token="a-token")
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "a-token")
        yield server


def test_repository_holds_every_file_of_the_folder_and_nothing_else(hub: HubServer, tmp_path: Path):
    run(tmp_path / "out", redistributable=True)
    repository = hub.repository("dataset", "me/faces")
    assert repository.private
    held = repository.resolve("main").files
    folder = tmp_path / "out"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).as_posix() for path in files} == set(held) - {".gitattributes"}
    for path in files:
        blob = held[path.relative_to(folder).as_posix()]
        assert blob.size == path.stat().st_size
        if blob.sha256 is None:
            assert blob.content == path.read_bytes()
        else:
            assert blob.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_second_upload_changes_nothing(hub: HubServer, tmp_path: Path):
    run(tmp_path / "out", redistributable=True)
    before = set(hub.repository("dataset", "me/faces").resolve("main").files)
    run(tmp_path / "out", redistributable=True)
    assert set(hub.repository("dataset", "me/faces").resolve("main").files) == before


def test_claimed_right_lifts_the_refusal(calls: dict, tmp_path: Path):
    run(tmp_path / "out", RIGHT)
    assert calls["create_repo"]["private"] is True
    assert "upload_folder" in calls


def test_failed_upload_keeps_the_dataset_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(HfApi, "__init__", init_with_endpoint(HfApi.__init__))
    with pytest.raises(UserError, match="is prepared but could not be uploaded to me/faces"):
        run(tmp_path / "out", redistributable=True)
    assert (tmp_path / "out/data/train-00000-of-00001.parquet").is_file()


def init_with_endpoint(init):
    def with_endpoint(self) -> None:
        init(self, endpoint="http://127.0.0.1:9", token="none")

    return with_endpoint
