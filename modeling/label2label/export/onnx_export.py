"""A model as an ONNX file that says by itself what it takes and what it tells."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from label2label.errors import UserError, join_lines
from label2label.export.folding import fold_batch_norms
from label2label.export.inference import InferenceHead, PooledHead
from label2label.models import Label2LabelForImageClassification
from label2label.models.modeling_label2label import join_feature_maps
from label2label.prediction.preprocessing import WEIGHTS_KEY, Preprocessing

# torch translates to 18; from 23 on, its translation of attention runs in few runtimes.
OPSETS = range(18, 23)
DEFAULT_OPSET = 20


class ProbabilityModel(nn.Module):
    """From one input of the file to probabilities.

    Args:
        model: folded, in evaluation mode.
        preprocessing: mean and standard deviation, for pixels that are uint8, and the crop's size.
        uint8_input: whether the pixels are uint8 (batch, height, width, 3), and not normalised
            float32 (batch, 3, height, width).
    """

    image_mean: torch.Tensor
    image_std: torch.Tensor

    @torch.no_grad()
    def __init__(
        self,
        model: Label2LabelForImageClassification,
        preprocessing: Preprocessing,
        uint8_input: bool = False,
    ) -> None:
        super().__init__()
        base: Any = model.label2label
        self.backbone = base.backbone
        self.uint8_input = uint8_input
        for name in ("image_mean", "image_std"):
            values = 255 * torch.tensor(getattr(preprocessing, name))
            self.register_buffer(name, values[:, None, None])
        self.head: nn.Module
        if base.config.head_type == "fc":
            self.head = PooledHead(model.classifier)
        else:
            size = preprocessing.crop_size
            features = self.features(self.normalize(self.example_pixels(size)))
            self.head = InferenceHead(model, *features.shape[2:])

    def example_pixels(self, size: int) -> torch.Tensor:
        """Black images of the kind that the file takes: a batch of 2, `size` pixels a side."""
        if self.uint8_input:
            return torch.zeros(2, size, size, 3, dtype=torch.uint8)
        return torch.zeros(2, 3, size, size)

    def normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels of either kind as normalised float32 (batch, 3, height, width)."""
        if not self.uint8_input:
            return pixel_values
        return (pixel_values.permute(0, 3, 1, 2).float() - self.image_mean) / self.image_std

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """The backbone's feature maps as one (batch, channels, height, width)."""
        return join_feature_maps(self.backbone(pixels).feature_maps)

    def forward(
        self, pixel_values: torch.Tensor, known_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Probabilities (batch, attributes); labels of (batch, attributes) are 1, 0 or -100."""
        features = self.features(self.normalize(pixel_values))
        return self.head(features, known_labels).sigmoid()


class FeatureModel(ProbabilityModel):
    """From one input of the file to the features that the head attends to."""

    def forward(
        self, pixel_values: torch.Tensor, known_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features (batch, channels, height, width)."""
        return self.features(self.normalize(pixel_values))


def export_onnx(
    model: Label2LabelForImageClassification,
    preprocessing: Preprocessing,
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
    uint8_input: bool = False,
    known_labels: bool = False,
    backbone_only: bool = False,
    weights_sha256: str | None = None,
) -> None:
    """Write a model as an ONNX file with a dynamic batch and BatchNorm folded.

    Its input `pixel_values` is float32 (batch, 3, height, width), normalised, or uint8 (batch,
    height, width, 3), 0 to 255; `known_labels`, by option, is int64 (batch, attributes) of 1, 0 or
    -100. Its output is `probabilities` (batch, attributes), or `features` (batch, channels, height,
    width). Its metadata is the preprocessing, `Preprocessing.to_metadata`, and the weights' digest.

    Args:
        model: in evaluation mode; it is left as it is.
        preprocessing: what the file should say of itself.
        path: of the file.
        opset: one of `OPSETS`.
        uint8_input: take pixels as they are, so that a device needs no preprocessing code.
        known_labels: take words that the caller knows.
        backbone_only: leave the head out.
        weights_sha256: digest of the model's `model.safetensors`, where there is one.

    Raises:
        UserError: the opset is not supported, the model's head takes no known labels, or the model
            cannot be translated.
    """
    config: Any = model.config
    if opset not in OPSETS:
        raise UserError(f"opset {opset} is not supported: take {OPSETS[0]} to {OPSETS[-1]}")
    if known_labels and (backbone_only or config.head_type != "label2label"):
        raise UserError("known labels condition the label2label head: this export has none")
    kind = FeatureModel if backbone_only else ProbabilityModel
    wrapper = kind(fold_batch_norms(model), preprocessing, uint8_input).eval()
    inputs = {"pixel_values": wrapper.example_pixels(preprocessing.crop_size)}
    if known_labels:
        inputs["known_labels"] = torch.full((2, config.num_labels), -100)
    output = "features" if backbone_only else "probabilities"
    translated = translate(wrapper, inputs, output, opset)
    metadata = preprocessing.to_metadata()
    if weights_sha256 is not None:
        metadata[WEIGHTS_KEY] = json.dumps(weights_sha256)
    onnx.helper.set_model_props(translated, metadata)
    onnx.save(translated, path)


def translate(
    module: nn.Module, inputs: dict[str, torch.Tensor], output: str, opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """A module with a dynamic batch as an ONNX model.

    Args:
        module: in evaluation mode, of one output.
        inputs: an example of each input by name, of a batch of 2.
        output: name of the output.
        opset: of ONNX.

    Returns:
        The model, without paths of this machine.

    Raises:
        ModuleNotFoundError: onnxscript is not installed.
        UserError: torch cannot translate the module, or not to the opset.
    """
    batch = torch.export.Dim("batch")
    try:
        with quiet():
            program: Any = torch.onnx.export(
                module,
                kwargs=inputs,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes={name: {0: batch} for name in inputs},
                verbose=False,
            )
    except ModuleNotFoundError:
        raise  # onnxscript is not installed, which is no fault of the model
    except Exception as error:  # torch.export and onnxscript raise errors of many kinds
        raise UserError(f"this model cannot be translated to ONNX: {join_lines(error)}") from error
    translated = without_debug_information(program.model_proto)
    if (found := translated.opset_import[0].version) != opset:
        raise UserError(f"this model cannot be translated to opset {opset}: torch gives {found}")
    return translated


def without_debug_information(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the paths and stack traces that torch leaves in every node."""
    graph = model.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        item.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    return model


@contextlib.contextmanager
def quiet():
    """Keep the exporter's progress off the terminal; its errors are exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
