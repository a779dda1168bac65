"""Derived heads: the same answers about the same attributes, the opposite about opposites."""

import pytest
import torch
from label2label import Label2LabelForImageClassification
from label2label.data.vocabulary import CELEBA_ATTRIBUTES, KOREAN_ATTRIBUTES
from label2label.errors import UserError
from label2label.models import Label2LabelConfig
from label2label.training.build import build_model
from label2label.training.derivation import absorb_temperature, derive_model
from label2label.training.recipe import Recipe


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
    derived = derive_model(model, names)
    pixels = torch.randn(3, 3, 112, 112)
    with torch.no_grad():
        before, after = model(pixels), derived(pixels)
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
        after = derive_model(model, names)(pixels, known_labels=known).logits
    before[:, beard] *= -1
    assert torch.allclose(before, after, atol=1e-4)


def test_the_korean_head_carries_over_all_but_the_mask():
    model = random_model(CELEBA_ATTRIBUTES)
    derived = derive_model(model, KOREAN_ATTRIBUTES)
    assert [derived.config.id2label[i] for i in range(11)] == list(KOREAN_ATTRIBUTES)
    words = model.label2label.masked_language_model.word_embeddings.weight
    new_words = derived.label2label.masked_language_model.word_embeddings.weight
    assert new_words.shape == (22, 16)
    for i, name in enumerate(KOREAN_ATTRIBUTES):
        if name == "Wearing_Mask":
            assert not (new_words[i] == words).all(dim=1).any()
            assert derived.normalization.running_var[i] == 1
            continue
        old = CELEBA_ATTRIBUTES.index("No_Beard" if name == "Beard" else name)
        absent, present = (40 + old, old) if name == "Beard" else (old, 40 + old)
        assert torch.equal(new_words[i], words[absent])
        assert torch.equal(new_words[11 + i], words[present])
    backbone = model.label2label.backbone.state_dict()
    for name, tensor in derived.label2label.backbone.state_dict().items():
        assert torch.equal(tensor, backbone[name])


def test_a_vocabulary_without_a_common_attribute_is_refused():
    with pytest.raises(UserError, match="knows none of the attributes Wearing_Mask"):
        derive_model(random_model(["Male", "Young"]), ["Wearing_Mask"])


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
    model, processor = build_model(Recipe(init_from="celeba-mobilefacenet"), names)
    with torch.no_grad():
        outputs = model.eval()(torch.zeros(1, 3, 112, 112))
    (decisions,) = processor.post_process_attributes(outputs)
    assert list(decisions) == list(names) == list(model.config.id2label.values())
    for decision in decisions.values():
        assert decision["present"] == (decision["probability"] >= 0.5)
