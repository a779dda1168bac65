"""Teachers: probabilities from other models, and from linear probes of backbones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from label2label.checkpoints import find_checkpoint
from label2label.data.loading import FaceCrops, normalize_pixels
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES, Vocabulary, derive_labels
from label2label.errors import UserError
from label2label.models import Label2LabelConfig
from label2label.prediction.backends import load_model
from label2label.training.model_building import load_backbone

FOLDS = 5
BATCH_SIZE = 64
PROBED_GRID = 3  # probes read features pooled to 3x3
RIDGE = 3.0  # penalty per image, on standardised features


def teach(
    teachers: Sequence[str],
    crops: FaceCrops,
    labels: np.ndarray,
    attributes: Sequence[str],
    processor: Any,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Average the teachers' probabilities over each image and its mirror image.

    A teacher is a Label2label model or a backbone. A backbone is probed: ridge regressions from its
    features to the labels predict held-out images, so that they do not repeat wrong labels.

    Args:
        teachers: Folders or Hub ids of models and backbones.
        crops: The training images, cropped for the model.
        labels: (images, attributes); 1, 0 or -100.
        attributes: The student's attributes, in order.
        processor: The student's image processor.
        device: Device that runs the teachers.

    Returns:
        float32 of shape (images, attributes), in 0..1; -100 where no teacher knows the attribute.

    Raises:
        UserError: If a teacher cannot be loaded.
    """
    student = Vocabulary("student", tuple(attributes), VOCABULARIES["union"].opposites)
    total = np.zeros(labels.shape)
    count = np.zeros(labels.shape, int)
    for name in teachers:
        model, read, names = _open_teacher(name)
        mean = _predict_mirrored(model, read, crops, processor, device, f"teacher {name}")
        if names is None:
            probabilities = probe_out_of_fold(mean, labels)
        else:
            probabilities = derive_labels(mean, names, student)
        known = probabilities != IGNORE_INDEX
        total[known] += probabilities[known]
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), IGNORE_INDEX).astype(np.float32)


def probe_out_of_fold(
    features: np.ndarray,  # (images, features)
    labels: np.ndarray,  # (images, attributes); 1, 0 or -100
    folds: int = FOLDS,
    ridge: float = RIDGE,
) -> np.ndarray:
    """Predict labels from features by ridge regression with cross-fitting.

    Returns:
        (images, attributes), clipped to 0..1; -100 for an attribute without two known labels.
    """
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    fold_of = np.arange(len(features)) % folds
    predictions = np.full(labels.shape, float(IGNORE_INDEX))
    for fold in range(folds):
        held_out = fold_of == fold
        known = (labels >= 0) & ~held_out[:, None]
        # Attributes labelled on the same images share one factorisation.
        patterns, pattern_of = np.unique(known, axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            rows, columns = patterns[:, pattern], np.flatnonzero(pattern_of == pattern)
            if rows.sum() < 2:
                continue
            x, y = features[rows], labels[np.ix_(rows, columns)].astype(features.dtype)
            mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
            gram = (x - mean_x).T @ (x - mean_x) + ridge * len(x) * np.eye(x.shape[1])
            weights = np.linalg.solve(gram, (x - mean_x).T @ (y - mean_y))
            predictions[np.ix_(held_out, columns)] = (
                features[held_out] - mean_x
            ) @ weights + mean_y
    return np.where(predictions == IGNORE_INDEX, predictions, predictions.clip(0, 1))


def _open_teacher(name: str) -> tuple[nn.Module, Callable, list[str] | None]:
    """Load a teacher.

    Returns:
        The model; a function from its output to probabilities, or to a backbone's features; and the
        names of the probabilities, or `None` for features.
    """
    name = find_checkpoint(name)
    try:
        config, _ = PreTrainedConfig.get_config_dict(name)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(f"{name}: cannot be loaded as a teacher: it has no config.json") from error
    if config.get("model_type") == Label2LabelConfig.model_type:
        model, _ = load_model(name)
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        return model, lambda output: output.logits.float().sigmoid(), names

    def pool(output):
        grid = nn.functional.adaptive_avg_pool2d(output.feature_maps[-1], PROBED_GRID)
        return grid.flatten(1).float()

    return load_backbone(name).eval(), pool, None


@torch.inference_mode()
def _predict_mirrored(
    model: nn.Module,
    read: Callable,
    crops: FaceCrops,
    processor: Any,
    device: torch.device | str,
    title: str,
) -> np.ndarray:
    """Average outputs over each image and its mirror image: (images, values)."""
    layout = torch.channels_last  # faster on most devices
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    rows = []
    for first in tqdm(range(0, len(crops), BATCH_SIZE), desc=title, unit="batch"):
        batch = crops.batch(np.arange(first, min(first + BATCH_SIZE, len(crops))))
        pixels = normalize_pixels(batch.to(device), processor)
        both = read(model(pixels)) + read(model(pixels.flip(-1)))
        rows.append((both / 2).cpu().numpy())
    return np.concatenate(rows)
