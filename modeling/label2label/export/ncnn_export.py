"""A model as ncnn's two files, for phones and boards; pnnx translates, ncnn runs them."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from label2label.errors import UserError

NCNN_FILES = ("model.ncnn.param", "model.ncnn.bin")


def export_ncnn(model: Any, preprocessing: Any, folder: Path) -> None:
    """Write `model.ncnn.param` and `model.ncnn.bin`, weights as float16.

    The input `in0` is a normalised float32 image (3, height, width), the output `out0` its
    probabilities (attributes,).

    Args:
        model: a `Label2LabelForImageClassification` in evaluation mode; it is left as it is.
        preprocessing: the model's `Preprocessing`.
        folder: to write to.

    Raises:
        UserError: pnnx is not installed, or cannot translate the model.
    """
    import torch

    from label2label.export.folding import fold_batch_norms
    from label2label.export.onnx_export import ProbabilityModel, quiet

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pnnx greets
            from pnnx import EXEC_PATH
    except ImportError as error:
        raise UserError(
            "ncnn's files are made by pnnx: install label2label with its extra [runtimes]"
        ) from error
    wrapper = ProbabilityModel(fold_batch_norms(model), preprocessing).eval()
    pixels = wrapper.example_pixels(preprocessing.crop_size)[:1]
    with tempfile.TemporaryDirectory() as scratch:
        with quiet(), torch.no_grad():
            torch.jit.trace(wrapper, pixels, check_trace=False).save(f"{scratch}/model.pt")
        shape = ",".join(map(str, pixels.shape))
        finished = subprocess.run(
            [EXEC_PATH, "model.pt", f"inputshape=[{shape}]f32"],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        files = [Path(scratch, name) for name in NCNN_FILES]
        # pnnx skips what ncnn does not know, and says so: the file would not load.
        skipped = [line for line in finished.stderr.splitlines() if line.startswith("ignore ")]
        if skipped or not all(file.is_file() for file in files):
            reason = skipped[0] if skipped else finished.stderr.strip()[-200:]
            raise UserError(f"this model cannot be translated to ncnn: {reason}")
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())


class NcnnModel:
    """Runs the two files.

    Args:
        folder: that holds them.
        threads: of one inference.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import ncnn

        self._ncnn = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        param, weights = (folder / name for name in NCNN_FILES)
        for file in (param, weights):
            if not file.is_file():
                raise UserError(f"{file} does not exist: `label2label export --ncnn` writes it")
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise UserError(f"{folder} holds no model that ncnn can run")

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (attributes,) of one normalised float32 image (3, height, width)."""
        extractor = self._net.create_extractor()
        extractor.input("in0", self._ncnn.Mat(np.ascontiguousarray(pixels)))
        _, output = extractor.extract("out0")
        return np.array(output)
