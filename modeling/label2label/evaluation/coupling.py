"""What known words tell of the others: the coupling's weights, fitted to labelled predictions."""

import torch

from label2label.evaluation.metrics import FloatArray, IntArray

STEPS = 500  # too few for what few images say to become large
LEARNING_RATE = 0.01
RIDGE = 1e-5  # on the sum of squared weights, beside the mean cross-entropy


def fit_coupling(logits: FloatArray, query_logits: FloatArray, labels: IntArray) -> torch.Tensor:
    """
    Fits `Label2LabelCoupling` to images whose labels are known: a logistic regression of each label
    on the surprises of others, its logit the model's and that sum.

    In every step each image is given another random share of its labels, none to all, and asked for
    the rest, so that the weights serve however many words are known.

    Args:
        logits: Of the model, without known words, (images, attributes).
        query_logits: Of its query network.
        labels: 1, 0, or -100 where unknown, which is neither given nor asked.

    Returns:
        float32 (attributes, attributes), known by other; the diagonal is 0.
    """
    start, target = torch.tensor(logits).float(), torch.tensor(labels).float()
    surprise = target - torch.tensor(query_logits).float().sigmoid()
    labelled = target >= 0
    pairs = 1 - torch.eye(target.shape[1])
    weight = torch.zeros_like(pairs, requires_grad=True)
    optimizer = torch.optim.Adam([weight], LEARNING_RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        share = torch.rand(len(target), 1, generator=generator)
        given = (torch.rand(target.shape, generator=generator) < share) & labelled
        asked = (labelled & ~given).float()
        conditioned = start + (surprise * given) @ (weight * pairs)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            conditioned, target.clamp(min=0), reduction="none"
        )
        loss = (losses * asked).sum() / asked.sum().clamp(min=1) + RIDGE * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (weight * pairs).detach()
