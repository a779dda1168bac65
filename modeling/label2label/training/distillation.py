"""Teachers: probabilities from other models, for soft labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from label2label.data.loading import FaceCrops, normalize_pixels
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES, Vocabulary, derive_labels
from label2label.models import Label2LabelForImageClassification
from label2label.prediction.backends import load_model

BATCH_SIZE = 64


def teach(
    teachers: Sequence[str],
    crops: FaceCrops,
    attributes: Sequence[str],
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Average the teachers' probabilities of each image, cropped for the student.

    Returns:
        float32 of shape (images, attributes), in 0..1; -100 where no teacher knows the attribute.
    """
    student = Vocabulary("student", tuple(attributes), VOCABULARIES["union"].opposites)
    answers = []
    for name in teachers:
        model, processor = load_model(name)
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        probabilities = _predict(model, crops, processor, device, f"teacher {name}")
        answers.append(derive_labels(probabilities, names, student))
    known = np.ma.masked_equal(answers, IGNORE_INDEX)
    return known.mean(axis=0).filled(IGNORE_INDEX).astype(np.float32)


@torch.inference_mode()
def _predict(
    model: Label2LabelForImageClassification,
    crops: FaceCrops,
    processor: Any,
    device: torch.device | str,
    title: str,
) -> np.ndarray:
    """Predict probabilities: (images, attributes)."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = []
    for first in tqdm(range(0, len(crops), BATCH_SIZE), desc=title, unit="batch"):
        batch = crops.batch(np.arange(first, min(first + BATCH_SIZE, len(crops))))
        pixels = normalize_pixels(batch.to(device), processor)
        rows.append(model(pixels).logits.float().sigmoid().cpu().numpy())
    return np.concatenate(rows)
