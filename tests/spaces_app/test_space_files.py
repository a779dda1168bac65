"""The Space's own files: metadata that the Hub accepts, versions that are tested, free photos."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from examples import load_examples
from huggingface_hub import SpaceCard

from .conftest import ROOT, SPACE


def pins(path):
    """Version by package of a requirements file."""
    lines = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in lines}


def test_the_metadata_is_the_hubs():
    card = SpaceCard.load(SPACE / "README.md")
    assert card.data.sdk == "gradio"
    assert card.data.license == "other"  # the weights are for research only
    assert (SPACE / card.data.app_file).is_file()
    data = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert len(data["short_description"]) <= 60
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {data["colorFrom"], data["colorTo"]} <= colors


def test_versions_are_those_that_are_tested():
    required = pins(SPACE / "requirements.txt")
    tested = pins(ROOT / "constraints.txt")
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert required.pop("label2label") == project[1]
    assert {name: tested.get(name) for name in required} == required
    data = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert data["sdk_version"] == required["gradio"]


def test_example_photos_come_from_packages_and_none_is_committed():
    pytest.importorskip("matplotlib")
    examples = load_examples()
    assert examples[0]["key"] == "hopper"
    assert all(e["url"].startswith("data:image/jpeg;base64,") for e in examples)
    assert sum(len(e["url"]) for e in examples) < 600_000  # the page carries them
    listed = subprocess.run(
        ["git", "ls-files", "spaces_app", ":!spaces_app/on_device"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    photos = (".jpg", ".jpeg", ".png", ".webp", ".gif")
    assert [name for name in listed if Path(name).suffix in photos] == []
