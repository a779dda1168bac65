"""Run an exported model by ONNX Runtime, without torch or transformers."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime

from label2label.errors import UserError, join_lines
from label2label.prediction.preprocessing import Preprocessing

UNKNOWN = -100  # a known label that is not known


def open_exported(
    path: str | os.PathLike[str], threads: int = 0
) -> tuple[onnxruntime.InferenceSession, Preprocessing]:
    """Open a file that `label2label export` wrote, a whole model or a backbone.

    Args:
        path: the ONNX file.
        threads: of one inference; ONNX Runtime's choice by default.

    Returns:
        Its session, and what its metadata say of the images.

    Raises:
        UserError: the file is missing or damaged, or was not written so.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist: --model takes an ONNX file or a folder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise UserError(f"{path} is no ONNX file that can run: {join_lines(error)}") from error
    try:
        metadata = session.get_modelmeta().custom_metadata_map
        return session, Preprocessing.from_metadata(metadata)
    except UserError as error:
        raise UserError(f"{path} is not an exported label2label model: {error}") from error


class OnnxBackend:
    """A file that `label2label export` wrote; all it needs to know is in the file's metadata.

    Args:
        path: the ONNX file.
        threads: of one inference; ONNX Runtime's choice by default.

    Raises:
        UserError: the file is missing or damaged, or is another model's.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        self.session, self.preprocessing = open_exported(path, threads)
        output = self.session.get_outputs()[0]
        if output.name != "probabilities":
            raise UserError(f"{path} is a backbone alone: it tells no attributes")
        image, *known_labels = self.session.get_inputs()
        self._takes_uint8 = image.type == "tensor(uint8)"
        asked = self.preprocessing
        size = [asked.crop_size, asked.crop_size]
        pixels = [*size, 3] if self._takes_uint8 else [3, *size]
        if image.shape[1:] != pixels or output.shape[1:] != [len(asked.attributes)]:
            raise UserError(
                f"{path}: its metadata are of another model ({len(asked.attributes)} attributes of "
                f"{size[0]}x{size[1]} pixels): export it again"
            )
        self._takes_known_labels = bool(known_labels)

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """Resize an image and take its centre: uint8 RGB (crop_size, crop_size, 3)."""
        return self.preprocessing.crop(pixels)

    def prepare(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """The session's inputs, by name, for uint8 RGB crops (batch, crop_size, crop_size, 3)."""
        pixels = crops if self._takes_uint8 else self.preprocessing.normalize(crops)
        inputs = {"pixel_values": pixels}
        if self._takes_known_labels:
            shape = (len(crops), len(self.preprocessing.attributes))
            inputs["known_labels"] = np.full(shape, UNKNOWN, np.int64)
        return inputs

    def predict(self, crops: np.ndarray) -> np.ndarray:
        """Probabilities of a batch of crops.

        Args:
            crops: uint8 RGB (batch, crop_size, crop_size, 3), 0 to 255.

        Returns:
            float32 (batch, attributes), 0 to 1.
        """
        return self.session.run(["probabilities"], self.prepare(crops))[0]
