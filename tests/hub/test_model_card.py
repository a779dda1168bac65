"""The model card: what its template says of a model, and what the Hub reads of it."""

import hashlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from huggingface_hub import ModelCard, repocard
from huggingface_hub.repocard_data import ModelCardData, model_index_to_eval_results
from label2label.checkpoints import checkpoint_names, default_checkpoint, find_checkpoint
from label2label.errors import UserError
from label2label.hub import model_card as cards
from label2label.hub.model_card import SHIPPED, SOURCES, count_parameters, main, model_card
from label2label.prediction.backends import load_model
from safetensors.torch import save_file

from .conftest import ATTRIBUTES, save_model
from .hub_server import HubServer

NAMES = ["Bald", "Smiling"]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(NAMES))}))
    save_file(
        {"a": torch.zeros(7, 11), "norm.running_mean": torch.ones(5)}, folder / "model.safetensors"
    )
    return folder


@pytest.fixture
def evaluate(model, tmp_path):
    """Write the JSON of an evaluation of two attributes."""

    def write(name="celeba", accuracy=0.9025, groups=None):
        scores = {
            "accuracy": accuracy,
            "balanced_accuracy": 0.75,
            "f1": 0.5,
            "average_precision": 0.625,
            "expected_calibration_error": 0.03125,
        }
        attribute = {**scores, "majority_accuracy": 0.98, "num_present": 21}
        digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
        result = {
            "model": {"weights_sha256": digest},
            "dataset": {"name": name, "split": "test"},
            **scores,
            "query_accuracy": 0.875,
            "majority_accuracy": 0.8125,
            "intervals": {score: [0.8625, 0.9375] for score in scores},
            "bootstrap": {"unit": "identity", "resamples": 1000, "num_units": 512},
            "num_images": 1042,
            "per_attribute": dict.fromkeys(NAMES, attribute),
            "groups": groups or {},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(result))
        return path

    return write


def test_the_metadata_hold_the_headline_figures_alone(model, evaluate):
    card = ModelCard(str(model_card(model, [evaluate()], trained_on=["celeba"])))
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "image-classification"
    assert data["library_name"] == "transformers"
    assert data["license_name"] == "celeba-non-commercial-research"
    assert data["datasets"] == ["celeba"]
    assert {"src", "example_title"} == set(data["widget"][0])
    name, figures = model_index_to_eval_results(data["model-index"])
    assert name == "tiny"
    assert {figure.metric_type: figure.metric_value for figure in figures} == {
        "accuracy": 0.9025,
        "balanced_accuracy": 0.75,
        "f1": 0.5,
        "expected_calibration_error": 0.03125,
    }
    assert figures[0].metric_args == {"interval_95": [0.8625, 0.9375]}


def test_the_text_has_scores_attributes_and_groups(model, evaluate):
    group = {"accuracy": 0.7, "interval": [0.6, 0.8], "num_images": 20, "small": True}
    race = {"per_group": {"A": group}, "gap": None}
    gender = {"per_group": {"A": {**group, "small": False}}, "gap": 0.05, "p_value": 0.25}
    gender |= {"best_group": "A", "worst_group": "B", "gap_interval": [0.01, 0.09]}
    other = evaluate("utkface", 0.8, {"race": race, "gender": gender})
    text = str(model_card(model, [evaluate(), other]))
    assert "| Accuracy | 0.9025 | [0.8625, 0.9375] |" in text
    assert "| Accuracy of the AQN alone | 0.8750 |" in text
    for name in NAMES:
        assert text.count(f"| {name} | 0.9025 | 0.7500 | 0.6250 | 0.9800 | 21 |") == 1
        assert f"| {name} | 0.8000 |" not in text  # by attribute, the first evaluation alone
    assert "| A (under 30 images: not compared) | 20 | 0.7000 | [0.6000, 0.8000] |" in text
    assert "Gap between A and B: 0.0500 [0.0100, 0.0900]" in text
    assert "accuracy in all groups: p-value 0.2500." in text
    assert "from 0.00 M parameters" in text
    assert "has no measurements" not in text


def test_a_table_begins_after_an_empty_line(model, evaluate):
    lines = str(model_card(model, [evaluate()])).splitlines()
    for before, line in itertools.pairwise(lines):
        if line.startswith("|") and not before.startswith("|"):
            assert before == ""


