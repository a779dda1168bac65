import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import ModelCardData, model_index_to_eval_results
from label2label.checkpoints import default_checkpoint, find_checkpoint
from label2label.errors import UserError
from label2label.hub.card_text import WIDGET
from label2label.hub.emissions import estimate_emissions
from label2label.hub.measurements import Measurements
from label2label.hub.model_card import card_for_repository, model_card, written_card

from .conftest import save_model
from .hub_server import HubServer
from .hub_server.card_rules import card_errors

RESULTS = Path(__file__).parents[2] / "results"
SHIPPED = sorted(Path(default_checkpoint()).parent.glob("*/config.json"))

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
        "over_queries": {"difference": 0.0275, "interval": [-0.001, 0.06], "p_value": 0.07},
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
    groups["groups"] = {"race": {"per_group": {"Asian": group}, "gap": None, "per_attribute": {}}}
    (results / "utkface_test.json").write_text(json.dumps(groups))
    text = str(model_card(model, results))
    assert "not mitigated" not in text
    assert "0.9111" in text
    assert "98.75% of 600 LFW pairs" in text
    assert "5.7 MB" in text
    assert "Results by group: UTKFace subset, test" in text
    assert "| Asian (under 30 images: not compared) | 20 | 0.7000 | [0.6000, 0.8000] |" in text

    asian = {"accuracy": {"Asian": 0.7}, "num_images": {"Asian": 20}}
    groups["groups"]["race"]["per_attribute"] = {"Male": asian, "Young": asian}
    (results / "utkface_test.json").write_text(json.dumps(groups))
    text = str(model_card(model, results))
    assert "| Asian | 20 | 0.7000 | 0.7000 |" in text
    assert "this model is not mitigated" in text
    assert "Aligned as by that command" not in text

    (results / "utkface_aligned.json").write_text(json.dumps(groups | {"comparison": None}))
    text = str(model_card(model, results))
    assert "images are right for 0.8000 (Asian 0.7000)." in text


@pytest.mark.parametrize(
    ("lows", "verdict"),
    [
        ([0, -0.001, 0.001], "a little: from 10 given on, the interval"),
        ([0, 0.001, 0.002], "a little: from 5 given on, the interval"),
        ([0, 0.001, -0.001], "**Known words do not help this model**"),
    ],
)
def test_known_words_help_from_where_the_interval_leaves_zero_out(model, results, lows, verdict):
    known = evaluation(0.9)
    known |= {"protocol": "half asked", "draws": 5}
    known["curve"] = [
        {
            "given": given,
            "accuracy": 0.9,
            "interval": [0.89, 0.91],
            "gain": 0.001,
            "gain_interval": [low, 0.003],
        }
        for given, low in zip((0, 5, 10), lows, strict=True)
    ]
    (results / "known_words.json").write_text(json.dumps(known))
    assert verdict in str(model_card(model, results))


def test_plots_of_a_report_in_the_models_folder_are_shown_from_where_the_card_lies(model, results):
    (model / "plots").mkdir()
    (model / "plots" / "README.md").write_text("# Report\n\n![Accuracy by race](race.png)\n")
    beside = written_card(model, results, model / "README.md")
    assert (
        "From [Report](plots/README.md):\n\n![Accuracy by race](plots/race.png)\n\n## Limits"
        in beside
    )
    above = written_card(model, results, model.parent / "model_card.md")
    assert "](tiny/plots/race.png)" in above
    assert "plots" not in str(model_card(model, results))


def test_the_examples_name_the_hub_id_where_there_is_one(model, results):
    text = str(model_card(model, results, repo_id="someone/faces"))
    assert 'model="someone/faces"' in text
    assert "find_checkpoint" not in text
    assert 'find_checkpoint("tiny")' in str(model_card(model, results))


def test_the_examples_are_python(model, results):
    blocks = str(model_card(model, results)).split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        compile(block.split("```")[0], "example", "exec")


def test_results_of_other_weights_are_refused(model, results):
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match="evaluate them again"):
        model_card(model, results)


