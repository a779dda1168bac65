"""Training on several domains: replay, balanced groups, weights of images."""

import json

import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.cli import main
from label2label.data.loading import draw_epoch
from label2label.errors import UserError
from label2label.training.recipe import Recipe
from label2label.training.trainer import Trainer, score_parts


@pytest.fixture
def values(recipe_values, dataset_folder, grouped_folder) -> dict:
    return {
        **recipe_values,
        "data": [str(dataset_folder), {"path": str(grouped_folder), "share": 0.5}],
        "label_count_power": 0,
        "groups": ["race"],
        "sampling": "group-balanced",
    }


def test_groups_of_a_conditioned_source_are_balanced_within_its_share(
    values, grouped_folder, tmp_path
):
    male = {"path": str(grouped_folder), "share": 0.4, "where": {"gender": "Male"}, "limit": 17}
    recipe = Recipe(**{**values, "data": [values["data"][0], male], "groups": ["race", "gender"]})
    data = Trainer(recipe, tmp_path).data
    races = np.array(data.rows["race"], object)
    assert data.probabilities[races == None].sum() == pytest.approx(0.6)  # noqa: E711
    mass = [data.probabilities[races == race].sum() for race in ("Asian", "Black", "Indian")]
    assert mass == pytest.approx([0.4 / 3] * 3)
    assert len({(races == race).sum() for race in ("Asian", "Black", "Indian")}) > 1


def test_interrupted_balanced_training_ends_with_the_same_weights(values, tmp_path):
    values["data"][1]["weight"] = 0.4
    recipe = Recipe(**values)
    whole = Trainer(recipe, tmp_path / "whole")
    whole.train()
    first = Trainer(recipe, tmp_path / "parts")
    step = first.step

    def step_then_interrupt(batch):
        first.interrupted = first.progress.step == 5
        return step(batch)

    first.step = step_then_interrupt
    assert not first.train()["finished"]
    second = Trainer(recipe, tmp_path / "parts")
    second.resume()
    assert second.train()["finished"]
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    histories = [
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "parts")
    ]
    for history in histories:
        for entry in history:
            del entry["seconds"]
    assert histories[0] == histories[1]
    assert set(histories[0][-1]["groups"]) == {"Asian", "Black", "Indian"}
    assert len(histories[0][-1]["sources"]) == 2


def test_accuracy_is_the_mean_over_sources_and_the_worst_group_is_named():
    counts = np.array([[3, 2, 4], [4, 4, 4], [1, 1, 1], [0, 1, 1]])
    groups = np.array([None, None, "a", "b"], object)
    scores = score_parts(counts, np.array(["x", "x", "y", "y"]), groups)
    assert scores == {
        "accuracy": pytest.approx((7 / 8 + 1 / 2) / 2),
        "query_accuracy": pytest.approx((6 / 8 + 1) / 2),
        "sources": {"x": 7 / 8, "y": 1 / 2},
        "groups": {"a": 1.0, "b": 0.0},
        "worst_group_accuracy": 0.0,
    }


def test_a_source_or_group_without_a_known_label_does_not_count_as_wrong():
    counts = np.array([[3, 2, 4], [4, 4, 4], [0, 0, 0], [0, 0, 0]])
    sources = np.array(["x", "x", "y", "y"])
    scores = score_parts(counts, sources, np.array(["a", "a", "b", "b"], object))
    assert scores == {
        "accuracy": 7 / 8,
        "query_accuracy": 6 / 8,
        "sources": {"x": 7 / 8, "y": None},
        "groups": {"a": 7 / 8, "b": None},
        "worst_group_accuracy": 7 / 8,
    }
    groups = np.array([None, None, "b", "b"], object)
    assert score_parts(counts, sources, groups)["worst_group_accuracy"] is None


def test_the_worst_group_has_30_labelled_images_where_any_has():
    # Group c has 40 images, of which 29 are labelled.
    hits = np.array([1] * 27 + [0] * 3 + [1] * 20 + [0] * 10 + [0] * 40)
    known = np.array([1] * 60 + [1] * 29 + [0] * 11)
    groups, sources = np.array(["a"] * 30 + ["b"] * 30 + ["c"] * 40, object), np.array(["x"] * 100)
    counts = np.stack([hits, hits, known], axis=1)
    scores = score_parts(counts, sources, groups)
    assert scores["groups"] == {"a": 0.9, "b": pytest.approx(2 / 3), "c": 0.0}
    assert scores["worst_group_accuracy"] == pytest.approx(2 / 3)
    groups[:60] = None
    assert score_parts(counts, sources, groups)["worst_group_accuracy"] == 0.0


def test_only_the_replay_is_shown_to_the_teacher(values, tmp_path):
    Trainer(Recipe(**{**values, "epochs": 1}), tmp_path / "first").train()
    best = str(tmp_path / "first/best")
    values["data"][1]["distillation"] = 0
    continued = {k: v for k, v in values.items() if k not in ("backbone_config", "model")}
    trainer = Trainer(
        Recipe(**{**continued, "init_from": best, "teachers": [best], "distillation": 0.8}),
        tmp_path / "second",
    )
    teacher = trainer.data.supervision["teacher"]
    assert ((teacher[:40] >= 0) & (teacher[:40] <= 1)).all()
    assert (teacher[40:] == -100).all()
    shares = trainer.data.supervision["distillation"]
    assert np.allclose(shares[:, 0], [0.8] * 40 + [0] * 40)


