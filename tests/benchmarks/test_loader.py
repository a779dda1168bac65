"""The loader's benchmark: both speeds of one run, and their ratio."""

import json

import pytest
import yaml

from tests.training.conftest import dataset_folder, recipe_values  # noqa: F401


def test_the_ratio_is_that_of_the_two_speeds(
    recipe_values,  # noqa: F811
    tmp_path,
    load_benchmark,
    capsys,
):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_values))
    loader = load_benchmark("loader")
    output = tmp_path / "loader.json"
    arguments = ["--recipe", str(recipe), "--output", str(output), "--batches", "1"]
    assert loader.main([*arguments, "--rounds", "3"]) == 0
    result = json.loads(output.read_text())
    assert len(result["rounds"]) == 3
    for part in result["rounds"]:
        assert part["ratio"] == pytest.approx(part["loop"] / part["bare_step"])
    assert result["ratio"] == sorted(part["ratio"] for part in result["rounds"])[1]
    assert result["loader_cpu_milliseconds_per_image"] > 0
    assert f"{result['ratio']:.1%}" in capsys.readouterr().out

    assert loader.main([*arguments, "--rounds", "9"]) == 2
    assert "more than the 5 of an epoch" in capsys.readouterr().err
