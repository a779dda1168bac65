"""Variants of a training step are measured against each other, and those that fail say why."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.training.conftest import dataset_folder, recipe_values  # noqa: F401


@pytest.fixture
def program(load_benchmark):
    return load_benchmark("training_speed")


def test_every_row_is_a_valid_recipe_and_changes_something(program):
    from label2label.training.recipe import load_recipe

    common = ["batch_size=64", 'mixed_precision="no"']
    plain = load_recipe("celeba", common)
    for name, (_, settings, extra) in program.ROWS.items():
        written = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        changed = load_recipe("celeba", [*common, *written]) != plain
        assert (changed or bool(extra)) == (name != program.BASELINE)


@pytest.mark.slow
def test_rows_are_measured_in_turns(program, recipe_values, tmp_path):  # noqa: F811
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_values))
    output = tmp_path / "training_speed.json"
    arguments = ["--recipe", recipe, "--rows", "frozen-backbone", "--rounds", "2"]
    arguments += ["--images", "64", "--output", output]
    # Not inside this process, whose module the rows' processes could not import.
    command = [sys.executable, program.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    rows = result["rows"]
    assert list(rows) == ["baseline", "frozen-backbone"]
    assert rows["baseline"]["ratio"] == 1
    assert rows["frozen-backbone"]["images_per_second"] > 0
    assert result["loop"]["ratio"] > 0
    assert result["loop"]["decoded_bytes_per_image"] > 3 * 112 * 112
