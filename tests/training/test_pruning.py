"""Channel pruning: what is kept computes what it did."""

import pytest
import torch
from label2label.errors import UserError
from label2label.models import MobileFaceNetBackbone, MobileFaceNetConfig
from label2label.training.model_building import build_model
from label2label.training.pruning import prune_channels
from label2label.training.recipe import Recipe
from transformers import AutoBackbone, ConvNextConfig

# The third stage adds to the second's channels: both have to keep the same ones.
STAGES = [[2, 32, 2, 2], [2, 64, 1, 2], [2, 64, 2, 1]]


@pytest.fixture
def backbone() -> MobileFaceNetBackbone:
    """A small backbone whose BatchNorms have been used."""
    torch.manual_seed(0)
    config = MobileFaceNetConfig(
        stem_channels=32, stem_pointwise=True, stages=STAGES, feature_channels=64
    )
    backbone = MobileFaceNetBackbone(config)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    backbone.train()(torch.randn(8, 3, 32, 32))
    return backbone.eval()


def test_dropping_dead_channels_changes_nothing(backbone):
    # The last half of every layer's channels is always 0. They are the only ones to be dropped,
    # though a stage that adds to the one before would, by its own scales alone, keep others.
    for name, parameter in backbone.named_parameters():
        if "normalization" in name:
            parameter.data[len(parameter) // 2 :] = 0.0
        if "stages.2" in name and name.endswith("project.normalization.weight"):
            parameter.data.zero_()
    pixels = torch.randn(2, 3, 32, 32)
    narrow = prune_channels(backbone, 0.5)
    (expected,) = backbone(pixels).feature_maps
    (found,) = narrow(pixels).feature_maps
    assert found.shape == (2, 32, 4, 4)
    torch.testing.assert_close(found, expected[:, :32], rtol=1e-4, atol=1e-5)
    assert expected[:, 32:].abs().max() == 0


def test_the_largest_scales_are_kept(backbone):
    scales = backbone.encoder.features.normalization.weight
    narrow = prune_channels(backbone, 0.5)
    assert narrow.config.width_multiplier == 0.5
    kept = narrow.encoder.features.normalization.weight
    assert kept.min() >= scales.sort(descending=True).values[len(kept) :].max()


def test_a_recipe_prunes_the_backbone_of_the_shipped_model():
    recipe = Recipe(
        backbone="mobilefacenet",
        backbone_config={"width_multiplier": 0.5},
        model={"hidden_size": 64, "intermediate_size": 128},
    )
    model, _ = build_model(recipe, ["Smiling", "Young"])
    assert model.label2label.backbone.channels == [64, 256]  # the third stage's and the last
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert model(torch.zeros(1, 3, 112, 112)).logits.shape == (1, 2)


def test_a_recipe_gives_the_head_features_of_earlier_stages(backbone, tmp_path):
    backbone.save_pretrained(tmp_path)
    recipe = Recipe(
        backbone=str(tmp_path), backbone_config={"out_features": ["stage1", "features"]}
    )
    model, _ = build_model(recipe, ["Smiling", "Young"])
    base = model.label2label
    assert base.input_projection.in_features == sum(base.backbone.channels) > backbone.channels[0]
    weight = backbone.encoder.features.convolution.weight
    assert torch.equal(base.backbone.encoder.features.convolution.weight, weight)
    with pytest.raises(UserError, match="stage9"):
        build_model(
            Recipe(backbone=str(tmp_path), backbone_config={"out_features": ["stage9"]}), ["Young"]
        )


def test_features_that_the_pretrained_weights_do_not_hold_are_refused(tmp_path):
    # ConvNeXt normalises each feature map that it returns, with weights of its own
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
    AutoBackbone.from_config(config).save_pretrained(tmp_path)
    change = {"out_features": ["stage1", "stage2"]}
    with pytest.raises(UserError, match="hidden_states_norms") as refused:
        build_model(Recipe(backbone=str(tmp_path), backbone_config=change), ["Young"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"width_multiplier": 2}])
def test_a_backbone_cannot_be_made_another(change):
    recipe = Recipe(backbone="mobilefacenet", backbone_config=change)
    with pytest.raises(UserError, match="width_multiplier"):
        build_model(recipe, ["Smiling"])
