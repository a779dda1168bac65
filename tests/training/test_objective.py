"""Objectives: against the model's own loss, the paper's algorithm, and cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from label2label import Label2LabelForImageClassification
from label2label.models import Label2LabelConfig
from label2label.models.modeling_label2label import Label2LabelModelOutput
from label2label.training.objective import GroupDRO, image_mean, per_image_losses

BACKBONE = {"stem_channels": 8, "stages": [[2, 8, 1, 2]], "feature_channels": 16}


@pytest.mark.parametrize("head_type", ["fc", "query2label", "label2label"])
@pytest.mark.parametrize("given", [False, True])
def test_with_all_labels_known_it_is_the_models_own_loss(head_type, given):
    torch.manual_seed(0)
    config = Label2LabelConfig(
        backbone_config=BACKBONE,
        head_type=head_type,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        id2label={i: f"a{i}" for i in range(5)},
        label2id={f"a{i}": i for i in range(5)},
    )
    model = Label2LabelForImageClassification(config).train()
    labels = torch.randint(0, 2, (6, 5))
    known = torch.where(torch.arange(5) < 2, labels, -100) if given else None
    outputs = model(torch.randn(6, 3, 112, 112), labels=labels, known_labels=known)
    losses, counted = per_image_losses(config, outputs, labels, known)
    assert losses.shape == (6,)
    assert counted.all()
    assert image_mean(losses, counted).item() == pytest.approx(outputs.loss.item(), rel=1e-5)


@pytest.mark.parametrize("unmasked", [0, 0.25, 1])
@pytest.mark.parametrize("given", [False, True])
def test_an_images_loss_is_the_models_own_of_it_alone(unmasked, given):
    torch.manual_seed(0)
    config = Label2LabelConfig(
        backbone_config=BACKBONE,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        mask_probability=0.5,
        unmasked_loss_weight=unmasked,
        id2label={i: f"a{i}" for i in range(5)},
        label2id={f"a{i}": i for i in range(5)},
    )
    model = Label2LabelForImageClassification(config).train()
    labels = torch.randint(-1, 2, (6, 5))
    labels[labels < 0] = -100
    known = torch.where(torch.arange(5) < 2, labels, -100) if given else None
    outputs = model(torch.randn(6, 3, 112, 112), known_labels=known)
    assert outputs.masked_words.any()
    assert not outputs.masked_words.all()
    losses, _ = per_image_losses(config, outputs, labels, known)
    for i in range(6):
        alone = Label2LabelModelOutput(
            query_logits=outputs.query_logits[[i]], masked_words=outputs.masked_words[[i]]
        )
        words = None if known is None else known[[i]]
        expected = model.compute_loss(outputs.logits[[i]], labels[[i]], alone, words)
        assert losses[i].item() == pytest.approx(expected.item(), rel=1e-5)


class Outputs:
    masked_words = None

    def __init__(self, logits: torch.Tensor):
        self.logits = self.query_logits = logits


def test_an_image_with_one_label_weighs_as_much_as_one_with_many():
    config = Label2LabelConfig(backbone_config=BACKBONE)
    logits = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
    labels = torch.tensor([[0, -100, -100], [1, 1, 1], [-100, -100, -100]])
    losses, counted = per_image_losses(config, Outputs(logits), labels)
    expected = [2 * math.log(1 + math.exp(2)), 2 * math.log(1 + math.exp(-1)), 0]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert counted.tolist() == [True, True, False]
    assert image_mean(losses, counted).item() == pytest.approx(sum(expected) / 2, rel=1e-5)


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