def test_a_models_own_results_come_before_those_of_the_default_model(model, results):
    (model / "model.safetensors").write_bytes(b"other weights")
    own = evaluation(0.8765)
    own["model"]["weights_sha256"] = hashlib.sha256(b"other weights").hexdigest()
    (results / "tiny").mkdir()
    (results / "tiny" / "celeba_test.json").write_text(json.dumps(own))
    hour = [{"seconds": 3600.0}]
    (results / "training_celeba.json").write_text(json.dumps(hour))
    (results / "tiny" / "training_tiny.json").write_text(json.dumps(hour))
    text = str(model_card(model, results))
    assert "0.8765" in text
    assert "0.9025" not in text
    assert "2.0 hours" in text  # the default model's training is a part of its own
    assert text.index("  - `celeba`: ") < text.index("  - `tiny`: ")
    assert "`group-dro`" not in text


def shift_figures(male, celeba):
    figure = {"value": 0.8, "interval": [0.7, 0.9]}
    gap = {**figure, "worst": "A", "best": "B", "by_chance": 0.0456, "p_value": 0.1234}
    return {
        **dict.fromkeys(("mean", "aligned_mean", "Young", "from_15_mean", "from_15_Male"), figure),
        **dict.fromkeys(("Male_gap", "Male_gap_age_adjusted", "from_15_Male_gap"), gap),
        "Male": {**figure, "value": male},
        "celeba": {**figure, "value": celeba},
        "Male_by_race": {"A": 0.6111, "B": 0.7},
        "Young_by_race": {"A": 0.8, "B": 0.9},
        "num_images_by_race": {"A": 40, "B": 1500},
    }


@pytest.fixture
def shift(results):
    """Results of the model before and after a mitigation, whose weights are `b"fair"`."""
    before = {"model": {"name": "tiny"}, "shifted": "A", "test": shift_figures(0.6111, 0.9025)}
    before["model"]["weights_sha256"] = hashlib.sha256(b"weights").hexdigest()
    by_race = {race: {"difference": 0.0333, "interval": [0.01, 0.05]} for race in "AB"}
    row = {
        "test": shift_figures(0.8222, 0.9001),
        "difference": {"by_race": by_race},
        "weights_sha256": hashlib.sha256(b"fair").hexdigest(),
        "training": {"seconds": 120.0},
    }
    goals = {"Male": {"value": 0.8222, "goal": "at least 0.9", "met": False}}
    after = {"group-dro": row, "finetune-shifted": {**row, "weights_sha256": "others"}}
    table = {**before, "before": before, "after": after, "chosen": "group-dro", "goals": goals}
    table["largest_loss"] = 0.0056
    (results / "fairness_before.json").write_text(json.dumps(before))
    (results / "fairness_mitigation.json").write_text(json.dumps(table))


def test_a_model_before_mitigation_says_that_it_is_not_mitigated(model, results, shift):
    card = model_card(model, results)
    assert "before any mitigation" in card.text
    assert "| Male, A | 0.6111 | [0.7000, 0.9000] |" in card.text
    assert "| B | 1,500 | 0.7000 | 0.9000 |" in card.text
    assert "this model is not mitigated" in card.text
    assert card.data.datasets == ["celeba"]


def test_a_mitigated_model_is_shown_beside_the_one_before(model, results, shift, validator):
    (model / "model.safetensors").write_bytes(b"fair")
    own = evaluation(0.9001)
    own["model"]["weights_sha256"] = hashlib.sha256(b"fair").hexdigest()
    (results / "tiny").mkdir()
    (results / "tiny" / "celeba_test.json").write_text(json.dumps(own))
    card = model_card(model, results)
    assert "before and after mitigation" in card.text
    assert "not mitigated" not in card.text
    assert "that cost CelebA at most 0.6 points" in card.text
    assert "| Male, A | 0.6111 | 0.8222 | [0.7000, 0.9000] |" in card.text
    assert (
        "| A | 40 | 0.6111 | 0.6111 | 0.8000 | 0.8000 | +0.0333 | [0.0100, 0.0500] |" in card.text
    )
    assert "| Male | 0.8222 | at least 0.9 | **no** |" in card.text
    assert "of 0.0456 on average; that this model does so has a p-value of 0.1234" in card.text
    assert "of which `group-dro` was chosen" in card.text
    assert "training part of UTKFace" in card.text
    assert card.data.datasets == ["celeba", "utkface"]
    card.validate()


