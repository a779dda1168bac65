"""INT8 by ONNX Runtime's static quantisation; the most sensitive layers stay in float."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from tqdm import tqdm

from label2label.errors import UserError
from label2label.export.onnx import quiet
from label2label.prediction.backends import OnnxBackend, Preprocessing
from label2label.prediction.photos import find_photos, read_photo

# Layers with weights, and the operators between them, so that tensors stay in INT8.
LAYERS = ("Conv", "MatMul")
BETWEEN = ("Add", "Clip", "Relu")
TOLERANCE = 0.01  # mean absolute change of a probability
HELD_OUT = 4  # one in four faces measures the change, the others calibrate
RANKING = 20  # faces used to rank the layers
CALIBRATION_FACES = 400  # at most
BATCH = 50


class FaceReader(CalibrationDataReader):
    """Reader that gives ONNX Runtime's calibration one uint8 RGB crop at a time."""

    def __init__(self, backend: OnnxBackend, crops: np.ndarray) -> None:
        self._inputs = (backend.prepare(crop[None]) for crop in crops)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next face's inputs, or None at the end."""
        return next(self._inputs, None)


def quantize_onnx(
    path: Path, output: Path, crops: np.ndarray, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Quantise weights per channel and activations per tensor, and measure the change.

    If probabilities change by more than the tolerance, layers are ranked by the change that each
    causes when quantised alone, and the first 1, 2, 4, ... stay in float until the change is within
    the tolerance.

    Args:
        path: An exported float model.
        output: File to write.
        crops: uint8 RGB faces (faces, crop_size, crop_size, 3); a quarter measures the change.
        tolerance: Largest mean absolute change of a probability, 0 to 1, on the held-out faces.

    Returns:
        `change`, the mean absolute change; `float_layers`, names of the layers left in float; and
        `sensitivity`, the change caused by each layer alone (empty if no ranking was needed).

    Raises:
        UserError: The tolerance is exceeded with half of the layers in float.
    """
    backend = OnnxBackend(path)
    held_out = np.arange(len(crops)) % HELD_OUT == 0
    expected = predict_in_batches(backend, crops[held_out])
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch, "prepared.onnx")
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        nodes = onnx.load(prepared).graph.node
        layers = [node.name for node in nodes if node.op_type in LAYERS]

        def change(float_layers: Iterable[str], faces: int | None = None) -> float:
            """Quantise all other layers and measure the change on the first held-out faces."""
            with quiet():
                quantize_static(
                    str(prepared),
                    str(output),
                    FaceReader(backend, crops[~held_out]),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=[*LAYERS, *BETWEEN],
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=with_followers(nodes, float_layers),
                    # Ranges of activations do not depend on the layers that are quantised.
                    calibration_cache_path=str(Path(scratch, "ranges.json")),
                )
            keep_metadata(path, output)
            probabilities = predict_in_batches(OnnxBackend(output), crops[held_out][:faces])
            return float(np.abs(probabilities - expected[:faces]).mean())

        total, sensitivity = change([]), {}
        if total > tolerance:
            for layer in tqdm(layers, desc="sensitivity", unit="layer"):
                others = [other for other in layers if other != layer]
                sensitivity[layer] = change(others, RANKING)
        ranked = sorted(sensitivity, key=lambda layer: -sensitivity[layer])
        float_layers: list[str] = []
        kept = 1
        while total > tolerance and kept < len(ranked):
            float_layers = ranked[:kept]
            total = change(float_layers)
            kept *= 2
    if total > tolerance:
        output.unlink()
        raise UserError(
            f"INT8 changes probabilities by {total:.3f} with half of the layers in float: "
            "calibrate with more faces, or with faces framed like the training faces"
        )
    return {
        "change": total,
        "float_layers": float_layers,
        "sensitivity": {layer: sensitivity[layer] for layer in ranked},
    }


def with_followers(nodes: Iterable[onnx.NodeProto], float_layers: Iterable[str]) -> list[str]:
    """Add the nodes of `BETWEEN` that follow float layers, as they would quantise their outputs.

    `nodes` are in topological order; arguments and result name the nodes to leave in float.
    """
    excluded = set(float_layers)
    outputs: set[str] = set()
    for node in nodes:
        follows = node.op_type in BETWEEN and not outputs.isdisjoint(node.input)
        if node.name in excluded or follows:
            excluded.add(node.name)
            outputs.update(node.output)
    return sorted(excluded)


def predict_in_batches(backend: OnnxBackend, crops: np.ndarray) -> np.ndarray:
    """Return probabilities (faces, attributes) of uint8 crops (faces, height, width, 3)."""
    return np.concatenate(
        [backend.predict(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    )


def keep_metadata(source: Path, target: Path) -> None:
    """Copy the metadata of the float model `source` to `target`; quantisation drops it."""
    model = onnx.load(target)
    properties = {p.key: p.value for p in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, target)


def load_calibration(folder: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Read an evenly spaced sample of a folder's faces: uint8 RGB (faces, side, side, 3).

    Args:
        folder: A prepared dataset, of which the training split is read, or a folder of images of
            one face each, framed like the model's training faces.
        preprocessing: That of the model.
    """
    if not folder.is_dir():
        raise UserError(f"--calibration {folder} is not a folder of faces")
    is_dataset = any(folder.glob("data/train-*.parquet"))
    if is_dataset:
        from datasets import Image

        from label2label.data.loading import load_split, read_encoded

        images: Any = load_split(folder, "train").cast_column("image", Image(decode=False))
    else:
        images = list(find_photos([folder]))
        if images == [folder]:
            raise UserError(f"--calibration {folder} contains no images")
    chosen = np.linspace(0, len(images) - 1, min(CALIBRATION_FACES, len(images)), dtype=int)
    crops = []
    for number in chosen.tolist():
        image = images[number]
        try:
            pixels = read_encoded(image["image"]) if is_dataset else read_photo(image)
        except UserError as error:
            name = f"{folder}, row {number}" if is_dataset else image
            raise UserError(f"{name}: {error}") from error
        crops.append(preprocessing.crop(pixels))
    if len(crops) < 2:
        raise UserError(f"--calibration {folder} holds one face: it needs a few hundred")
    return np.stack(crops)
