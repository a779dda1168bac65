"""Attributes of one's own: what is trained, saved and exported speaks of them alone."""

import json

import datasets
import numpy as np
import pytest
import torch
from label2label import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.cli import main
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from label2label.errors import UserError
from label2label.training.data import choose_attributes
from label2label.training.recipe import Recipe
from label2label.training.trainer import Trainer
from PIL import Image

OWN = ["bright", "red", "a", "b", "c", "d", "e", "안경"]


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    """Flat images that are bright or dark, red or blue, with numbers for one of the labels."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("validation", 8), ("test", 8)):
        rows: dict[str, list] = {"image": [], **{name: [] for name in OWN}}
        for i in range(count):
            bright, red = bool(i % 2), bool(i // 2 % 2)
            color = np.array([160, 40, 60] if red else [60, 40, 160]) + (60 if bright else -30)
            pixels = color + rng.normal(0, 20, (40, 32, 3))
            rows["image"].append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
            for name in OWN:
                rows[name].append(int(red) if name == "red" else bright)
        rows["a"][0] = None
        rows |= {"identity": [str(i) for i in range(count)], "weight": [60.5] * count}
        table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
        table.to_parquet(folder / f"data/{split}-00000-of-00001.parquet")
    return folder


def names_in(folder) -> list[str]:
    """Names of CelebA's attributes in the text files of a model's folder."""
    texts = [path.read_text() for path in folder.rglob("*.json")]
    return [name for name in CELEBA_ATTRIBUTES if any(f'"{name}"' in text for text in texts)]


@pytest.mark.parametrize("start", ["shipped model", "random weights"])
def test_a_trained_model_speaks_of_the_datasets_own_attributes(
    recipe_values, own_folder, tmp_path, start
):
    recipe = tmp_path / "recipe.yaml"
    values = {key: recipe_values[key] for key in ("epochs", "batch_size")}
    if start == "shipped model":
        values["init_from"] = "mobilefacenet-tiny"
    else:
        values |= {key: recipe_values[key] for key in ("backbone_config", "model")}
    recipe.write_text(json.dumps(values | {"epochs": 1}))
    run = tmp_path / "run"
    arguments = ["--data", str(own_folder), "--vocabulary", "columns", "--output", str(run)]
    assert main(["train", "--recipe", str(recipe), *arguments]) == 0
    best = run / "best"
    model = Label2LabelForImageClassification.from_pretrained(best).eval()
    processor = Label2LabelImageProcessor.from_pretrained(best)
    assert [model.config.id2label[i] for i in range(8)] == OWN
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 112, 112))
    (answers,) = processor.post_process_attributes(outputs)
    assert list(answers) == OWN
    assert names_in(best) == []
    figures = tmp_path / "figures.json"
    command = ["evaluate", "--model", str(best), "--data", str(own_folder)]
    assert main([*command, "--output", str(figures)]) == 0
    assert list(json.loads(figures.read_text())["per_attribute"]) == OWN


def test_it_learns_attributes_of_its_own(recipe_values, own_folder, tmp_path):
    changes = {"epochs": 12, "mixup": 0, "erasing": 0, "head_learning_rate": 0.01}
    changes |= {"data": str(own_folder), "vocabulary": "columns"}
    trainer = Trainer(Recipe(**{**recipe_values, **changes}), tmp_path)
    assert list(trainer.data.attributes) == OWN
    assert trainer.data.labels[0].tolist() == [0, 0, -100, 0, 0, 0, 0, 0]
    assert trainer.data.labels[1].tolist() == [1, 0, 1, 1, 1, 1, 1, 1]
    assert trainer.train()["best_accuracy"] > 0.9


def test_columns_without_labels_are_refused():
    rows = datasets.Dataset.from_dict(
        {"image": [None, None], "age": [3, 4], "race": ["x", None], "score": [0.3, 1.0]}
    )
    with pytest.raises(UserError, match=r"no column holds labels .*; it has image, age, race"):
        choose_attributes("columns", rows, "mine")
