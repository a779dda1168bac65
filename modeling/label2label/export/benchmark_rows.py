"""What the benchmark compares: models, each as the file that its runtime loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileViTConfig,
    MobileViTForImageClassification,
    ResNetConfig,
)

from label2label.errors import UserError
from label2label.export.benchmark_worker import load_onnxruntime, random_images
from label2label.export.complexity import (
    count_flops,
    count_parameters,
    measure_complexity,
    original_label2label,
)
from label2label.export.int8 import quantize_onnx
from label2label.export.ncnn import NCNN_FILES, export_ncnn
from label2label.export.onnx import export_onnx, translate
from label2label.files import sha256
from label2label.models import Label2LabelConfig, Label2LabelForImageClassification
from label2label.prediction.backends import OnnxBackend, Preprocessing, TorchBackend

NUM_LABELS = 40
OURS = {
    "ours-torch": "torch",
    "ours-torch-compile": "torch-compile",
    "ours-onnx": "onnxruntime",
    "ours-onnx-int8": "onnxruntime",
    "ours-openvino": "openvino",
    "ours-openvino-int8": "openvino",
    "ours-ncnn": "ncnn",
}
TINY = {"tiny-onnx": "onnxruntime", "tiny-onnx-int8": "onnxruntime"}
TINY_CHECKPOINT = "celeba-mobilefacenet-tiny"
CHECKED = 32  # images whose answers by our models are compared


@dataclass(frozen=True)
class Row:
    """One line of the benchmark.

    Args:
        name: its key.
        title: of the model, for people.
        runtime: one of `benchmark_worker.RUNTIMES`.
        path: the file or folder to load.
        files: whose sizes count.
        image_size: height and width in pixels.
        parameters: of the model in PyTorch.
        flops: of one image in PyTorch, 2 a multiply-add.
        expected: PyTorch's float32 probabilities (images, attributes) of the first images.
        evaluated: of an INT8 file, those by ONNX Runtime, which `label2label evaluate` runs it by.
        weights_sha256: of the `model.safetensors` it was made from; None for random weights and
            those from the Hub.
    """

    name: str
    title: str
    runtime: str
    path: Path
    files: tuple[Path, ...]
    image_size: int
    parameters: int
    flops: int
    expected: np.ndarray
    evaluated: np.ndarray | None = None
    weights_sha256: str | None = None


def _resnet() -> Label2LabelForImageClassification:
    backbone = ResNetConfig(out_features=["stage4"])
    config = Label2LabelConfig(backbone_config=backbone, num_labels=NUM_LABELS)
    return Label2LabelForImageClassification(config)


# Title, builder, image size. All with random weights: speed does not ask what they are.
OTHERS: dict[str, tuple[str, Callable[[], Any], int]] = {
    "original": (
        "Label2label's original shape, built here (ResNet-50, hidden 2048)",
        lambda: Label2LabelForImageClassification(original_label2label()),
        250,
    ),
    "resnet50-224": ("ResNet-50 and our head", _resnet, 224),
    "resnet50-112": ("ResNet-50 and our head", _resnet, 112),
    "mobilenet-v2": (
        "MobileNetV2 and a linear head",
        lambda: MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=NUM_LABELS)),
        224,
    ),
    "mobilevit-small": (
        "MobileViT-small and a linear head",
        lambda: MobileViTForImageClassification(MobileViTConfig(num_labels=NUM_LABELS)),
        256,
    ),
}
ROW_NAMES = (*OURS, *TINY, *OTHERS)


def refuse_int8(file: Path, model: str) -> None:
    """Refuse an INT8 file that its rows cannot run, which takes less long than to export them.

    Args:
        file: what `--int8` or `--tiny-int8` names.
        model: folder of the model that it should be of.

    Raises:
        UserError: the file is damaged or of another model, or takes more or other than normalised
            pixels.
    """
    exported = OnnxBackend(file)
    found, asked = exported.preprocessing, TorchBackend.from_pretrained(model).preprocessing
    if (found.attributes, found.crop_size) != (asked.attributes, asked.crop_size):
        raise UserError(f"{file} is of another model than {model}: export that one with --int8")
    if [value.type for value in exported.session.get_inputs()] != ["tensor(float)"]:
        raise UserError(
            f"{file} takes uint8 pixels or known labels, which the benchmark does not give: export "
            "it without --uint8-input and --known-labels"
        )


def our_rows(
    title: str, model: str, names: list[str], folder: Path, int8: Path | None = None
) -> list[Row]:
    """Rows of a Label2label model, and the files that they need.

    Args:
        title: of the model, for people.
        model: its folder.
        names: of `OURS` or of `TINY`.
        folder: to write to.
        int8: a file that `label2label export --int8` wrote; without one, a model is calibrated by
            noise, for speed alone.

    Returns:
        The rows, in the order of the names.

    Raises:
        UserError: the model cannot be loaded or translated.
    """
    backend = TorchBackend.from_pretrained(model)
    network = backend.model.cpu()
    preprocessing, size = backend.preprocessing, backend.preprocessing.crop_size
    float_file = folder / "model.onnx"
    export_onnx(network, preprocessing, float_file)
    if int8 is None and any(name.endswith("int8") for name in names):
        int8 = folder / "model_int8.onnx"
        noise = np.random.default_rng(0).integers(0, 256, (40, size, size, 3), dtype=np.uint8)
        # A tolerance that anything is within: it is not for accuracy.
        quantize_onnx(float_file, int8, noise, tolerance=1.0)
    if any(name.endswith("ncnn") for name in names):
        (folder / "ncnn").mkdir()
        export_ncnn(network, preprocessing, folder / "ncnn")
    pixels = random_images(CHECKED, size)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)).logits.sigmoid().numpy()
    evaluated = load_onnxruntime(str(int8), 1, pixels.shape)(pixels) if int8 else None
    complexity = measure_complexity(network.config, size)
    weights = Path(model, "model.safetensors")
    digest = sha256(weights) if weights.is_file() else None
    rows = []
    for name in names:
        runtime = (OURS | TINY)[name]
        path = Path(model)
        files: tuple[Path, ...] = (path / "model.safetensors",)
        if runtime == "ncnn":
            path = folder / "ncnn"
            files = tuple(path / file for file in NCNN_FILES)
        elif not runtime.startswith("torch"):
            path = int8 if int8 and name.endswith("int8") else float_file
            files = (path,)
        rows.append(
            Row(
                name,
                title + (" in INT8" if name.endswith("int8") else ""),
                runtime,
                path,
                files,
                size,
                complexity["parameters"]["all"],
                complexity["flops"]["all"],
                expected,
                evaluated if name.endswith("int8") else None,
                digest,
            )
        )
    return rows


class _Classifier(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits.sigmoid()


def other_row(name: str, folder: Path) -> Row:
    """Build one of `OTHERS` and translate it to ONNX as ours is.

    Args:
        name: of `OTHERS`.
        folder: to write to.

    Returns:
        The row.
    """
    title, build, size = OTHERS[name]
    torch.manual_seed(0)
    model = build()
    settle_batch_norms(model, size)
    pixels = torch.from_numpy(random_images(1, size))
    with torch.inference_mode():
        expected = model(pixels).logits.sigmoid().numpy()
    path = folder / f"{name}.onnx"
    if isinstance(model, Label2LabelForImageClassification):
        export_onnx(model, _preprocessing(size), path)
        complexity = measure_complexity(model.config, size)
        parameters, flops = complexity["parameters"]["all"], complexity["flops"]["all"]
    else:
        inputs = {"pixel_values": torch.zeros(2, 3, size, size)}
        onnx.save(translate(_Classifier(model), inputs, "probabilities"), path)
        parameters = count_parameters(model)
        flops = count_flops(model, torch.empty(1, 3, size, size))
    return Row(name, title, "onnxruntime", path, (path,), size, parameters, flops, expected)


@torch.no_grad()
def settle_batch_norms(model: nn.Module, size: int) -> None:
    """Let BatchNorm see noise once, as training would have it: random weights else shrink signals
    until processors meet numbers that are too small for their fast paths.

    Args:
        model: left in evaluation mode.
        size: of its images.
    """
    model.eval()
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    for module in model.modules():
        if isinstance(module, kinds):
            module.train()
            module.momentum = 1.0
    model(torch.from_numpy(random_images(2, size)))
    model.eval()


def _preprocessing(size: int) -> Preprocessing:
    return Preprocessing(
        attributes=[f"attribute {i}" for i in range(NUM_LABELS)],
        thresholds=[0.5] * NUM_LABELS,
        shortest_edge=size,
        crop_size=size,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        alignment_template=[[0.0, 0.0]] * 5,
    )
