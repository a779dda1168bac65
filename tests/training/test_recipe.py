"""Recipes: what is read, what is refused."""

from importlib import resources

import pytest
from label2label.errors import UserError
from label2label.training.recipe import Recipe, load_recipe

from ..data.mutations import mutate


def test_the_bundled_recipe_is_valid():
    recipe = load_recipe("celeba")
    assert recipe.model["head_type"] == "label2label"
    assert recipe.epochs > 1


def test_no_file_gives_the_defaults():
    assert load_recipe(None) == Recipe()


def test_overrides_win_over_the_file_and_reach_into_mappings(recipe_file):
    recipe = load_recipe(
        recipe_file, ["epochs=7", "model.hidden_size=32", "mixed_precision='no'", "backbone=null"]
    )
    assert (recipe.epochs, recipe.model["hidden_size"], recipe.backbone) == (7, 32, None)
    assert recipe.model["num_attention_heads"] == 2
    assert recipe.batch_size == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key epoch; similar keys: epochs"),
        ("epochs: many", "epochs"),
        ("epochs: 0", "epochs must be in 1"),
        ("workers: -1", "workers must be in 0..256, got -1"),
        ("head_learning_rate: -0.1", "head_learning_rate must be in 0..100"),
        ("init_from: a/b\nmodel: {dropout: 0}", "leave out backbone and model"),
        ("flip: 1.5", "flip must be in 0..1"),
        ("label_count_power: 2", "label_count_power must be in 0..1, got 2"),
        ("teacher_confidence: 0.4", "teacher_confidence must be in 0.5..1, got 0.4"),
        ("sampling: group-balanced", "'group-balanced' needs groups"),
        ("mixed_precision: fp16", r"'mixed_precision' expected one of \('no', 'bf16'\)"),
        ("cache_pixels: 3", "cache_pixels"),
        ("- a list", "a mapping of keys"),
        (f"seed: {10**24}", "seed must be in 0"),
        (f"seed: {'9' * 5000}", "not valid YAML"),
        ("workers: 100000", "workers must be in 0..256, got 100000"),
        ("head_learning_rate: .nan", "head_learning_rate must be in 0..100"),
        ("frozen_stages: [-1]", "frozen_stages must be in 0..100, got -1"),
        ("image_sizes: [8]", "image_sizes must be in 32..1024, got 8"),
        ("[" * 5000, "not valid YAML"),
        ("a: &a [*a]", "unknown key a"),
        ("model: 2001-99-99", "not valid YAML"),
        ("epochs: [", "not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as refused:
        load_recipe(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "takes key=value"),
        ("epoch=3", "unknown key epoch"),
        ("epochs.x=3", "'epochs' is not a mapping"),
        ("epochs=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_refused(recipe_file, override, message):
    with pytest.raises(UserError, match=message):
        load_recipe(recipe_file, [override])


def test_a_folder_does_not_hide_a_shipped_recipe(tmp_path, monkeypatch):
    expected = load_recipe("celeba")
    (tmp_path / "celeba").mkdir()  # such as the downloaded dataset
    monkeypatch.chdir(tmp_path)
    assert load_recipe("celeba") == expected


@pytest.mark.parametrize("name", ["nowhere", "some/where.yaml", "/no/where.yaml"])
def test_a_missing_file_is_named_and_those_that_ship(name):
    with pytest.raises(UserError, match=f"{name}: no such recipe; shipped recipes: celeba,"):
        load_recipe(name)


@pytest.mark.hostile
def test_a_thousand_mutations_of_recipes_are_read_or_refused(recipe_file, tmp_path):
    bundled = resources.files("label2label.training") / "recipes/korean.yaml"
    path, outcomes, refusals = tmp_path / "changed.yaml", [], []
    for content in (recipe_file.read_bytes(), bundled.read_bytes()):
        for changed in mutate(content, 500):
            path.write_bytes(changed)
            try:
                load_recipe(path)
                outcomes.append(True)
            except UserError as error:
                refusals.append(str(error))
                outcomes.append(False)
    assert not [text for text in refusals if "\n" in text]
    assert 100 < sum(outcomes) < 900
