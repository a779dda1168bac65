"""Soft labels: what teachers know is added to the labels."""

import numpy as np
import torch
from label2label.training.objective import add_teacher, training_inputs
from label2label.training.recipe import Recipe

UNKNOWN = -100


def test_labels_and_teacher_are_mixed_where_both_know():
    labels = torch.tensor([[1, 0, UNKNOWN, 1, UNKNOWN]])
    teacher = torch.tensor([[0.5, 0.5, 0.25, UNKNOWN, UNKNOWN]])
    soft = add_teacher(labels, teacher, share=torch.tensor([[0.6]]))
    assert torch.allclose(soft, torch.tensor([[0.7, 0.3, 0.25, 1.0, UNKNOWN]]))


def test_a_teacher_stands_in_for_an_unknown_label_only_where_it_is_confident():
    labels = torch.tensor([[UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 1, UNKNOWN]])
    teacher = torch.tensor([[0.9, 0.1, 0.89, 0.11, 0.5, UNKNOWN]])
    soft = add_teacher(labels, teacher, share=torch.tensor([[0.5]]), confidence=0.9)
    assert torch.allclose(soft, torch.tensor([[0.9, 0.1, UNKNOWN, UNKNOWN, 0.75, UNKNOWN]]))


def test_labels_are_smoothed_where_they_are_known():
    labels = torch.tensor([[1, 0, UNKNOWN]])
    batch = {"pixel_values": torch.zeros(1, 3, 8, 8), "labels": labels}
    inputs, _ = training_inputs(batch, Recipe(label_smoothing=0.1), np.random.default_rng(0))
    assert torch.allclose(inputs["labels"], torch.tensor([[0.95, 0.05, UNKNOWN]]))
