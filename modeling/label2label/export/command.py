"""`label2label export`: write a model as ONNX, ncnn and web files."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from label2label.errors import UserError
from label2label.export.ncnn import NCNN_FILES, export_ncnn
from label2label.export.onnx import export_onnx
from label2label.export.web import PAGE_FILE, WEB_FILES, describe_page, fetch_web_files
from label2label.files import sha256, write_whole
from label2label.prediction.backends import (
    BACKBONE_FILE,
    FLOAT_FILE,
    INT8_FILE,
    WEIGHTS_FILE,
    TorchBackend,
    fetch_model,
)


def export_command(args: argparse.Namespace) -> int:
    """Run `label2label export`; return 0. A failed export writes no file."""
    if args.int8 and not args.calibration:
        raise UserError("--int8 needs --calibration, a folder of a few hundred faces")
    if args.calibration and not args.int8:
        raise UserError("--calibration is for --int8: give both")
    if args.int8 and args.backbone_only:
        raise UserError("--int8 compares probabilities, which --backbone-only leaves out")
    if args.web and (args.backbone_only or args.known_labels or args.int8):
        raise UserError("--web exports one float model whose only input is a face")
    if args.ncnn and (args.backbone_only or args.known_labels):
        raise UserError("--ncnn exports the whole model, whose only input is a face")
    output = Path(args.output)
    name = BACKBONE_FILE if args.backbone_only else FLOAT_FILE
    written = {name, *([INT8_FILE] if args.int8 else [])}
    written |= {*(NCNN_FILES if args.ncnn else ()), *(WEB_FILES if args.web else ())}
    check_output(output, written)
    folder = fetch_model(args.model)
    backend = TorchBackend.from_pretrained(folder)
    if args.int8:
        from label2label.export.int8 import load_calibration

        crops = load_calibration(Path(args.calibration), backend.preprocessing)
    weights = folder / WEIGHTS_FILE
    digest = sha256(weights) if weights.is_file() else None
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as draft:
        path = Path(draft, name)
        if args.web:  # first, as it fails if a download fails
            fetch_web_files(Path(draft), backend.preprocessing, earlier=output)
        export_onnx(
            backend.model,
            backend.preprocessing,
            path,
            opset=args.opset,
            uint8_input=args.uint8_input or args.web,
            known_labels=args.known_labels,
            backbone_only=args.backbone_only,
            weights_sha256=digest,
        )
        if args.int8:
            from label2label.export.int8 import quantize_onnx

            report = quantize_onnx(path, Path(draft, INT8_FILE), crops)
            print(
                f"INT8 changes a probability by {report['change']:.4f} on average; "
                f"{len(report['float_layers'])} layers stay in float"
            )
        if args.ncnn:
            export_ncnn(backend.model, backend.preprocessing, Path(draft))
        if args.web:
            page = describe_page(Path(draft), path.name, backend.preprocessing)
            write_whole(Path(draft, PAGE_FILE), json.dumps(page, indent=1, ensure_ascii=False))
        output.mkdir(exist_ok=True)
        for file in sorted(Path(draft).iterdir()):
            size = file.stat().st_size
            print(f"{file.replace(output / file.name)}: {size / 1e6:.2f} MB")
    return 0


def check_output(output: Path, written: set[str]) -> None:
    """Raise UserError if the output folder holds other files than this export replaces.

    Files of an earlier export may belong to another model.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder")
    held = {file.name for file in output.iterdir()}
    if others := sorted(held - {FLOAT_FILE, INT8_FILE, BACKBONE_FILE, *NCNN_FILES, *WEB_FILES}):
        raise UserError(f"--output {output} contains other files ({others[0]}): give a new folder")
    if left := sorted(held - written):
        raise UserError(
            f"--output {output} holds {left[0]} of an earlier export, which this one does not "
            "replace: remove it, or give a new folder"
        )
