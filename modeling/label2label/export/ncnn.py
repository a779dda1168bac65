"""Export to ncnn, for phones and single-board computers; pnnx translates the model."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from label2label.errors import UserError

NCNN_FILES = ("model.ncnn.param", "model.ncnn.bin")


def export_ncnn(model: Any, preprocessing: Any, folder: Path) -> None:
    """Write `model.ncnn.param` and `model.ncnn.bin`, with float16 weights.

    The input `in0` is a normalised float32 image (3, height, width), the output `out0` its
    probabilities (attributes,).

    Raises:
        UserError: pnnx is not installed, or cannot translate the model.
    """
    import torch

    from label2label.export.onnx import ExportedModel, quiet

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pnnx prints a greeting
            from pnnx import EXEC_PATH
    except ImportError as error:
        raise UserError(
            "the export to ncnn needs pnnx: install label2label with its extra [runtimes]"
        ) from error
    wrapper = ExportedModel(model, preprocessing, attention=False).eval()
    pixels = torch.zeros(1, 3, preprocessing.crop_size, preprocessing.crop_size)
    with tempfile.TemporaryDirectory() as scratch:
        with quiet(), torch.no_grad(), without_comparisons(wrapper.model):
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
        # pnnx only reports operators that ncnn lacks; the file would not load.
        skipped = [line for line in finished.stderr.splitlines() if line.startswith("ignore ")]
        if skipped or not all(file.is_file() for file in files):
            reason = skipped[0] if skipped else finished.stderr.strip()[-200:]
            raise UserError(f"this model cannot be translated to ncnn: {reason}")
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())


@contextlib.contextmanager
def without_comparisons(model: Any) -> Iterator[None]:
    """Compute a model's words by arithmetic, as ncnn has neither `>` nor computed indices."""
    import torch

    class Step(torch.overrides.TorchFunctionMode):
        """Replaces `logits > 0` by 0.0 or 1.0; values between need logits below float32's noise."""

        words: torch.Tensor  # (batch, attributes)

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (torch.Tensor.__gt__, torch.Tensor.gt):
                self.words = (args[0] * 1e30).clamp(0, 1)
                return self.words
            return func(*args, **(kwargs or {}))

    class Words(torch.nn.Module):
        """Interpolates between the embeddings "absent", rows 0..A-1, and "present", A..2A-1."""

        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.absent, present = weight.detach().unflatten(0, (2, -1)).unbind()
            self.difference = present - self.absent

        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return self.absent + step.words[..., None] * self.difference

    language_model = getattr(model.label2label, "masked_language_model", None)
    if language_model is None:
        yield
        return
    embeddings = language_model.word_embeddings
    language_model.word_embeddings = Words(embeddings.weight)
    try:
        with Step() as step:
            yield
    finally:
        language_model.word_embeddings = embeddings
