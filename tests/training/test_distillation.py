"""Soft labels: what teachers know is added to the labels, and no fit repeats its own labels."""

import numpy as np
import pytest
import torch
from label2label.training.distillation import probe_out_of_fold
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


def test_a_probe_equals_ridge_regression_on_the_other_folds():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    labels = (features @ rng.normal(size=(4, 2)) + rng.normal(size=(60, 2)) > 0).astype(np.int8)
    probed = probe_out_of_fold(features, labels, folds=3, ridge=0.5)

    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    rest = np.arange(60) % 3 != 1
    x, y = scaled[rest], labels[rest].astype(float)
    # Ridge as least squares with rows that pull the weights, not the intercept, to 0.
    pull = np.sqrt(0.5 * len(x)) * np.eye(4)
    design = np.block([[x - x.mean(axis=0), np.ones((len(x), 1))], [pull, np.zeros((4, 1))]])
    weights, *_ = np.linalg.lstsq(design, np.vstack([y, np.zeros((4, 2))]), rcond=None)
    expected = (scaled[1] - x.mean(axis=0)) @ weights[:4] + weights[4]
    assert probed[1] == pytest.approx(expected.clip(0, 1))


def test_a_probe_does_not_repeat_a_wrong_label():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 3))
    truth = features[:, 0] > 0
    labels = truth[:, None].astype(np.int8)
    wrong = np.abs(features[:, 0]).argmax()
    labels[wrong] = 1 - labels[wrong]
    probed = probe_out_of_fold(features, labels, ridge=0.01)[:, 0]
    assert (probed[wrong] > 0.5) == truth[wrong]


def test_a_probe_reads_known_labels_only():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 3))
    labels = (features[:, :1] > 0).astype(np.int8).repeat(3, axis=1)
    labels[:25, 1] = UNKNOWN
    labels[:, 2] = UNKNOWN
    probed = probe_out_of_fold(features, labels)
    assert (probed[:, 2] == UNKNOWN).all()
    assert ((probed[:, :2] >= 0) & (probed[:, :2] <= 1)).all()
    assert not np.allclose(probed[:, 0], probed[:, 1])
