"""The ablation table: every cell trained once, differences that are real told from chance."""

import json
import shutil
import sys
from argparse import Namespace
from itertools import combinations
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
from label2label.models import Label2LabelConfig
from label2label.prediction.backends import TorchBackend
from label2label.training.recipe import load_recipe

from tests.training.conftest import dataset_folder, draw, recipe_values  # noqa: F401


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
    monkeypatch.setitem(ablation.BACKBONES, "MobileFaceNet", [])
    fc, unmasked = "fc on MobileFaceNet", "label2label, nothing masked on MobileFaceNet"
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_values))
    options = ["--rows", fc, unmasked, "--recipe", str(recipe), "--data", str(with_test_split)]
    options += ["--epochs", "1", "--seeds", "4", "--runs", str(tmp_path / "runs")]
    options += ["--output", str(tmp_path / "ablation.json")]

    def build(*more) -> int:
        monkeypatch.setattr(sys, "argv", ["ablation.py", *options, *more])
        return ablation.finish(ablation.main)

    assert build("--plan") == 0
    planned = capsys.readouterr().out
    assert f"{fc}: 0.0 h a seed, 1 seeds left (" in planned
    assert "in all 0.0 h" in planned
    assert ran == []

    assert build() == 2
    assert "run the same command again" in capsys.readouterr().err
    assert build() == 0
    assert len(ran) == 3

    result = json.loads((tmp_path / "ablation.json").read_text())
    assert (result["split"], result["epochs"], result["test_images"]) == ("test", 1, 20)
    rows = result["rows"]
    assert list(rows) == [fc, unmasked]
    assert rows[fc]["parameters"]["backbone"] == rows[unmasked]["parameters"]["backbone"]
    assert rows[fc]["parameters"]["head"] < rows[unmasked]["parameters"]["head"]
    assert 0 < rows[fc]["flops"]["all"] < rows[unmasked]["flops"]["all"]
    cell = json.loads((tmp_path / "runs/fc-on-mobilefacenet-seed-4.json").read_text())
    expected = sum(cell["right"]) / sum(cell["known"])
    assert rows[fc]["accuracy"]["mean"] == pytest.approx(expected)
    assert rows[fc]["compared"] is None  # its reference, label2label, is not trained
    # All scores are of the test split; a head without queries has none of theirs.
    assert "query_accuracy" not in rows[fc]
    (best,) = tmp_path.glob("runs/label2label-nothing-masked-*/seed-4-*/best")
    assert json.loads((best / "config.json").read_text())["mask_probability"] == 0.0
    model = TorchBackend.from_pretrained(best)
    dataset = load_split(with_test_split, "test")
    _, by_queries = predict_dataset(Accelerator(cpu=True), model, dataset)
    expected = mean_accuracy(by_queries, label_array(dataset, model.preprocessing.attributes))
    assert rows[unmasked]["query_accuracy"]["mean"] == pytest.approx(float(expected), abs=1e-6)

    # What was trained on another machine counts, unless it was trained otherwise.
    for folder in (tmp_path / "runs").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    assert build() == 0
    assert len(ran) == 3
    assert build("--set", "model.dropout=0.3") == 2
    assert "trained with other settings" in capsys.readouterr().err


def cells(rates, people, rng):
    """Cells of one row, a seed each, that are right on this share of 40 labels."""
    return [
        {"right": rng.binomial(40, rate, people).tolist(), "known": [40] * people} for rate in rates
    ]


def test_a_difference_is_real_if_neither_people_nor_seeds_undo_it(load_benchmark):
    compare, rng = load_benchmark("ablation").compare_cells, np.random.default_rng(0)
    people = np.arange(200) // 2
    rates = {"good": (0.91, 0.9, 0.905), "same": (0.9, 0.905, 0.91), "bad": (0.8, 0.81, 0.805)}
    rates["unsteady"] = (0.98, 0.75, 0.9)
    rows = {name: cells(values, 200, rng) for name, values in rates.items()}
    worse = compare(rows["good"], rows["bad"], people)
    assert worse["real"]
    assert worse["difference"] == pytest.approx(0.1, abs=0.01)
    assert worse["interval"][0] < worse["difference"] < worse["interval"][1]
    assert not compare(rows["good"], rows["same"], people)["real"]
    # As far from good on average as a real difference would be, but not in every seed.
    assert not compare(rows["good"], rows["unsteady"], people)["real"]
    # Of one seed a difference is never called real.
    assert compare(rows["good"][:1], rows["bad"], people)["real"] is None


def test_rows_of_the_same_recipe_are_seldom_called_different(load_benchmark):
    compare, rng = load_benchmark("ablation").compare_cells, np.random.default_rng(0)
    rows = [cells(rng.normal(0.9, 0.01, 3), 50, rng) for _ in range(24)]  # seeds as people
    pairs = combinations(rows, 2)
    real = [compare(*pair, np.arange(50), resamples=100)["real"] for pair in pairs]
    assert 0 < np.mean(real) < 0.09  # of 276; 0.05 by definition


def test_all_rows_are_valid_recipes_of_files_of_their_own(load_benchmark):
    ablation = load_benchmark("ablation")
    args = Namespace(data="d", images=500, epochs=4, set=[], runs=Path("runs"))
    files, recipes = set(), []
    for row, (_, backbone) in ablation.ROWS.items():
        recipe = load_recipe("celeba", ablation.cell_settings(args, row, 0))
        config = Label2LabelConfig(
            backbone_config=recipe.backbone_config,
            id2label=dict(enumerate(CELEBA_ATTRIBUTES)),
            label2id={name: i for i, name in enumerate(CELEBA_ATTRIBUTES)},
            **recipe.model,
        )
        parameters = ablation.measure_complexity(config, 112)["parameters"]
        assert (recipe.backbone is None) == ("recognition" not in backbone)
        assert (parameters["backbone"] > 20e6) == (backbone == "ResNet-50")
        assert recipe.sources[0].limit == 500
        assert recipe not in recipes
        recipes.append(recipe)
        files.add(ablation.cell_file(args, row, 0))
        assert ablation.reference_of(row) in (*ablation.ROWS, None)
    assert len(files) == len(ablation.ROWS) == 12
    assert ablation.reference_of("fc on ResNet-50") == "label2label on ResNet-50"
    assert ablation.reference_of("label2label on ResNet-50") == "label2label on MobileFaceNet"
    assert ablation.reference_of("label2label on MobileFaceNet") is None


def test_an_unknown_row_is_refused(load_benchmark, monkeypatch, capsys):
    ablation = load_benchmark("ablation")
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--rows", "1,000 wide"])
    assert ablation.finish(ablation.main) == 2
    assert "no row '1,000 wide': the rows are fc on" in capsys.readouterr().err
