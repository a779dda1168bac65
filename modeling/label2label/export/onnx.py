"""A model as an ONNX file that says by itself what it takes and what it returns."""

from __future__ import annotations

import contextlib
import copy
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
from label2label.models import Label2LabelForImageClassification
from label2label.models.modeling_label2label import join_feature_maps
from label2label.prediction.backends import WEIGHTS_KEY, Preprocessing

# torch translates to 18; from 23 on, its translation of attention runs in few runtimes.
OPSETS = range(18, 23)
DEFAULT_OPSET = 20


class ExportedModel(nn.Module):
    """The model's own forward pass, from the inputs of the file to its output.

    Args:
        model: copied to the CPU, in evaluation mode, with attention written out: a fused kernel is
            translated to more operators.
        preprocessing: mean and standard deviation, for uint8 pixels.
        uint8_input: take uint8 pixels (batch, height, width, 3) in place of normalised float32
            (batch, 3, height, width).
        backbone_only: return the features that the head attends to in place of probabilities.
    """

    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(
        self,
        model: Label2LabelForImageClassification,
        preprocessing: Preprocessing,
        *,
        uint8_input: bool = False,
        backbone_only: bool = False,
    ) -> None:
        super().__init__()
        self.model: Any = copy.deepcopy(model).cpu().eval()
        self.model.set_attn_implementation("eager")
        self.uint8_input, self.backbone_only = uint8_input, backbone_only
        for name in ("image_mean", "image_std"):
            values = 255 * torch.tensor(getattr(preprocessing, name))
            self.register_buffer(name, values[:, None, None])

    def forward(
        self, pixel_values: torch.Tensor, known_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Probabilities (batch, attributes), or features (batch, channels, height, width).

        Args:
            pixel_values: of the kind that the file takes.
            known_labels: (batch, attributes) of 1, 0 or -100.
        """
        if self.uint8_input:
            pixel_values = pixel_values.permute(0, 3, 1, 2).float()
            pixel_values = (pixel_values - self.image_mean) / self.image_std
        if self.backbone_only:
            return join_feature_maps(self.model.label2label.backbone(pixel_values).feature_maps)
        return self.model(pixel_values, known_labels=known_labels).logits.sigmoid()


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
    """Write a model as an ONNX file with a dynamic batch.

    Its input `pixel_values` is float32 (batch, 3, height, width), normalised, or uint8 (batch,
    height, width, 3), 0 to 255; `known_labels`, by option, is int64 (batch, attributes) of 1, 0 or
    -100. Its output is `probabilities` (batch, attributes), or `features` (batch, channels, height,
    width). Its metadata is the preprocessing, `Preprocessing.to_metadata`, and the weights' digest.

    Args:
        model: left as it is.
        preprocessing: written to the metadata.
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
    wrapper = ExportedModel(
        model, preprocessing, uint8_input=uint8_input, backbone_only=backbone_only
    )
    side = preprocessing.crop_size
    pixels = torch.zeros(2, 3, side, side)
    if uint8_input:
        pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    inputs = {"pixel_values": pixels}
    if known_labels:
        inputs["known_labels"] = torch.full((2, config.num_labels), -100)
    output = "features" if backbone_only else "probabilities"
    translated = translate(wrapper.eval(), inputs, output, opset)
    metadata = preprocessing.to_metadata()
    if weights_sha256 is not None:
        metadata[WEIGHTS_KEY] = json.dumps(weights_sha256)
    onnx.helper.set_model_props(translated, metadata)
    onnx.save(translated, path)


def translate(
    module: nn.Module, inputs: dict[str, torch.Tensor], output: str, opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """Translate a module to an ONNX model with a dynamic batch.

    Args:
        module: in evaluation mode, of one output.
        inputs: an example of each input by name, of a batch of 2.
        output: name of the output.
        opset: of ONNX.

    Returns:
        The model, without the paths and stack traces that torch leaves in every node.

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
    translated = program.model_proto
    if (found := translated.opset_import[0].version) != opset:
        raise UserError(f"this model cannot be translated to opset {opset}: torch gives {found}")
    graph = translated.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        item.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    return translated


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
