"""Run a model by PyTorch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from label2label.models import Label2LabelForImageClassification, Label2LabelImageProcessor
from label2label.prediction.loading import load_model
from label2label.prediction.preprocessing import Preprocessing


class TorchBackend:
    """A `Label2LabelForImageClassification` and its image processor.

    Args:
        model: the attribute model, on any device.
        processor: its image processor.
    """

    def __init__(
        self, model: Label2LabelForImageClassification, processor: Label2LabelImageProcessor
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        config: Any = model.config
        attributes = [config.id2label[i] for i in range(config.num_labels)]
        self.preprocessing = Preprocessing.from_processor(processor, attributes)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> TorchBackend:
        """Load a model, on a GPU where there is one.

        Args:
            name: a folder or a Hub id.

        Returns:
            The backend.

        Raises:
            UserError: the model cannot be loaded.
        """
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # what keeps a model from working is said in one line
        model, processor = load_model(name)
        return cls(model.to("cuda") if torch.cuda.is_available() else model, processor)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """Resize an image and take its centre: uint8 RGB (crop_size, crop_size, 3)."""
        return self.preprocessing.crop(pixels)

    def predict(self, crops: np.ndarray) -> np.ndarray:
        """Probabilities of a batch of crops.

        Args:
            crops: uint8 RGB (batch, crop_size, crop_size, 3), 0 to 255.

        Returns:
            float32 (batch, attributes), 0 to 1.
        """
        pixel_values = torch.from_numpy(self.preprocessing.normalize(crops))
        with torch.inference_mode():
            logits = self.model(pixel_values.to(self.model.device)).logits
        return logits.float().sigmoid().cpu().numpy()
