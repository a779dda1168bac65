"""Models for other attributes and for several processes: the same answers, by other layers."""

import copy
import math

import pytest
import torch
from label2label import Label2LabelForImageClassification
from label2label.data.vocabulary import CELEBA_ATTRIBUTES, KOREAN_ATTRIBUTES
from label2label.models import Label2LabelConfig, Label2LabelImageProcessor
from label2label.training.model_building import (
    StridedDepthwiseConv2d,
    absorb_temperature,
    build_model,
    prepare_layers,
    replace_attributes,
)
from label2label.training.recipe import Recipe
from torch import nn


def random_model(names, head_type="label2label", **settings) -> Label2LabelForImageClassification:
    torch.manual_seed(0)
    config = Label2LabelConfig(
        backbone_config={"stem_channels": 8, "stages": [[2, 8, 1, 2]], "feature_channels": 16},
        head_type=head_type,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        **settings,
    )
    model = Label2LabelForImageClassification(config)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor) * 0.3 + 0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    if model.config.head_type == "label2label":
        torch.nn.init.normal_(model.coupling.weight)
    return model.eval()


@pytest.mark.parametrize("head_type", ["fc", "query2label", "label2label"])
def test_reordered_attributes_get_the_same_answers_and_opposites_the_negated_ones(head_type):
    model = random_model(CELEBA_ATTRIBUTES, head_type)
    names = [name if name != "No_Beard" else "Beard" for name in reversed(CELEBA_ATTRIBUTES)]
    carried = replace_attributes(model, names)
    pixels = torch.randn(3, 3, 112, 112)
    with torch.no_grad():
        before, after = model(pixels), carried(pixels)
    sign = torch.tensor([-1.0 if name == "Beard" else 1.0 for name in names])
    assert torch.allclose(after.logits, before.logits.flip(1) * sign, atol=1e-4)
    if head_type != "fc":
        # Exact to rounding, so the words read are the same, and the beard's two are swapped.
        assert torch.allclose(after.query_logits, before.query_logits.flip(1) * sign, atol=1e-4)


def test_given_words_mean_the_same_to_both():
    model = random_model(CELEBA_ATTRIBUTES)
    names = [name if name != "No_Beard" else "Beard" for name in CELEBA_ATTRIBUTES]
    pixels = torch.randn(2, 3, 112, 112)
    known = torch.full((2, 40), -100)
    beard = names.index("Beard")
    known[:, beard], known[:, 3] = torch.tensor([0, 1]), 1
    with torch.no_grad():
        before = model(pixels, known_labels=known).logits
        known[:, beard] = 1 - known[:, beard]
        after = replace_attributes(model, names)(pixels, known_labels=known).logits
    before[:, beard] *= -1
    assert torch.allclose(before, after, atol=1e-4)


def test_the_korean_head_carries_over_all_but_the_mask():
    model = random_model(CELEBA_ATTRIBUTES)
    carried = replace_attributes(model, KOREAN_ATTRIBUTES)
    assert [carried.config.id2label[i] for i in range(11)] == list(KOREAN_ATTRIBUTES)
    words = model.label2label.masked_language_model.word_embeddings.weight
    new_words = carried.label2label.masked_language_model.word_embeddings.weight
    assert new_words.shape == (22, 16)
    for i, name in enumerate(KOREAN_ATTRIBUTES):
        if name == "Wearing_Mask":
            assert not (new_words[i] == words).all(dim=1).any()
            assert carried.normalization.running_var[i] == 1
            continue
        old = CELEBA_ATTRIBUTES.index("No_Beard" if name == "Beard" else name)
        absent, present = (40 + old, old) if name == "Beard" else (old, 40 + old)
        assert torch.equal(new_words[i], words[absent])
        assert torch.equal(new_words[11 + i], words[present])
    backbone = model.label2label.backbone.state_dict()
    for name, tensor in carried.label2label.backbone.state_dict().items():
        assert torch.equal(tensor, backbone[name])


def test_attributes_that_are_new_start_at_their_frequencies_and_the_others_stay():
    model = random_model(["Male", "Young"])
    new = replace_attributes(model, ["Tattoo", "Young"], torch.tensor([0.1, 0.9]))
    bias = new.normalization.bias
    assert bias[0].item() == pytest.approx(math.log(0.1 / 0.9), rel=1e-5)
    assert bias[1] == model.normalization.bias[1]
    none_known = replace_attributes(model, ["Tattoo"], torch.tensor([0.5]))
    before, after = (m.label2label.query_network.decoder.state_dict() for m in (model, none_known))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert none_known.config.id2label == {0: "Tattoo"}


@pytest.mark.parametrize("head_type", ["fc", "query2label", "label2label"])
def test_a_temperature_is_absorbed_without_a_change_of_logits(head_type):
    model = random_model(["Male", "Young"], head_type, temperature=1.7)
    pixels = torch.randn(2, 3, 112, 112)
    known = torch.tensor([[1, -100], [-100, 0]]) if head_type == "label2label" else None
    with torch.no_grad():
        before = model(pixels, known_labels=known).logits
        absorb_temperature(model)
        assert torch.allclose(model(pixels, known_labels=known).logits, before, atol=1e-5)
    assert model.config.temperature == 1.0


@pytest.mark.parametrize("names", [CELEBA_ATTRIBUTES, KOREAN_ATTRIBUTES])
def test_a_continued_model_and_its_processor_have_the_same_attributes(names):
    # The shipped one stores 40 names, and thresholds that are fitted to them.
    model, processor = build_model(Recipe(init_from="mobilefacenet"), names)
    with torch.no_grad():
        outputs = model.eval()(torch.zeros(1, 3, 112, 112))
    (decisions,) = processor.post_process_attributes(outputs)
    assert list(decisions) == list(names) == list(model.config.id2label.values())
    for decision in decisions.values():
        assert decision["present"] == (decision["probability"] >= 0.5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(12, 12), (13, 12), (7, 6)])
@pytest.mark.parametrize(("kernel", "padding", "stride"), [(3, 1, 2), (5, 2, 2), (3, 0, (2, 1))])
def test_strided_depthwise_convolutions_have_the_plain_results_and_gradients(
    kernel, padding, stride, size, layout
):
    convolution = nn.Conv2d(6, 6, kernel, stride=stride, padding=padding, groups=6, bias=False)
    plain = nn.Sequential(convolution).bfloat16()
    fast = copy.deepcopy(plain)
    prepare_layers(fast, processes=1)
    assert type(fast[0]) is StridedDepthwiseConv2d
    pixels = torch.randn(2, 6, *size).bfloat16().contiguous(memory_format=layout)
    found = []
    for model in (plain, fast):
        images = pixels.clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(images)
        torch.manual_seed(0)
        output.backward(torch.randn(output.shape).bfloat16())
        found.append((output, images.grad, model[0].weight.grad))
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=0.02, atol=0.02)


def test_a_model_whose_processor_has_no_rules_can_be_fine_tuned(tmp_path):
    random_model(["Male", "Smiling"]).save_pretrained(tmp_path)
    Label2LabelImageProcessor(exclusive_answers=None).save_pretrained(tmp_path)
    _, processor = build_model(Recipe(init_from=str(tmp_path)), ["Smiling", "Bald"])
    assert processor.exclusive_answers == []


def test_only_strided_depthwise_convolutions_are_replaced():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, stride=2, bias=False),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
    ).eval()
    names = list(model.state_dict())
    prepare_layers(model, processes=1)
    assert [type(layer) for layer in model] == [StridedDepthwiseConv2d] + 3 * [nn.Conv2d]
    assert list(model.state_dict()) == names
    assert not model[0].training
