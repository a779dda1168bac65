"""Export to ONNX files whose metadata holds preprocessing, attribute names and thresholds."""

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

# 18 is torch's lowest; from 23 on, few runtimes support the attention operator that it writes.
OPSETS = range(18, 23)
DEFAULT_OPSET = 20


class ExportedModel(nn.Module):
    """The model's forward pass, from the inputs of the exported file to its output.

    Args:
        model: Copied to the CPU, in evaluation mode, with eager attention, which is translated to
            fewer operators than fused kernels.
        preprocessing: Mean and standard deviation, for uint8 pixels.
        uint8_input: Take uint8 pixels (batch, height, width, 3) instead of normalised float32
            (batch, 3, height, width).
        backbone_only: Return the features that the head attends to instead of probabilities.
        attention: Return where the model looked, too, if its head attends to the image.
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
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.model: Any = copy.deepcopy(model).cpu().eval()
        self.model.set_attn_implementation("eager")
        self.uint8_input, self.backbone_only = uint8_input, backbone_only
        self.outputs = ["features"] if backbone_only else ["probabilities"]
        if attention and not backbone_only and self.model.config.head_type != "fc":
            self.outputs.append("attention")
        for name in ("image_mean", "image_std"):
            values = 255 * torch.tensor(getattr(preprocessing, name))
            self.register_buffer(name, values[:, None, None])

    def forward(
        self, pixel_values: torch.Tensor, known_labels: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities (batch, attributes) or features (batch, channels, height, width).

        Attention is (batch, attributes, height * width), the mean over layers and heads.

        Args:
            pixel_values: As the exported file takes them.
            known_labels: (batch, attributes) of 1, 0 or -100.
        """
        if self.uint8_input:
            pixel_values = pixel_values.permute(0, 3, 1, 2).float()
            pixel_values = (pixel_values - self.image_mean) / self.image_std
        if self.backbone_only:
            return join_feature_maps(self.model.label2label.backbone(pixel_values).feature_maps)
        returns_attention = "attention" in self.outputs
        outputs = self.model(
            pixel_values, known_labels=known_labels, output_attentions=returns_attention
        )
        probabilities = outputs.logits.sigmoid()
        if not returns_attention:
            return probabilities
        return probabilities, torch.stack(outputs.cross_attentions).mean(dim=(0, 2))


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
    """Write a model as an ONNX file with a dynamic batch size.

    The input `pixel_values` is normalised float32 (batch, 3, height, width), or uint8 (batch,
    height, width, 3); the optional input `known_labels` is int64 (batch, attributes) of 1, 0 or
    -100. The outputs are `probabilities` (batch, attributes) and, unless the head is `"fc"`,
    `attention` (batch, attributes, cells of the feature map), where the model looked; or `features`
    (batch, channels, height, width). The metadata holds the preprocessing and the digest of the
    weights.

    Args:
        model: Model to export; not modified.
        preprocessing: Preprocessing for the metadata.
        path: File to write.
        opset: One of `OPSETS`.
        uint8_input: Take pixels as they are, so that a device needs no preprocessing code.
        known_labels: Add the input `known_labels`.
        backbone_only: Leave out the head.
        weights_sha256: Digest of the model's `model.safetensors`, if it has one.

    Raises:
        UserError: The opset is not supported, the model's head takes no known labels, or the model
            cannot be translated.
    """
    config: Any = model.config
    if opset not in OPSETS:
        raise UserError(f"opset {opset} is not supported: use {OPSETS[0]} to {OPSETS[-1]}")
    if known_labels and (backbone_only or config.head_type != "label2label"):
        raise UserError("known labels need a label2label head, which this export does not have")
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
    translated = translate(wrapper.eval(), inputs, wrapper.outputs, opset)
    metadata = preprocessing.to_metadata()
    if weights_sha256 is not None:
        metadata[WEIGHTS_KEY] = json.dumps(weights_sha256)
    onnx.helper.set_model_props(translated, metadata)
    onnx.save(translated, path)


def translate(
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: list[str],
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """Translate a module to an ONNX model with a dynamic batch size.

    The paths and stack traces that torch writes into each node are removed.

    Args:
        module: In evaluation mode.
        inputs: Example inputs by name, with a batch size of 2.
        outputs: Names of the outputs.
        opset: ONNX opset.
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
                output_names=outputs,
                dynamic_shapes={name: {0: batch} for name in inputs},
                verbose=False,
            )
    except ModuleNotFoundError:
        raise  # onnxscript is not installed; the model is fine
    except Exception as error:  # torch.export and onnxscript raise errors of many kinds
        raise UserError(f"this model cannot be translated to ONNX: {join_lines(error)}") from error
    translated = program.model_proto
    if (found := translated.opset_import[0].version) != opset:
        raise UserError(f"this model cannot be translated to opset {opset}: torch writes {found}")
    graph = translated.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        item.ClearField("metadata_props")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
    return translated


@contextlib.contextmanager
def quiet():
    """Silence the exporter's progress and warnings; its errors are exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