def test_without_results_the_card_says_that_nothing_was_measured(model):
    card = model_card(model)
    assert "This card has no measurements" in card.text
    assert "are not known to this card" in card.text
    assert "CelebA" not in card.text
    assert "model-index" not in str(card)


def test_a_model_of_other_attributes_has_no_name_of_celebas_left(tmp_path):
    own = ["Freckles", "Braces", "Headset"]
    text = str(model_card(save_model(tmp_path / "own", attributes=own), repo_id="someone/own"))
    assert "Freckles, Braces, Headset" in text
    assert not [name for name in (*ATTRIBUTES, "CelebA", "celeba") if name in text]


@pytest.mark.parametrize("repo_id", [None, "someone/faces"])
def test_the_examples_are_python_and_name_the_model(repo_id):
    text = str(model_card(Path(default_checkpoint()), repo_id=repo_id))
    blocks = text.split("```python\n")[1:]
    assert len(blocks) == (2 if repo_id is None else 3)
    for block in blocks:
        compile(block.split("```")[0], "example", "exec")
    assert ('model="someone/faces"' in text) == (repo_id is not None)
    assert ("find_checkpoint" in text) == (repo_id is None)


def test_the_parameters_of_a_shipped_model_are_counted_from_its_file():
    model, _ = load_model(default_checkpoint())
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters(Path(default_checkpoint()) / "model.safetensors") == expected


def test_the_terms_of_every_shipped_models_data_are_known():
    assert set(SHIPPED) == set(checkpoint_names())
    for name in checkpoint_names():
        text = str(model_card(Path(find_checkpoint(name))))
        assert "**The weights are for non-commercial research only**" in text
        assert "MS-Celeb-1M's publisher withdrew it" in text


def test_a_model_of_several_datasets_names_the_terms_of_each(monkeypatch):
    several = ["celeba", "fairface", "utkface", "lfwa"]
    name = Path(default_checkpoint()).name
    training = cards.Training(several, "Merged: 9,000 images. " * 9)
    monkeypatch.setitem(SHIPPED, name, training)
    card = model_card(Path(default_checkpoint()))
    for source in several:
        assert f"- {SOURCES[source].title} ({SOURCES[source].link}): " in card.text
    assert "derived from CelebA, UTKFace and LFWA and are for" in card.text
    assert "Merged: 9,000 images." in card.text
    assert card.data.license_name == "non-commercial-research"
    assert card.data.datasets == several


def test_results_of_other_weights_and_other_files_are_refused(model, evaluate, tmp_path):
    path = evaluate()
    save_file({"a": torch.ones(7, 11)}, model / "model.safetensors")
    with pytest.raises(UserError, match="belongs to other weights"):
        model_card(model, [path])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="is not an evaluation"):
        model_card(model, [tmp_path / "other.json"])
    with pytest.raises(UserError, match="cannot be read"):
        model_card(model, [tmp_path / "none.json"])
    path = evaluate(accuracy="high")
    with pytest.raises(UserError, match="not in the current format of `label2label evaluate`"):
        model_card(model, [path])
    with pytest.raises(UserError, match="terms of 'faces' are unknown"):
        model_card(model, trained_on=["faces"])


def test_the_command_writes_the_card_of_the_default_model(tmp_path, monkeypatch):
    output = tmp_path / "card.md"
    monkeypatch.setattr(sys, "argv", ["model_card", "--output", str(output)])
    assert main() == 0
    assert output.read_text() == str(model_card(Path(default_checkpoint())))


@pytest.fixture
def validator(monkeypatch):
    """Where `ModelCard.validate` sends the card, with the Hub's rules."""
    with HubServer() as hub:

        def post(url, **options):
            return httpx.post(hub.endpoint + urlsplit(url).path, **options)

        # Versions below 2 of the client know no other address than the Hub's.
        monkeypatch.setattr(repocard, "get_session", lambda: SimpleNamespace(post=post))
        yield hub


def test_the_card_is_valid_by_the_hubs_client_and_rules(validator, model, evaluate):
    card = model_card(model, [evaluate()], trained_on=["celeba", "fairface"])
    card.validate()
    assert validator.requests == [("POST", "/api/validate-yaml", 200)]
    # What the client parses is what was written: nothing is lost or renamed on the way.
    again = ModelCardData(**ModelCard(str(card)).data.to_dict())
    assert again.to_yaml() == card.data.to_yaml()
