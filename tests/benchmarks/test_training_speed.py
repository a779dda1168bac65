"""Variants of a training step are measured against each other, and those that fail say why."""

import json
import sys

import pytest
import yaml

from tests.training.conftest import dataset_folder, recipe_values  # noqa: F401


@pytest.fixture
def program(load_benchmark):
    return load_benchmark("training_speed")


def test_every_row_is_a_valid_recipe_and_changes_something(program):
    from label2label.training.recipe import load_recipe

    def load(settings):
        return load_recipe("celeba", [f"{key}={json.dumps(v)}" for key, v in settings.items()])

    plain = load(program.COMMON)
    for name, (_, settings) in program.ROWS.items():
        recipe = {key: value for key, value in settings.items() if key != "compile"}
        changed = load({**program.COMMON, **recipe}) != plain
        assert (changed or settings == program.COMPILE) == (name != program.BASELINE)


@pytest.mark.slow
def test_rows_are_measured_in_turns(
    program,
    recipe_values,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_values))
    output = tmp_path / "training_speed.json"
    arguments = ["--recipe", recipe, "--rows", "together", "--rounds", "3", "--images", "256"]
    arguments += ["--output", output]
    monkeypatch.setattr(sys, "argv", ["training_speed.py", *map(str, arguments)])
    assert program.finish(program.main) == 0
    result = json.loads(output.read_text())
    rows = result["rows"]
    assert list(rows) == ["baseline", "together"]
    assert rows["baseline"]["ratio"] == 1
    assert rows["together"]["images_per_second"] > 0
    assert result["loop"]["ratio"] > 0
