"""From raw files to a trained model: sources that label different attributes learn side by side."""

import json
from pathlib import Path

import pytest
from label2label.cli import main

from .conftest import Run, read_zip, write_celeba

pytestmark = pytest.mark.slow

TINY = (
    "backbone_config={model_type: mobilefacenet, stem_channels: 8, stages: [[2, 8, 1, 2]],"
    " feature_channels: 16}",
    "model={hidden_size: 16, intermediate_size: 16, num_attention_heads: 2}",
)


def test_one_recipe_trains_on_the_merge_of_celeba_and_utkface(
    shared: Path, tmp_path: Path, run: Run
):
    write_celeba(shared, tmp_path / "celeba-source", step=50)
    celeba = tmp_path / "celeba"
    assert run("celeba", "--source", tmp_path / "celeba-source", "--output", celeba) == 0
    source = tmp_path / "utkface-source/crop_part1"
    source.mkdir(parents=True)
    for name, data in read_zip(shared / "data/utkface/crop_part1.zip", step=60).items():
        (source / name).write_bytes(data)
    assert (
        run("by_name", "utkface", "--source", source.parent, "--output", tmp_path / "utkface") == 0
    )
    inputs = (celeba, tmp_path / "utkface", "--absent", "celeba", "Wearing_Mask")
    assert run("merge", *inputs, "--output", tmp_path / "merged") == 0
    settings = (
        f"data={tmp_path / 'merged'}",
        "init_from=null",
        *TINY,
        "epochs=1",
        "workers=0",
        "mixed_precision='no'",
    )
    options = [word for setting in settings for word in ("--set", setting)]
    output = ["--output", str(tmp_path / "run")]
    assert main(["train", "--recipe", "merged", *output, *options]) == 0
    config = json.loads((tmp_path / "run/best/config.json").read_text())
    assert len(config["id2label"]) == 41
