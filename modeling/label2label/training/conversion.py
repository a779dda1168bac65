"""Convert public MobileFaceNet checkpoints to a backbone folder that transformers loads.

The expected layout is that of foamliu/MobileFaceNet's state dicts: `conv1`, `dw_conv`,
`features.N.conv`, `conv2`, `gdconv`, `conv3`, `bn`.
"""

from __future__ import annotations

import argparse
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from label2label.errors import UserError, join_lines
from label2label.faces.face import ARCFACE_TEMPLATE
from label2label.files import replace_folder
from label2label.models import (
    Label2LabelImageProcessor,
    MobileFaceNetConfig,
    MobileFaceNetModel,
)

# Public layer names -> ours.
LAYER_NAMES = {
    "conv1.0": "encoder.stem.0.convolution",
    "conv1.1": "encoder.stem.0.normalization",
    "conv1.2": "encoder.stem.0.activation",
    "dw_conv.depthwise": "encoder.stem.1.convolution",
    "dw_conv.bn1": "encoder.stem.1.normalization",
    "dw_conv.pointwise": "encoder.stem.2.convolution",
    "dw_conv.bn2": "encoder.stem.2.normalization",
    "conv2.0": "encoder.features.convolution",
    "conv2.1": "encoder.features.normalization",
    "conv2.2": "encoder.features.activation",
    "gdconv.depthwise": "global_depthwise.convolution",
    "gdconv.bn": "global_depthwise.normalization",
    "conv3": "embedding.convolution",
    "bn": "embedding.normalization",
}
BOTTLENECK_NAMES = {
    "0.0": "expand.convolution",
    "0.1": "expand.normalization",
    "0.2": "expand.activation",
    "1.0": "depthwise.convolution",
    "1.1": "depthwise.normalization",
    "1.2": "depthwise.activation",
    "2": "project.convolution",
    "3": "project.normalization",
}

BLOCKS = [
    f"encoder.stages.{stage}.{block}"
    for stage, (_, _, repeats, _) in enumerate(MobileFaceNetConfig.stages)
    for block in range(repeats)
]
LAYER_NAMES |= {
    f"features.{index}.conv.{theirs}": f"{block}.{ours}"
    for index, block in enumerate(BLOCKS)
    for theirs, ours in BOTTLENECK_NAMES.items()
}


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch state dict or TorchScript archive, without running Python code in it."""
    if not Path(path).is_file():
        raise UserError(f"{path} is not a file: give the path of a MobileFaceNet state dict (.pt)")
    try:
        state = _load(path)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a PyTorch state dict or TorchScript archive: it is "
            "truncated, holds more than tensors, or is another kind of file"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        kind = type(state).__name__
        raise UserError(f"{path} holds a {kind}, not a dictionary of tensors by name")
    return state


def _load(path: str | Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError:  # raised for a TorchScript archive
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return dict(torch.jit.load(path, map_location="cpu").state_dict())


def infer_config(state: dict[str, torch.Tensor]) -> MobileFaceNetConfig:
    """Infer the architecture from a public state dict; raise KeyError if a layer is missing."""
    channels = stem_channels = state["conv1.0.weight"].shape[0]
    stages, index = [], 0
    for _, _, repeats, stride in MobileFaceNetConfig.stages:
        expanded = state[f"features.{index}.conv.0.0.weight"].shape[0]
        out_channels = state[f"features.{index}.conv.3.weight"].shape[0]
        stages.append([expanded // channels, out_channels, repeats, stride])
        channels = out_channels
        index += repeats
    return MobileFaceNetConfig(
        stem_channels=stem_channels,
        stem_pointwise="dw_conv.pointwise.weight" in state,
        # The stem's separable convolution uses ReLU, all other layers ReLU6.
        stem_hidden_act="relu",
        stages=stages,
        feature_channels=state["conv2.0.weight"].shape[0],
        embedding_size=state["conv3.weight"].shape[0],
        hidden_act="prelu" if "conv1.2.weight" in state else "relu6",
    )


def convert_checkpoint(path: str | Path) -> MobileFaceNetModel:
    """Build our MobileFaceNet from a public checkpoint, ReLU6 or PReLU, with identical outputs.

    Raises:
        UserError: If the file cannot be read, or has another layout than foamliu/MobileFaceNet's.
    """
    state = read_state_dict(path)
    converted = {}
    for name, tensor in state.items():
        layer, _, parameter = name.rpartition(".")
        if layer not in LAYER_NAMES:
            raise UserError(f"{path} has a parameter that MobileFaceNet does not have: {name}")
        converted[f"{LAYER_NAMES[layer]}.{parameter}"] = tensor
    # Our embedding convolution has no bias: it is folded into the BatchNorm after it, as
    # (W x + b - mean) = (W x - (mean - b)).
    bias = converted.pop("embedding.convolution.bias", None)
    mean = converted.get("embedding.normalization.running_mean")
    if bias is not None and mean is not None:
        converted["embedding.normalization.running_mean"] = mean - bias
    try:
        model = MobileFaceNetModel(infer_config(state))
        model.load_state_dict(converted)
    except KeyError as error:
        raise UserError(
            f"{path} is not a MobileFaceNet checkpoint: it has no {error.args[0]} (the layout must "
            "be that of foamliu/MobileFaceNet)"
        ) from error
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{path} does not fit MobileFaceNet: {join_lines(error)}") from error
    return model.eval()


def save_backbone(model: MobileFaceNetModel, output: str | Path) -> None:
    """Save a face encoder for AutoModel, AutoBackbone and AutoImageProcessor.

    Raises:
        UserError: If the folder holds anything but an earlier model, or cannot be written.
    """
    output = Path(output)
    empty = output.is_dir() and not any(output.iterdir())
    if output.exists() and not empty and not (output / "config.json").is_file():
        raise UserError(f"{output} exists and is not a model folder: choose another output")
    processor = Label2LabelImageProcessor(alignment_template=[list(p) for p in ARCFACE_TEMPLATE])
    try:
        with replace_folder(output) as folder:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
    except (OSError, SafetensorError) as error:  # the second on a full disk
        reason = getattr(error, "strerror", None) or join_lines(error)
        raise UserError(f"{output} cannot be written: {reason}") from error


def convert_command(args: argparse.Namespace) -> int:
    """Run `label2label convert`; return 0."""
    model = convert_checkpoint(args.checkpoint)
    save_backbone(model, args.output)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{args.output}: MobileFaceNet, {model.config.hidden_act}, "
        f"{parameters:,} parameters, embedding of {model.config.embedding_size}"
    )
    return 0
