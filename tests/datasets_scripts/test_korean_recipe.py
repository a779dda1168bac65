"""The Korean model, end to end: a K-FACE-shaped tree, real masks beside it, and the recipe."""

from pathlib import Path

import pytest
from label2label import Label2LabelForImageClassification
from label2label.cli import main
from label2label.data.vocabulary import KOREAN_ATTRIBUTES
from preparation.program import split_by_hash

from .conftest import Run, draw_jpeg, load_rows
from .test_kface import kface, photos  # noqa: F401


@pytest.mark.slow
def test_the_korean_recipe_trains_the_11_attributes_on_a_prepared_tree(
    kface: Path,  # noqa: F811
    tmp_path: Path,
    run: Run,
):
    # Of the tree's six people none falls to validation: one is given a name that does.
    held_out = next(str(n) for n in range(6, 200) if split_by_hash(str(n)) == "validation")
    (kface / "High_Resolution/4").rename(kface / "High_Resolution" / held_out)
    (tmp_path / "labels.csv").write_text("id,Young,Beard\n0,1,0\n1,1,1\n2,0,0\n3,1,0\n")
    faces, masks, korean = (tmp_path / name for name in ("kface", "masks", "korean"))
    labels = ("--labels", tmp_path / "labels.csv")
    assert run("kface", "--source", kface, "--output", faces, *labels) == 0
    for seed in range(20):
        file = tmp_path / "source-masks" / ("with_mask", "without_mask")[seed % 2] / f"{seed}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw_jpeg(100 + seed))
    assert run("by_name", "masks", "--source", tmp_path / "source-masks", "--output", masks) == 0
    options = ("--vocabulary", "korean-11", "--absent", "kface", "Wearing_Mask")
    assert run("merge", faces, masks, *options, "--output", korean) == 0
    assert {row["Wearing_Mask"] for row in load_rows(korean)} == {True, False}

    arguments = ["train", "--recipe", "korean", "--data", str(korean)]
    settings = ["epochs=1", "batch_size=4", "workers=0", "mixed_precision='no'"]
    for setting in settings:
        arguments += ["--set", setting]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 0
    model = Label2LabelForImageClassification.from_pretrained(tmp_path / "run/best")
    assert list(model.config.id2label.values()) == list(KOREAN_ATTRIBUTES)

    scores = tmp_path / "scores.json"
    evaluate = ["evaluate", "--model", str(tmp_path / "run/best"), "--data", str(korean)]
    assert main([*evaluate, "--bootstrap", "100", "--output", str(scores)]) == 0
    assert '"Wearing_Mask"' in scores.read_text()