def test_what_alignment_changes_is_shown_for_either_model(model, results, shift):
    aligned = {"num_images": 1540, "accuracy": 0.8111, "comparison": None}
    group = {"accuracy": 0.7222, "interval": [0.7, 0.8], "num_images": 40, "small": False}
    aligned["groups"] = {"race": {"per_group": {"A": group}, "gap": None}}
    aligned["age_adjusted"] = {}
    own = evaluation(0.9025) | aligned
    (results / "utkface_aligned.json").write_text(json.dumps(own))
    assert "1,540 images are right for 0.8111 (A 0.7222)." in model_card(model, results).text
    (model / "model.safetensors").write_bytes(b"fair")
    entry = {"model": 0.7666, "other": 0.7222, "difference": 0.0444, "interval": [0.01, 0.08]}
    own["comparison"] = {
        "overall": {"accuracy": {"other": 0.7999}},
        "groups": {"race": {"per_group": {"A": entry}}},
    }
    own["model"]["weights_sha256"] = hashlib.sha256(b"fair").hexdigest()
    (results / "tiny").mkdir()
    (results / "tiny" / "celeba_test.json").write_text(json.dumps(own))
    (results / "tiny" / "utkface_aligned.json").write_text(json.dumps(own))
    text = model_card(model, results).text
    assert "right for 0.8111, before for 0.7999" in text
    assert "| A | 0.7222 | 0.7666 | +0.0444 | [0.0100, 0.0800] |" in text


def test_a_model_without_test_results_has_no_card(model, results):
    shutil.rmtree(results)
    with pytest.raises(UserError, match="cannot be read"):
        model_card(model, results)


@pytest.fixture
def validator(monkeypatch):
    """Where `ModelCard.validate` sends the card, with the Hub's rules."""
    with HubServer() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        yield hub


def test_the_card_is_valid_by_the_hubs_client_and_rules(validator, model, results):
    card = model_card(model, results)
    card.validate()
    assert validator.requests == [("POST", "/api/validate-yaml", 200)]
    # What the client parses is what was written: nothing is lost or renamed on the way.
    again = ModelCardData(**ModelCard(str(card)).data.to_dict())
    assert again.to_yaml() == card.data.to_yaml()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("license: mine", "license"),
        ("pipeline_tag: guess", "pipeline_tag"),
        ("tags: faces", "array of strings"),
        ("co2_eq_emissions: {emissions: much}", "number of grams"),
        (
            "model-index: [{name: a, results: [{task: {type: b}, dataset: {name: d}, "
            "metrics: [{type: e, value: 1}]}]}]",
            "dataset.type",
        ),
        (
            "model-index: [{name: a, results: [{task: {type: b}, dataset: {type: c, name: d}, "
            "metrics: [{type: e}]}]}]",
            "needs a type and a value",
        ),
    ],
)
def test_the_rules_find_what_is_wrong(line, message):
    (error,) = card_errors(f"---\n{line}\n---\n", "model")
    assert message in error


def test_a_card_that_breaks_a_rule_does_not_validate(validator):
    with pytest.raises(ValueError, match="pipeline_tag"):
        ModelCard("---\npipeline_tag: guess\n---\n").validate()


@pytest.mark.parametrize("name", [path.parent.name for path in SHIPPED])
def test_the_shipped_models_cards_are_valid(validator, name):
    """As the generator writes them now, and as the repository carries them."""
    model = Path(find_checkpoint(name))
    card = model_card(model, RESULTS)
    card.validate()
    ModelCard(card_for_repository(model, "someone/faces")).validate()
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.widget == WIDGET


