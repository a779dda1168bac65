"""The Korean model, end to end: a K-FACE-shaped tree, masks drawn on it, and the recipe."""

from pathlib import Path

import pytest
from label2label import Label2LabelForImageClassification
from label2label.cli import main
from label2label.data.vocabulary import KOREAN_ATTRIBUTES
from preparation.program import split_by_hash

from .conftest import Run, load_rows, read_zip
from .test_kface import kface  # noqa: F401


@pytest.fixture
def photos(shared: Path) -> list[bytes]:
    """Six real photos of 250x250, on which masks can be drawn."""
    return list(read_zip(shared / "data/lfw/lfw_subset.zip", step=180).values())[:6]


@pytest.mark.slow
def test_the_korean_recipe_trains_the_11_attributes_on_a_prepared_tree(
    kface: Path,  # noqa: F811
    yunet: None,
    tmp_path: Path,
    run: Run,
):
    # Of the tree's six people none falls to validation: one is given a name that does.
    held_out = next(str(n) for n in range(6, 200) if split_by_hash(str(n)) == "validation")
    (kface / "High_Resolution/4").rename(kface / "High_Resolution" / held_out)
    (tmp_path / "labels.csv").write_text("id,Young,Beard\n0,1,0\n1,1,1\n2,0,0\n3,1,0\n")
    prepared, masked = tmp_path / "kface", tmp_path / "korean"
    labels = ("--labels", tmp_path / "labels.csv")
    assert run("kface", "--source", kface, "--output", prepared, *labels) == 0
    shares = ("--masks", "0.5", "--max-bad", "20")
    assert run("masks_and_blur", prepared, "--output", masked, *shares) == 0
    assert any(row["Wearing_Mask"] for row in load_rows(masked))

    arguments = ["train", "--recipe", "korean", "--data", str(masked)]
    settings = ["epochs=1", "batch_size=4", "workers=0", "mixed_precision='no'"]
    for setting in settings:
        arguments += ["--set", setting]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 0
    model = Label2LabelForImageClassification.from_pretrained(tmp_path / "run/best")
    assert list(model.config.id2label.values()) == list(KOREAN_ATTRIBUTES)

    scores = tmp_path / "scores.json"
    evaluate = ["evaluate", "--model", str(tmp_path / "run/best"), "--data", str(masked)]
    assert main([*evaluate, "--bootstrap", "100", "--output", str(scores)]) == 0
    assert '"Wearing_Mask"' in scores.read_text()
