"""Exports that go beside a model's weights must be of these weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from label2label.errors import UserError, join_lines
from label2label.export import BACKBONE_FILE, INT8_FILE
from label2label.files import sha256
from label2label.models.modeling_label2label import join_feature_maps
from label2label.prediction.backends import WEIGHTS_KEY, OnnxBackend, TorchBackend, open_exported

# Of a probability, or of a backbone's largest feature: exports in float differ by 1e-5, other
# weights by 0.1.
TOLERANCE = 1e-2


def refuse_foreign_exports(model: Path, files: list[Path]) -> None:
    """Check ONNX files against the model that they were exported from.

    Args:
        model: its folder.
        files: what `label2label export` wrote. INT8 may differ more than float does, so that its
            metadata say of which weights it is.

    Raises:
        UserError: a file cannot run, or is of another model or of other weights, or an INT8 file
            does not say of which.
    """
    torch_model = TorchBackend.from_pretrained(model)
    size = torch_model.preprocessing.crop_size
    crops = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    expected = torch_model.predict(crops)
    for file in files:
        if file.name == BACKBONE_FILE:
            _refuse_foreign_backbone(file, model, torch_model, crops)
            continue
        exported = OnnxBackend(file)
        if exported.preprocessing != torch_model.preprocessing:
            raise UserError(
                f"{file} is of another model than {model}, or was exported before it changed: run "
                "`label2label export` again"
            )
        if file.name == INT8_FILE:
            made_from = exported.session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY)
            if made_from != json.dumps(sha256(model / "model.safetensors")):
                said = "is of other weights than" if made_from else "does not say that it is of"
                raise UserError(
                    f"{file} {said} {model}: run `label2label export --int8` of that folder again"
                )
            continue
        change = float(np.abs(exported.predict(crops) - expected).max())
        if change > TOLERANCE:
            raise UserError(
                f"{file} is of other weights than {model} (probabilities differ by {change:.2f}): "
                "run `label2label export` again"
            )


def _refuse_foreign_backbone(
    file: Path, model: Path, torch_model: TorchBackend, crops: np.ndarray
) -> None:
    """The same of a backbone alone, by its features."""
    pixels = torch_model.preprocessing.normalize(crops)
    backbone = torch_model.model.label2label.backbone
    with torch.inference_mode():
        maps = backbone(torch.from_numpy(pixels).to(torch_model.model.device)).feature_maps
    expected = join_feature_maps(maps).float().cpu().numpy()
    session, preprocessing = open_exported(file)
    image = session.get_inputs()[0]
    try:
        takes_uint8 = image.type == "tensor(uint8)"
        found = session.run(["features"], {image.name: crops if takes_uint8 else pixels})[0]
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise UserError(f"{file} is no backbone that can run: {join_lines(error)}") from error
    if (
        preprocessing != torch_model.preprocessing
        or found.shape != expected.shape
        or not np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    ):
        raise UserError(
            f"{file} is of another model or of other weights than {model}: run "
            "`label2label export --backbone-only` again"
        )