def test_every_figure_of_the_tables_is_in_the_model_index(model, results):
    (results / "celeba_validation.json").write_text(json.dumps(evaluation(0.9111, "validation")))
    groups = evaluation(0.8011)
    groups["dataset"]["name"] = "utkface"
    group = {"accuracy": 0.7, "interval": [0.6, 0.8], "num_images": 200, "small": False}
    gaps = {"gap": 0.0501, "gap_interval": [0.01, 0.09], "gap_by_chance": 0.03, "p_value": 0.017}
    gaps |= {"best_group": "A", "worst_group": "B"}
    groups["groups"] = {
        "race": {"per_group": {"A": group, "B": group}, **gaps, "per_attribute": {}}
    }
    counted = {"strata": {"0-14": 0.5, "15+": 0.5}}
    counted["per_group"] = {name: {"num_images": {"0-14": 17, "15+": 183}} for name in "AB"}
    groups["age_adjusted"] = {"race": {"overall": {**gaps, **counted, "gap": 0.0402}}}
    (results / "utkface_test.json").write_text(json.dumps(groups))
    card = model_card(model, results)
    _, figures = model_index_to_eval_results(card.data.to_dict()["model-index"])
    published = {f"{figure.metric_value:.4f}" for figure in figures}
    tables = [line for line in card.text.splitlines() if line.startswith("| ")]
    ours = [line for line in tables if "CelebA" not in line]  # the others' figures are theirs
    shown = set(re.findall(r"(?<=\| )\d\.\d{4}(?= \|)", "\n".join(ours)))
    shown |= set(re.findall(r": (0\.\d{4}) \[", card.text)) | {"0.0501", "0.0402"}
    # Of an attribute, the majority is the split's and not the model's.
    assert shown - published == {"0.9800"}
    titles = {(figure.dataset_type, figure.metric_name): figure for figure in figures}
    assert "| IC-MLM's gain over the AQN | +0.0275 | [-0.0010, 0.0600] | +0.0275 |" in card.text
    assert "| A | 17 | 183 |" in card.text
    assert titles["celeba", "F1, Bald"].metric_value == 0.5
    assert titles["celeba", "Accuracy of the AQN alone"].metric_value == 0.875
    assert titles["utkface", "Accuracy, race B"].metric_value == 0.7
    assert titles["utkface", "Gap in accuracy by race"].metric_value == 0.0501
    assert titles["utkface", "Gap in accuracy by race, same ages"].metric_value == 0.0402
    assert titles["utkface", "Accuracy, race B"].metric_args == {"interval_95": [0.6, 0.8]}


def test_results_of_other_weights_beside_the_test_split_are_left_out(model, results):
    other = evaluation(0.7777, "validation")
    other["model"]["weights_sha256"] = hashlib.sha256(b"others").hexdigest()
    (results / "celeba_validation.json").write_text(json.dumps(other))
    text = str(model_card(model, results))
    assert "0.7777" not in text
    assert "validation |" not in text


def test_emissions_follow_from_the_time_in_the_logs(model, results):
    # Two cores of 12 W and 8 GB of 0.3725 W, 1.67 times for the centre, an hour, 475 g a kWh.
    grams = (2 * 12 + 8 * 0.3725) * 1.67 / 1000 * 475
    hour = [{"seconds": 1800.0}, {"seconds": 1800.0}]
    estimate = estimate_emissions([hour])
    assert estimate.hours == 1
    assert estimate.grams == pytest.approx(grams)
    assert estimate_emissions([]) is None
    assert "co2_eq_emissions" not in str(model_card(model, results))
    (results / "training_celeba.json").write_text(json.dumps(hour))
    card = model_card(model, results)
    assert card.data.co2_eq_emissions["emissions"] == 21.0
    assert "1.0 hours on 2 CPU cores, about 21 g of CO2" in card.text


def test_the_card_of_a_repository_is_the_folders_with_its_name_in_the_examples(model, results):
    (model / "README.md").write_text(str(model_card(model, results)), encoding="utf-8")
    expected = str(model_card(model, results, repo_id="someone/faces"))
    assert card_for_repository(model, "someone/faces") == expected


def test_a_model_that_nothing_was_measured_of_says_so(validator, tmp_path):
    text = card_for_repository(save_model(tmp_path / "mine"), "someone/mine")
    ModelCard(text).validate()
    assert "# mine" in text
    assert "Nothing was measured of this model" in text
    assert "Tells 5 attributes of an aligned face: Bald, Eyeglasses" in text
    assert "CelebA" not in text
    assert "model-index" not in text
    for block in text.split("```python\n")[1:]:
        compile(block.split("```")[0], "example", "exec")


def test_attributes_are_named_by_their_number_whatever_the_order_of_the_config(model, results):
    names = {str(i): f"Attribute_{i}" for i in (0, 1, 10, *range(2, 10))}
    (model / "config.json").write_text(json.dumps({"id2label": names}))
    expected = [f"Attribute_{i}" for i in range(11)]
    assert Measurements(model, results).attributes == expected
    assert ", ".join(expected) in card_for_repository(model, "someone/faces")
