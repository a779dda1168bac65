"""A tiny dataset that can be learnt: a face is bright or dark, red or blue."""

import datasets
import numpy as np
import pytest
import yaml
from label2label.data.vocabulary import CELEBA_ATTRIBUTES
from PIL import Image

NUM_TRAIN, NUM_VALIDATION = 40, 9


def draw(rng: np.random.Generator, count: int) -> dict[str, list]:
    """Draw flat images with noise: `Male` is bright, `Smiling` is red; the rest is unknown."""
    rows: dict[str, list] = {"image": [], **{name: [] for name in CELEBA_ATTRIBUTES}}
    for i in range(count):
        bright, red = bool(i % 2), bool(i // 2 % 2)
        color = np.array([160, 40, 60] if red else [60, 40, 160]) + (60 if bright else -30)
        pixels = color + rng.normal(0, 20, (40, 32, 3))
        rows["image"].append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
        for name in CELEBA_ATTRIBUTES:
            rows[name].append({"Male": bright, "Smiling": red}.get(name))
    rows["identity"] = [str(i) for i in range(count)]
    return rows


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            **dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool")),
            "identity": datasets.Value("string"),
        }
    )
    (folder / "data").mkdir()
    for split, count in (("train", NUM_TRAIN), ("validation", NUM_VALIDATION)):
        rows = datasets.Dataset.from_dict(draw(rng, count), features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


RACES = ("Asian", "Black", "Indian")


@pytest.fixture(scope="session")
def grouped_folder(tmp_path_factory):
    """Write a dataset like `dataset_folder` with races, genders and only the label `Male`."""
    folder = tmp_path_factory.mktemp("grouped")
    rng = np.random.default_rng(1)
    columns = ("identity", "race", "gender")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            **dict.fromkeys(CELEBA_ATTRIBUTES, datasets.Value("bool")),
            **dict.fromkeys(columns, datasets.Value("string")),
        }
    )
    (folder / "data").mkdir()
    for split, count in (("train", NUM_TRAIN), ("validation", 2 * NUM_VALIDATION)):
        rows = draw(rng, count)
        rows["Smiling"] = [None] * count
        rows["race"] = [RACES[i % 3] for i in range(count)]
        rows["gender"] = ["Male" if male else "Female" for male in rows["Male"]]
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def recipe_values(dataset_folder) -> dict:
    return {
        "data": str(dataset_folder),
        "backbone_config": {
            "model_type": "mobilefacenet",
            "stem_channels": 8,
            "stages": [[2, 8, 1, 2]],
            "feature_channels": 16,
            "hidden_act": "relu6",
        },
        "model": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2},
        "mixup": 0.5,
        "erasing": 0.5,
        "color": 0.1,
        "label_smoothing": 0.1,
        "epochs": 2,
        "batch_size": 8,
        "ema": 0.5,
        "workers": 0,
    }


@pytest.fixture
def recipe_file(recipe_values, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_values))
    return path
