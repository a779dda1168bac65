"""An exported ONNX file as `label2label evaluate` scores it: what a device runs, measured."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from label2label.models import Label2LabelConfig, Label2LabelImageProcessor
from label2label.models.modeling_label2label import Label2LabelImageClassifierOutput
from label2label.prediction.loading import load_model


class ExportedModel(nn.Module):
    """An ONNX file behind the call of the PyTorch model.

    Args:
        path: a file that `label2label export` wrote.

    Raises:
        UserError: it is missing, damaged or another model's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from label2label.prediction.onnx_backend import OnnxBackend

        super().__init__()
        self.backend = OnnxBackend(path)
        names = dict(enumerate(self.backend.preprocessing.attributes))
        self.config = Label2LabelConfig(
            id2label=names, label2id={name: index for index, name in names.items()}
        )

    def forward(self, pixel_values: torch.Tensor) -> Label2LabelImageClassifierOutput:
        """Logits (batch, attributes) of normalised pixels (batch, 3, height, width)."""
        preprocessing = self.backend.preprocessing
        mean, std = np.array(preprocessing.image_mean), np.array(preprocessing.image_std)
        pixels = pixel_values.cpu().numpy().transpose(0, 2, 3, 1) * std + mean
        # Back to the whole numbers they were, so that a file of either input can be scored.
        probabilities = self.backend.predict((255 * pixels).round().astype(np.uint8))
        logits = torch.from_numpy(probabilities).double().logit(eps=1e-9)
        return Label2LabelImageClassifierOutput(logits=logits)


def load_scored_model(name: str | os.PathLike[str]) -> tuple[Any, Label2LabelImageProcessor]:
    """Load what is to be scored, and its image processor.

    Args:
        name: a folder, a Hub id, or an ONNX file that `label2label export` wrote.

    Returns:
        The PyTorch model, or an `ExportedModel`, and the processor.

    Raises:
        UserError: it cannot be loaded.
    """
    if Path(name).suffix != ".onnx":
        return load_model(name)
    model = ExportedModel(name)
    preprocessing = model.backend.preprocessing
    processor = Label2LabelImageProcessor(
        size={"shortest_edge": preprocessing.shortest_edge},
        crop_size={"height": preprocessing.crop_size, "width": preprocessing.crop_size},
        image_mean=preprocessing.image_mean,
        image_std=preprocessing.image_std,
        alignment_template=preprocessing.alignment_template,
    )
    return model.eval(), processor
