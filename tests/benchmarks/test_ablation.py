"""The ablation table: every cell trained once, differences that are real told from chance."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from accelerate import Accelerator
from label2label.data.loading import label_array, load_split
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.evaluation.evaluate import predict_dataset
from label2label.evaluation.metrics import mean_accuracy
from label2label.prediction.backends import load_model

from tests.training.conftest import dataset_folder, draw, recipe_values  # noqa: F401

RECIPE = Path(__file__).parents[2] / "benchmarks/ablation.yaml"


@pytest.fixture
def with_test_split(dataset_folder, tmp_path):  # noqa: F811
    folder = tmp_path / "data-with-test"
    (folder / "data").mkdir(parents=True)
    for file in (dataset_folder / "data").iterdir():
        (folder / "data" / file.name).write_bytes(file.read_bytes())
    features = datasets.Dataset.from_parquet(str(file)).features
    rows = datasets.Dataset.from_dict(draw(np.random.default_rng(3), 20), features=features)
    rows.to_parquet(folder / "data/test-00000-of-00001.parquet")
    return folder


@pytest.mark.slow
def test_a_stopped_table_goes_on_and_holds_every_row(
    recipe_values,  # noqa: F811
    with_test_split,
    tmp_path,
    load_benchmark,
    run_inside,
    monkeypatch,
    capsys,
):
    ablation = load_benchmark("ablation")
    ran: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        ran.append(arguments)
        return 1 if len(ran) == 2 else run_inside(arguments)

    monkeypatch.setattr(ablation, "run_command", run)
    rows = {"fc": ["model.head_type=fc"], "no masks": ["model.mask_probability=0.0"]}
    monkeypatch.setitem(ablation.TABLES, "heads", ablation.Table("test", rows))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_values))
    options = ["heads", "--recipe", str(recipe), "--data", str(with_test_split), "--epochs", "1"]
    options += ["--seeds", "4", "--runs", str(tmp_path / "runs")]
    options += ["--output", str(tmp_path / "ablation.json")]

    def build() -> int:
        monkeypatch.setattr(sys, "argv", ["ablation.py", *options])
        return ablation.finish(ablation.main)

    assert build() == 2
    assert "the same command goes on" in capsys.readouterr().err
    assert build() == 0
    assert len(ran) == 3

    result = json.loads((tmp_path / "ablation.json").read_text())
    assert (result["split"], result["epochs"]) == ("test", 1)
    fc, unmasked = result["rows"]["fc"], result["rows"]["no masks"]
    assert fc["parameters"]["backbone"] == unmasked["parameters"]["backbone"]
    assert fc["parameters"]["head"] < unmasked["parameters"]["head"]
    assert 0 < fc["flops"] < unmasked["flops"]
    cell = json.loads((tmp_path / "runs/heads/fc-seed-4.json").read_text())
    assert fc["accuracy"]["mean"] == pytest.approx(sum(cell["right"]) / sum(cell["known"]))
    (best,) = tmp_path.glob("runs/heads/no-masks/seed-4-*/best")
    assert json.loads((best / "config.json").read_text())["mask_probability"] == 0.0
    assert f"{fc['accuracy']['mean']:.4f}" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "ablation.svg").read_text()
    # Of one seed a difference is never called real.
    assert [pair["real"] for pair in result["comparisons"]] == [None]
    # All scores are of the split that the table names; a head without queries has none of theirs.
    assert "query_accuracy" not in fc
    model, processor = load_model(str(best))
    dataset = load_split(with_test_split, "test")
    _, by_queries = predict_dataset(Accelerator(cpu=True), model, processor, dataset)
    expected = mean_accuracy(by_queries, label_array(dataset, list(model.config.label2id)))
    assert unmasked["query_accuracy"]["mean"] == pytest.approx(float(expected), abs=1e-6)

    # What was trained on another machine counts, unless it was trained otherwise.
    for folder in (tmp_path / "runs/heads").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    assert build() == 0
    assert len(ran) == 3
    rows["fc"].append("model.dropout=0.3")
    assert build() == 2
    assert "made with other settings" in capsys.readouterr().err


def test_a_difference_is_real_if_neither_people_nor_seeds_undo_it(
    tmp_path, load_benchmark, monkeypatch
):
    ablation = load_benchmark("ablation")
    people = [str(i // 2) for i in range(200)]
    monkeypatch.setattr(
        ablation, "load_split", lambda *_: datasets.Dataset.from_dict({"identity": people})
    )
    rng = np.random.default_rng(0)
    rates = {"good": (0.91, 0.9, 0.905), "same": (0.9, 0.905, 0.91), "bad": (0.8, 0.81, 0.805)}
    rates["unsteady"] = (0.98, 0.75, 0.9)
    rows = {}
    (tmp_path / "heads").mkdir()
    for head, values in rates.items():
        means = []
        for seed, rate in enumerate(values):
            right = rng.binomial(40, rate, 200)
            cell = {"right": right.tolist(), "known": [40] * 200}
            (tmp_path / "heads" / f"{head}-seed-{seed}.json").write_text(json.dumps(cell))
            means.append(right.mean() / 40)
        accuracy = {"mean": float(np.mean(means)), "std": float(np.std(means, ddof=1))}
        rows[head] = {"seeds": [0, 1, 2], "accuracy": accuracy}
    args = argparse.Namespace(data="", runs=tmp_path, table="heads")
    found = {tuple(c["rows"]): c for c in ablation.compare_rows(args, rows)}
    assert found["good", "bad"]["real"]
    assert found["good", "bad"]["difference"] == pytest.approx(0.1, abs=0.01)
    assert not found["good", "same"]["real"]
    # As far from good on average as a real difference would be, but not in every seed.
    assert not found["good", "unsteady"]["real"]
    low, high = found["good", "bad"]["interval"]
    assert low < found["good", "bad"]["difference"] < high


def test_rows_of_the_same_recipe_are_seldom_called_different(tmp_path, load_benchmark, monkeypatch):
    ablation = load_benchmark("ablation")
    people = datasets.Dataset.from_dict({"identity": list(map(str, range(50)))})
    monkeypatch.setattr(ablation, "load_split", lambda *_: people)
    rng = np.random.default_rng(0)
    (tmp_path / "heads").mkdir()
    rows = {}
    for row in range(30):  # whose seeds differ as much as people do
        means = []
        for seed, rate in enumerate(rng.normal(0.9, 0.01, 3)):
            right = rng.binomial(40, rate, 50)
            cell = {"right": right.tolist(), "known": [40] * 50}
            (tmp_path / f"heads/row-{row}-seed-{seed}.json").write_text(json.dumps(cell))
            means.append(right.mean() / 40)
        accuracy = {"mean": float(np.mean(means)), "std": float(np.std(means, ddof=1))}
        rows[f"row {row}"] = {"seeds": [0, 1, 2], "accuracy": accuracy}
    args = argparse.Namespace(data="", runs=tmp_path, table="heads")
    found = ablation.compare_rows(args, rows, resamples=200)
    assert 0 < np.mean([pair["real"] for pair in found]) < 0.08  # 435 pairs; 0.05 by definition
    assert all(pair["real"] == (pair["p_value"] < 0.05) for pair in found)


def test_rows_lie_in_files_of_their_own(load_benchmark, tmp_path):
    ablation = load_benchmark("ablation")
    for name, table in ablation.TABLES.items():
        args = argparse.Namespace(runs=tmp_path, table=name)
        files = {ablation.cell_file(args, row, 0) for row in table.rows}
        assert len(files) == len(table.rows)


@pytest.mark.parametrize("name", ["heads", "sizes"])
def test_all_rows_are_valid_recipes(load_benchmark, name):
    from label2label.models import Label2LabelConfig
    from label2label.training.recipe import load_recipe

    ablation = load_benchmark("ablation")
    table = ablation.TABLES[name]
    plain = load_recipe(RECIPE)
    for row, settings in table.rows.items():
        recipe = load_recipe(RECIPE, settings)
        assert (recipe != plain) == (row not in ("the recipe", "label2label"))
        config = Label2LabelConfig(
            backbone_config=recipe.backbone_config,
            id2label=dict(enumerate(CELEBA_ATTRIBUTES)),
            label2id={name: i for i, name in enumerate(CELEBA_ATTRIBUTES)},
            **recipe.model,
        )
        parameters = ablation.measure_complexity(config, 112)["parameters"]
        assert (recipe.backbone is None) == row.endswith("scratch")
        assert (parameters["backbone"] > 20e6) == ("ResNet-50" in row)


def test_an_unknown_row_is_refused(load_benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "sizes", "--rows", "1,000 wide"])
    with pytest.raises(SystemExit, match="2"):
        load_benchmark("ablation").main()
    assert "unknown row 1,000 wide; known: 32 wide" in capsys.readouterr().err