def moved(trainer: Trainer) -> set[str]:
    """What a run changes, by name."""
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_statistics_stay_and_weights_learn(values, tmp_path):
    trainer = Trainer(Recipe(**{**values, "freeze_statistics": True, "epochs": 1}), tmp_path)
    names = moved(trainer)
    assert not [name for name in names if "running_" in name or "num_batches" in name]
    assert [name for name in names if name.endswith("normalization.weight")]


def test_a_frozen_backbone_stays_and_the_head_learns(values, tmp_path):
    trainer = Trainer(Recipe(**{**values, "freeze_backbone": True, "epochs": 1}), tmp_path)
    names = moved(trainer)
    assert not [name for name in names if ".backbone." in name]
    assert "normalization.running_mean" in names
    assert [name for name in names if "query_network" in name]


def test_a_models_own_crop_is_kept_and_its_calibration_is_not(values, tmp_path):
    Trainer(Recipe(**{**values, "epochs": 1}), tmp_path / "first").train()
    folder = tmp_path / "first/best"
    processor = Label2LabelImageProcessor.from_pretrained(folder)
    processor.size, processor.crop_size = {"shortest_edge": 96}, {"height": 96, "width": 96}
    processor.thresholds = [0.3] * 40
    processor.save_pretrained(folder)
    continued = {k: v for k, v in values.items() if k not in ("backbone_config", "model")}
    trainer = Trainer(
        Recipe(**{**continued, "init_from": str(folder), "epochs": 1}), tmp_path / "second"
    )
    batch = next(iter(trainer.data.batches(0, 0)))
    pixels = trainer._inputs(batch, np.random.default_rng(0))[0]["pixel_values"]
    assert pixels.shape == (8, 3, 96, 96)
    trainer._save_model("best")
    saved = Label2LabelImageProcessor.from_pretrained(tmp_path / "second/best")
    assert saved.crop_size["height"] == 96
    assert saved.thresholds is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["planet"]}, "no column 'planet'"),
        ({"groups": ["source"]}, "no column 'source'"),
        ({"data": [{"path": "DATA", "where": {"Male": None}}]}, "no row .* has Male = None"),
        ({"data": [{"path": "DATA", "share": 0.5}]}, "add up to 0.5, not to 1"),
        ({"data": [{"path": "DATA", "where": {"race": "Martian"}}]}, "race = Martian"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_one_line(
    values, grouped_folder, tmp_path, change, message
):
    for source in change.get("data", []):
        source["path"] = str(grouped_folder)
    with pytest.raises(UserError, match=message) as refused:
        Trainer(Recipe(**{**values, **change}), tmp_path)
    assert "\n" not in str(refused.value)


def test_data_replaces_the_one_source_and_keeps_its_condition(
    recipe_values, grouped_folder, dataset_folder, tmp_path, capsys
):
    import yaml

    file = tmp_path / "recipe.yaml"
    values = {**recipe_values, "epochs": 1}
    values["data"] = [{"path": "elsewhere", "where": {"race": "Asian"}}]
    file.write_text(yaml.safe_dump(values))
    arguments = ["train", "--recipe", str(file), "--output", str(tmp_path / "run")]
    assert main([*arguments, "--data", str(grouped_folder)]) == 0
    used = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    assert used["data"][0]["path"] == str(grouped_folder)
    assert used["data"][0]["where"] == {"race": "Asian"}
    values["data"].append(str(dataset_folder))
    file.write_text(yaml.safe_dump(values))
    assert main([*arguments, "--data", str(grouped_folder)]) == 2
    assert "--set data.0.path=" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_before_the_weights_and_names_the_images(
    values, tmp_path, monkeypatch
):
    trainer = Trainer(Recipe(**values, checkpoint_every=2), tmp_path)
    forward, before = Label2LabelForImageClassification.forward, {}

    def forward_then_diverge(self, **inputs):
        outputs = forward(self, **inputs)
        if trainer.progress.step == 3 and self.training:
            before.update({k: v.clone() for k, v in self.state_dict().items() if "run" not in k})
            outputs.logits = outputs.logits * float("nan")
        return outputs

    monkeypatch.setattr(Label2LabelForImageClassification, "forward", forward_then_diverge)
    with pytest.raises(UserError, match=r"step 4 is not a finite.*step-00000002") as told:
        trainer.train()
    rows = draw_epoch(80, 0, 0, trainer.data.probabilities)[0][24:32]
    assert str(told.value).endswith(", ".join(f"row {row}" for row in rows))
    after = trainer.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "num_batches" not in k)


def test_labels_that_are_null_throughout_are_refused(values, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "label2label.training.data.label_array",
        lambda rows, names: np.full((len(rows), len(names)), -100, np.int8),
    )
    with pytest.raises(UserError, match="no label of the validation split is known"):
        Trainer(Recipe(**values), tmp_path)
