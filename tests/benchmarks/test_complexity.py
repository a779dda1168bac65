"""Parameters and FLOPs by part, of ours and of the original."""

import json
import sys

import pytest
from label2label.models import (
    Label2LabelConfig,
    Label2LabelForImageClassification,
    Label2LabelImageProcessor,
)


@pytest.fixture
def complexity(load_benchmark):
    return load_benchmark("complexity")


def test_counts_of_a_model_that_was_built_agree(complexity):
    config = Label2LabelConfig(num_labels=40)
    measured = complexity.measure_complexity(config, 112)["parameters"]
    assert measured["all"] == Label2LabelForImageClassification(config).num_parameters()
    assert measured["all"] == measured["backbone"] + measured["head"]


def test_flops_are_two_a_multiply_add(complexity):
    # The linear head on pooled 512-channel features: 40 x 512 multiply-adds.
    config = Label2LabelConfig(num_labels=40, head_type="fc")
    assert complexity.measure_complexity(config, 112)["flops"]["head"] == 2 * 40 * 512


def test_the_default_model_keeps_the_ceilings_of_the_whole_model(complexity):
    measured = complexity.measure_complexity(Label2LabelConfig(num_labels=40), 112)
    assert measured["parameters"]["all"] < 2e6
    assert measured["flops"]["all"] < 0.6e9


def test_the_original_weighs_what_its_released_code_does(complexity):
    # 150.0 M parameters and 22.0 GFLOPs at 250x250, measured from the released code.
    measured = complexity.measure_complexity(complexity.original_label2label(), image_size=250)
    assert measured["parameters"]["all"] == pytest.approx(150.0e6, rel=0.03)
    assert measured["flops"]["all"] == pytest.approx(22.0e9, rel=0.03)


RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "out_features": ["stage2"],
}


def test_a_backbone_without_a_size_of_its_own_is_counted_at_the_crops_size(
    complexity, tmp_path, monkeypatch
):
    config = Label2LabelConfig(backbone_config=RESNET, num_labels=2)
    Label2LabelForImageClassification(config).save_pretrained(tmp_path)
    Label2LabelImageProcessor(attributes=["a", "b"]).save_pretrained(tmp_path)
    output = tmp_path / "size.json"
    monkeypatch.setattr(
        sys, "argv", ["complexity", "--model", str(tmp_path), "--output", str(output)]
    )
    assert complexity.finish(complexity.measure) == 0
    sizes = json.loads(output.read_text())
    assert sizes["model"]["image_size"] == 112
    assert sizes["model"]["flops"] == complexity.measure_complexity(config, 112)["flops"]
    assert sizes["model"]["file_bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert sizes["original_label2label"]["image_size"] == 250


def test_a_folder_without_a_model_is_one_line(complexity, tmp_path, monkeypatch, capsys):
    arguments = ["--model", str(tmp_path), "--output", str(tmp_path / "size.json")]
    monkeypatch.setattr(sys, "argv", ["complexity", *arguments])
    assert complexity.finish(complexity.measure) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} has no config.json: it is not a complete model folder\n"
    )
