import hashlib
import json
import shutil

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from label2label.errors import UserError
from label2label.hub.model_card import model_card

NAMES = ["Bald", "Smiling"]


def evaluation(accuracy, split="test"):
    """The JSON of an evaluation of two attributes."""
    scores = {
        "accuracy": accuracy,
        "balanced_accuracy": 0.75,
        "f1": 0.5,
        "average_precision": 0.625,
        "expected_calibration_error": 0.03125,
    }
    attribute = {**scores, "interval": [0.8, 0.95], "majority_accuracy": 0.98, "num_present": 21}
    return {
        "model": {
            "name": "tiny",
            "parameters": {"backbone": 900_000, "head": 500_000, "all": 1_400_000},
            "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
        },
        "dataset": {"name": "celeba", "split": split},
        **scores,
        "query_accuracy": 0.875,
        "majority_accuracy": 0.8125,
        "intervals": {name: [0.8625, 0.9375] for name in [*scores, "query_accuracy"]},
        "bootstrap": {"unit": "identity", "resamples": 1000, "num_units": 512},
        "num_images": 1042,
        "per_attribute": dict.fromkeys(NAMES, attribute),
        "groups": {},
        "age_adjusted": {},
    }


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(NAMES))}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "celeba_test.json").write_text(json.dumps(evaluation(0.9025)))
    return folder


def test_the_metadata_is_what_the_hub_reads(model, results):
    card = ModelCard(str(model_card(model, results)))  # parses, and validates the model index
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "image-classification"
    assert data["library_name"] == "transformers"
    assert data["license"] == "other"
    assert data["license_link"].startswith("https://")
    assert {"src", "example_title"} == set(data["widget"][0])
    name, figures = model_index_to_eval_results(data["model-index"])
    assert name == "tiny"
    shown = {figure.metric_type: figure.metric_value for figure in figures}
    assert shown["accuracy"] == 0.9025
    assert shown["expected_calibration_error"] == 0.03125
    assert all(figure.dataset_split == "test" for figure in figures)


def test_every_figure_of_the_test_split_is_in_the_text(model, results):
    text = str(model_card(model, results))
    for figure in ("0.9025", "[0.8625, 0.9375]", "0.7500", "0.6250", "0.0312", "0.8750", "0.8125"):
        assert figure in text
    for name in NAMES:
        assert f"| {name} | 0.9025 | [0.8000, 0.9500] |" in text
    assert "1,042 test images" in text
    assert "non-commercial" in text


def test_a_result_that_is_not_there_leaves_no_trace(model, results):
    text = str(model_card(model, results))
    assert "validation |" not in text
    assert "LFW" not in text
    assert "Results by group" not in text
    assert "GFLOPs" not in text


def test_results_that_are_there_appear(model, results):
    (results / "celeba_validation.json").write_text(json.dumps(evaluation(0.9111, "validation")))
    (results / "lfw_verification.json").write_text(
        json.dumps({"accuracy": 0.9875, "num_pairs": 600, "protocol": "10 folds"})
    )
    parts = {"backbone": 1, "head": 1, "all": 2_000_000}
    size = {"image_size": 112, "parameters": parts, "flops": parts, "file_bytes": 5_700_000}
    (results / "model_size.json").write_text(
        json.dumps({"model": size, "original_label2label": {**size, "image_size": 250}})
    )
    groups = evaluation(0.8)
    groups["dataset"]["name"] = "utkface"
    group = {"accuracy": 0.7, "interval": [0.6, 0.8], "num_images": 20, "small": True}
    groups["groups"] = {"race": {"per_group": {"Asian": group}, "gap": None}}
    (results / "utkface_test.json").write_text(json.dumps(groups))
    text = str(model_card(model, results))
    assert "0.9111" in text
    assert "98.75% of 600 LFW pairs" in text
    assert "5.7 MB" in text
    assert "Results by group: UTKFace subset, test" in text
    assert "| Asian (under 30 images: not compared) | 20 | 0.7000 | [0.6000, 0.8000] |" in text


def test_the_examples_name_the_hub_id_where_there_is_one(model, results):
    text = str(model_card(model, results, repo_id="someone/faces"))
    assert 'model="someone/faces"' in text
    assert "default_checkpoint" not in text


def test_the_examples_are_python(model, results):
    blocks = str(model_card(model, results)).split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        compile(block.split("```")[0], "example", "exec")


def test_results_of_other_weights_are_refused(model, results):
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match="evaluate them again"):
        model_card(model, results)


def test_a_model_without_test_results_has_no_card(model, results):
    shutil.rmtree(results)
    with pytest.raises(UserError, match="cannot be read"):
        model_card(model, results)
