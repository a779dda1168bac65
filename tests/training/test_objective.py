"""Objectives: against the model's own loss, the paper's algorithm, and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from label2label import Label2LabelForImageClassification
from label2label.models import Label2LabelConfig
from label2label.training.model_building import set_prior
from label2label.training.objective import GroupDRO, image_mean

BACKBONE = {"stem_channels": 8, "stages": [[2, 8, 1, 2]], "feature_channels": 16}


def test_an_image_with_one_label_weighs_as_much_as_one_with_many():
    config = Label2LabelConfig(backbone_config=BACKBONE, num_labels=3)
    model = Label2LabelForImageClassification(config)
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
    labels = torch.tensor([[0, -100, -100], [1, 1, 1], [-100, -100, -100]])
    losses, counted = model.compute_loss(logits, labels, logits, reduction="image")
    expected = [2 * math.log(1 + math.exp(2)), 2 * math.log(1 + math.exp(-1)), 0]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert counted.tolist() == [1, 1, 0]
    assert image_mean(losses, counted).item() == pytest.approx(sum(expected) / 2, rel=1e-5)


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


def test_group_weights_follow_algorithm_1():
    losses = torch.tensor([1.0, 3.0, 0.5, 0.5], requires_grad=True)
    groups = torch.tensor([0, 0, 1, 1])
    dro = GroupDRO(2, step_size=0.1)
    value = dro(losses, torch.ones(4, dtype=torch.bool), groups, Accelerator(cpu=True))
    q = np.exp(0.1 * np.array([2.0, 0.5]))
    q /= q.sum()
    assert dro.weights.tolist() == pytest.approx(q.tolist())
    assert value.item() == pytest.approx(q @ [2.0, 0.5])
    value.backward()
    # A group's gradient is divided by its images of this batch.
    assert losses.grad.tolist() == pytest.approx([q[0] / 2, q[0] / 2, q[1] / 2, q[1] / 2])


def test_images_without_a_group_keep_their_mean_and_absent_groups_their_weight():
    losses = torch.tensor([4.0, 1.0, 2.0, 9.0])
    groups = torch.tensor([1, -1, -1, 2])
    counted = torch.tensor([True, True, True, False])
    dro = GroupDRO(3, step_size=0.5)
    value = dro(losses, counted, groups, Accelerator(cpu=True))
    # One of three counted images has a group, and the group has all the weight.
    assert value.item() == pytest.approx(4.0 / 3 + (1.0 + 2.0) / 3)
    assert dro.weights[0] == dro.weights[2] < dro.weights[1]


def test_the_worst_group_comes_to_weigh_most_and_a_resumed_run_knows():
    dro = GroupDRO(2, step_size=0.1)
    for _ in range(60):
        dro(torch.tensor([2.0, 0.1]), torch.ones(2) > 0, torch.tensor([0, 1]), Accelerator())
    assert dro.weights[0] > 0.99
    other = GroupDRO(2, step_size=0.1)
    other.load_state_dict(dro.state_dict())
    assert torch.equal(other.weights, dro.weights)
