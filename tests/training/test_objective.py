"""Weights of images in the loss: against the model's own loss, and cases worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from label2label import Label2LabelForImageClassification
from label2label.models import Label2LabelConfig
from label2label.training.model_building import set_prior
from label2label.training.objective import training_inputs, weigh_images, weighted_loss
from label2label.training.recipe import Recipe

BACKBONE = {"stem_channels": 8, "stages": [[2, 8, 1, 2]], "feature_channels": 16}
LABELS = torch.tensor([[0, -100, -100, -100], [1, 1, 1, 1], [-100] * 4])
LOGITS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0] * 4, [5.0] * 4])
# Query network and language model have the same logits here.
LOSSES = [2 * math.log(1 + math.exp(2)), 2 * math.log(1 + math.exp(-1))]


@pytest.fixture
def model() -> Label2LabelForImageClassification:
    config = Label2LabelConfig(backbone_config=BACKBONE, num_labels=4)
    return Label2LabelForImageClassification(config)


@pytest.mark.parametrize(("power", "weights"), [(0, [1, 1]), (0.5, [1, 2]), (1, [1, 4])])
def test_an_image_weighs_its_number_of_labels_to_the_power(model, power, weights):
    found = weigh_images(LABELS, power)
    assert found.tolist() == [*weights, 0]
    outputs = SimpleNamespace(logits=LOGITS, query_logits=LOGITS, masked_words=None)
    loss = weighted_loss(model, outputs, {"labels": LABELS}, found[:, None], Accelerator(cpu=True))
    assert loss.item() == pytest.approx(np.average(LOSSES, weights=weights), rel=1e-5)
    if power == 1:
        assert loss == pytest.approx(model.compute_loss(LOGITS, LABELS, LOGITS).item(), rel=1e-5)


def test_a_sources_weight_counts_and_no_labels_are_no_loss(model):
    assert weigh_images(LABELS, 0, torch.tensor([0.2, 1.0, 1.0])).tolist() == pytest.approx(
        [0.2, 1, 0]
    )
    outputs = SimpleNamespace(logits=LOGITS, query_logits=LOGITS, masked_words=None)
    unknown = torch.full_like(LABELS, -100)
    weights = weigh_images(unknown, 0)[:, None]
    loss = weighted_loss(model, outputs, {"labels": unknown}, weights, Accelerator(cpu=True))
    assert loss.item() == 0


def test_mixup_mixes_the_weights_of_both_images(model):
    batch = {"pixel_values": torch.zeros(3, 3, 8, 8), "labels": LABELS}
    batch["weight"] = torch.tensor([0.5, 1.0, 1.0])
    recipe = Recipe(mixup=1, label_count_power=0.5)
    inputs, weights = training_inputs(batch, recipe, np.random.default_rng(0))
    others, share = inputs["mixup"]
    own = weigh_images(LABELS, 0.5, batch["weight"])
    order = [LABELS.tolist().index(row) for row in others.int().tolist()]
    assert torch.allclose(weights, torch.stack([share * own, (1 - share) * own[order]], dim=1))
    outputs = SimpleNamespace(logits=LOGITS, query_logits=LOGITS, masked_words=None)
    loss = weighted_loss(model, outputs, inputs, weights, Accelerator(cpu=True))
    both = [
        model.compute_loss(LOGITS, labels, LOGITS, reduction="image") for labels in (LABELS, others)
    ]
    assert loss.item() == pytest.approx(np.average(torch.stack(both, dim=1), weights=weights))


def test_with_the_defaults_the_loss_is_the_models_own():
    batch = {"pixel_values": torch.zeros(3, 3, 8, 8), "labels": LABELS}
    assert training_inputs(batch, Recipe(), np.random.default_rng(0))[1] is None


@pytest.mark.parametrize("head_type", ["fc", "query2label", "label2label"])
def test_prior_starts_probabilities_at_the_attributes_frequencies(head_type):
    torch.manual_seed(0)
    config = Label2LabelConfig(
        backbone_config=BACKBONE,
        num_labels=5,
        head_type=head_type,
        hidden_size=16,
        num_attention_heads=2,
    )
    model = Label2LabelForImageClassification(config).eval()
    frequencies = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98])
    set_prior(model, frequencies)
    output = model(torch.randn(4, 3, 48, 48))
    query_logits = output.logits if head_type == "fc" else output.query_logits
    for logits in (output.logits, query_logits):
        assert torch.allclose(logits.sigmoid().mean(0), frequencies, atol=0.15)
