"""MobileFaceNet: shapes and sizes of the paper, variants, and loading."""

import re

import pytest
import torch
from label2label import MobileFaceNetBackbone, MobileFaceNetConfig, MobileFaceNetModel
from transformers import AutoBackbone, AutoConfig, AutoModel


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_papers_network_has_the_papers_size():
    model = MobileFaceNetModel(MobileFaceNetConfig())
    assert 0.98e6 < count(model) < 1.01e6  # "0.99 million", section 4.2


def test_feature_maps_have_strides_2_to_16():
    model = MobileFaceNetBackbone(MobileFaceNetConfig()).eval()
    output = model(torch.zeros(2, 3, 112, 112), output_hidden_states=True)
    sizes = [tuple(feature_map.shape[1:]) for feature_map in output.hidden_states]
    assert sizes == [
        (64, 56, 56),
        (64, 28, 28),
        (128, 14, 14),
        (128, 14, 14),
        (128, 7, 7),
        (128, 7, 7),
        (512, 7, 7),
    ]
    assert [tuple(f.shape) for f in output.feature_maps] == [(2, 512, 7, 7)]


def test_backbone_takes_any_size_and_the_embedding_only_its_own():
    config = MobileFaceNetConfig()
    backbone, model = MobileFaceNetBackbone(config).eval(), MobileFaceNetModel(config).eval()
    image = torch.zeros(1, 3, 96, 131)
    assert backbone(image).feature_maps[0].shape == (1, 512, 6, 9)
    with pytest.raises(ValueError, match="112 pixels a side, got 96x131"):
        model(image)
    assert model(torch.zeros(1, 3, 112, 112)).pooler_output.shape == (1, 128)


def test_embedding_model_of_another_size_fits_that_size():
    model = MobileFaceNetModel(MobileFaceNetConfig(image_size=96)).eval()
    assert model(torch.zeros(1, 3, 96, 96)).pooler_output.shape == (1, 128)


@pytest.mark.parametrize("image_size", [112, 50])
def test_embedding_model_fits_the_strides_of_its_stages(tiny_backbone_config, image_size):
    tiny_backbone_config.image_size = image_size
    for strides in ([1, 2, 1], [2, 3, 2]):
        tiny_backbone_config.stages = [
            [*stage[:-1], stride]
            for stage, stride in zip(tiny_backbone_config.stages, strides, strict=True)
        ]
        model = MobileFaceNetModel(tiny_backbone_config).eval()
        embedding = model(torch.zeros(1, 3, image_size, image_size)).pooler_output
        assert embedding.shape == (1, 12)


@pytest.mark.parametrize("hidden_act", ["prelu", "relu6"])
@pytest.mark.parametrize("stem_pointwise", [False, True])
def test_variants_differ_in_their_parameters(hidden_act, stem_pointwise):
    config = MobileFaceNetConfig(hidden_act=hidden_act, stem_pointwise=stem_pointwise)
    names = dict(MobileFaceNetBackbone(config).named_parameters())
    assert ("encoder.stem.0.activation.weight" in names) == (hidden_act == "prelu")
    assert ("encoder.stem.2.convolution.weight" in names) == stem_pointwise


def test_width_multiplier_scales_channels_to_multiples_of_8():
    narrow = MobileFaceNetBackbone(MobileFaceNetConfig(width_multiplier=0.35))
    assert narrow.num_features == [24, 24, 48, 48, 48, 48, 176]
    assert count(narrow) < 0.25 * count(MobileFaceNetBackbone(MobileFaceNetConfig()))


def test_intermediate_feature_maps_on_request():
    config = MobileFaceNetConfig(out_features=["stage2", "features"])
    backbone = MobileFaceNetBackbone(config).eval()
    shapes = [tuple(f.shape) for f in backbone(torch.zeros(1, 3, 112, 112)).feature_maps]
    assert shapes == [(1, 128, 14, 14), (1, 512, 7, 7)]
    assert backbone.channels == [128, 512]


def test_weights_are_initialised_as_the_model_says(tiny_backbone_config):
    tiny_backbone_config.hidden_act = "prelu"
    model = MobileFaceNetModel(tiny_backbone_config)
    assert torch.all(model.encoder.stem[0].activation.weight == 0.25)
    weight = model.encoder.features.convolution.weight
    expected = (2 / weight.shape[0]) ** 0.5  # Kaiming, fan out
    assert weight.std().item() == pytest.approx(expected, rel=0.15)
    assert torch.all(model.embedding.normalization.weight == 1)


@pytest.mark.parametrize(
    "wrong",
    [{"hidden_act": "swish"}, {"stages": [[2, 64, 5]]}, {"width_multiplier": 0}],
)
def test_a_config_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(Exception, match=r"activation|expansion|width_multiplier"):
        MobileFaceNetConfig(**wrong)


@pytest.mark.parametrize("shape", [(1, 1, 48, 48), (3, 48, 48)])
def test_images_of_another_shape_are_refused(tiny_backbone_config, shape):
    with pytest.raises(
        ValueError, match=r"\(batch, 3, height, width\), got " + re.escape(f"{shape}")
    ):
        MobileFaceNetBackbone(tiny_backbone_config)(torch.zeros(shape))


def test_backbone_loads_from_the_embedding_models_folder(tiny_backbone_config, images, tmp_path):
    tiny_backbone_config.image_size = 48
    model = MobileFaceNetModel(tiny_backbone_config).eval()
    model.save_pretrained(tmp_path)
    expected = model(images).last_hidden_state
    backbone = MobileFaceNetBackbone.from_pretrained(tmp_path).eval()
    assert torch.equal(backbone(images).feature_maps[0], expected)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).eval()(images)[0], expected)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(AutoBackbone.from_config(config), MobileFaceNetBackbone)


def test_gradient_checkpointing_changes_no_gradient(tiny_backbone_config, images):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = MobileFaceNetBackbone(tiny_backbone_config).train()
        if checkpointing:
            backbone.gradient_checkpointing_enable()
        backbone(images).feature_maps[0].square().mean().backward()
        gradients.append(backbone.encoder.stem[0].convolution.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)
