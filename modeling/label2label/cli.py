"""Run the `label2label` command; each command's module is imported on use, so `--help` is quick."""

from __future__ import annotations

import argparse
import importlib
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from label2label import __version__
from label2label.checkpoints import checkpoint_names, default_checkpoint, find_checkpoint
from label2label.errors import UserError, printable
from label2label.files import remove_leftovers

# The extra of pyproject.toml that installs each module; any other missing module is in [train].
EXTRAS = {
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("ncnn", "openvino", "pnnx"), "runtimes"),
    **dict.fromkeys(("safetensors", "torch", "transformers"), "torch"),
    "gradio": "space",
    "pyarrow": "label",
}


# Module and function of each command, imported when the command runs.
COMMANDS = {
    "predict": "prediction.command:predict_command",
    "label": "prediction.labelling:label_command",
    "video": "prediction.video:video_command",
    "train": "training.trainer:train_command",
    "pack": "data.loading:pack_command",
    "convert": "training.conversion:convert_command",
    "evaluate": "evaluation.evaluate:evaluate_command",
    "audit": "evaluation.audit:audit_command",
    "calibrate": "evaluation.calibration:calibrate_command",
    "export": "export.command:export_command",
    "push": "hub.upload:push_command",
}

Option = Callable[..., Any]  # a parser's `add_argument`
Command = Callable[[str, str], Option]


def number(kind: type, least: float, most: float = math.inf) -> Callable[[str], Any]:
    """Return an argparse type: a number of a kind (int or float) from `least` to `most`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            limits = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: give a number {limits}")
        return value

    # argparse names it in its error for other text
    parse.__name__ = "whole number" if kind is int else "number"
    return parse


probability = number(float, 0, 1)
positive_integer = number(int, 1)
resamples = number(int, 100)  # of the bootstrap, enough for a 95 % interval


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="label2label",
        description="Predict facial attributes with light models; train, measure and publish them.",
    )
    parser.add_argument("--version", action="version", version=f"label2label {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> Option:
        description = f"{text[0].upper()}{text[1:]}."
        return commands.add_parser(name, help=text, description=description).add_argument

    _add_prediction(command)
    _add_training(command)
    _add_evaluation(command)
    _add_publishing(command)
    return parser


def _add_prediction(command: Command) -> None:
    def shared(option: Option) -> None:
        option("--model", help=_any_model())
        text = "what runs the model (default: ONNX Runtime where it has an ONNX file, else PyTorch)"
        option("--backend", choices=("onnx", "torch"), help=text)

    def language(option: Option) -> None:
        text = "language of the names drawn by --draw (default: %(default)s)"
        option("--language", choices=("en", "ko"), default="en", help=text)

    option = command("predict", "predict the attributes of every face in photos")
    option("images", nargs="+", metavar="IMAGE|FOLDER", help="photos and folders")
    shared(option)
    option("--json", action="store_true", help="print JSON instead of a table")
    text = "folder for copies of the photos, with faces and attributes drawn"
    option("--draw", metavar="DIR", help=text)
    language(option)
    _no_align(option, "take each image as the crop of one face, without looking for faces")
    text = "probability from which the table says yes (default: the model's own per attribute)"
    option("--threshold", type=probability, metavar="T", help=text)
    _batch_size(option, 32, "faces")

    option = command("label", "label a whole collection of images, to Parquet files")
    shared(option)
    text = "folder of photos, quoted glob of photos or Parquet files, or prepared dataset"
    option("--data", required=True, metavar="DIR|GLOB", help=text)
    text = "folder to write; the same command continues an interrupted run"
    option("--output", required=True, metavar="DIR", help=text)
    text = "take each image as the crop of one face, as in prepared datasets"
    _no_align(option, text)
    _batch_size(option, 32, "faces")
    text = "images per Parquet file, which is what an interruption can cost (default: %(default)s)"
    option("--shard-size", type=positive_integer, default=1000, metavar="N", help=text)

    option = command("video", "predict the attributes of every face in a video, over time")
    option("video", metavar="FILE|CAMERA", help="video file, or a camera's number")
    shared(option)
    text = "table to write, .csv or .parquet ('.[label]'): a row per face and frame"
    option("--output", required=True, metavar="FILE", help=text)
    option("--draw", metavar="FILE.mp4", help="also write an annotated video")
    language(option)


def _add_training(command: Command) -> None:
    option = command("train", "train a model as a recipe says")
    recipes = sorted(file.stem for file in Path(__file__).parent.glob("training/recipes/*.yaml"))
    text = f"YAML file, or a recipe of the package: {', '.join(recipes)}"
    option("--recipe", dest="config", metavar="NAME|FILE", help=text)
    option("--data", metavar="DIR", help="prepared dataset to use instead of the recipe's")
    text = "attributes to learn: celeba-40, celeba-41, korean-11, union, or columns (its own)"
    option("--vocabulary", metavar="NAME", help=text)
    option("--output", required=True, metavar="DIR", help="folder of the run")
    option("--resume", action="store_true", help="continue an interrupted run")
    text = "override one key of the recipe; may be repeated"
    option("--set", action="append", default=[], metavar="KEY=VALUE", help=text)

    text = "reduce a prepared dataset to training crops, in parts of at most 60 MB"
    option = command("pack", text)
    option("--data", required=True, metavar="DIR", help="prepared dataset or Hub id")
    option("--output", required=True, metavar="DIR", help="folder to write")
    text = "side of the model's crop (default: %(default)s)"
    option("--size", type=positive_integer, default=112, metavar="PIXELS", help=text)
    cores = os.cpu_count() or 1
    text = "threads (default: %(default)s)"
    option("--workers", type=positive_integer, default=cores, metavar="N", help=text)

    option = command("convert", "turn a public MobileFaceNet checkpoint into a backbone folder")
    text = "PyTorch state dict or TorchScript archive (.pt)"
    option("checkpoint", metavar="CHECKPOINT", help=text)
    option("output", metavar="OUT", help="folder to write")


def _add_evaluation(command: Command) -> None:
    def resampling(option: Option) -> None:
        text = "bootstrap resamples of the intervals, 100 or more (default: %(default)s)"
        option("--bootstrap", type=resamples, default=1000, metavar="N", help=text)
        _batch_size(option, 64, "images")

    def shared(option: Option) -> None:
        default = default_checkpoint()
        option("--model", type=find_checkpoint, default=default, help=_any_model())
        text = "another model to compare on the same images"
        option("--against", type=find_checkpoint, metavar="MODEL", help=text)
        resampling(option)

    option = command("evaluate", "measure a model on a prepared dataset")
    shared(option)
    option("--data", required=True, metavar="DIR", help="prepared dataset or Hub id")
    option("--split", default="test", help="split to read (default: %(default)s)")
    text = "also measure the groups of this column, such as race; if repeated, also crossed"
    option("--group", action="append", default=[], metavar="COLUMN", help=text)
    option("--output", metavar="FILE.json", help="file for the figures")
    option("--report", metavar="FILE.html", help="file for a page with tables and plots")

    option = command("audit", "compare a model's accuracy between groups, as one HTML page")
    shared(option)
    text = (
        "prepared dataset, or a CSV or Parquet file with the columns image (path of a photo), "
        "labels named as the model's attributes (1, 0 or empty), the groups, and where known "
        "identity and age"
    )
    option("--data", required=True, metavar="DIR|FILE", help=text)
    option("--split", default="test", help="of a prepared dataset (default: %(default)s)")
    text = "compare the groups of this column; if repeated, also crossed"
    option("--group", action="append", required=True, metavar="COLUMN", help=text)
    option("--output", required=True, metavar="FILE.html", help="page to write")
    text = "take each image of a CSV or Parquet file as the crop of one face"
    _no_align(option, text)

    option = command("calibrate", "fit a model's temperature and thresholds on held-out images")
    text = "folder whose config files are rewritten"
    option("--model", required=True, metavar="DIR", help=text)
    option("--data", required=True, metavar="DIR", help="prepared dataset")
    option("--split", default="validation", help="split to fit on (default: %(default)s)")
    text = "measure the effect on this held-out split"
    option("--measure-on", metavar="SPLIT", help=text)
    text = "fit on this split how known attributes change the others"
    option("--couple-on", metavar="SPLIT", help=text)
    option("--output", metavar="FILE.json", help="file for the figures")
    text = "accuracy to give up at most for balanced accuracy (default: %(default)s)"
    option("--accuracy-loss", type=probability, default=0.0005, metavar="L", help=text)
    resampling(option)


def _add_publishing(command: Command) -> None:
    option = command("export", "export a model to ONNX, INT8 or ncnn")
    option("--model", help=f"folder, Hub id, or {_names()}")
    option("--output", required=True, metavar="DIR", help="folder to write")
    option("--int8", action="store_true", help="also write a file quantised to 8 bits")
    text = "prepared dataset, or folder of face crops, for --int8"
    option("--calibration", metavar="DIR", help=text)
    text = "take uint8 pixels (batch, height, width, 3) instead of normalised floats"
    option("--uint8-input", action="store_true", help=text)
    text = "add an input for attributes that are already known"
    option("--known-labels", action="store_true", help=text)
    option("--backbone-only", action="store_true", help="export the backbone without the head")
    text = "also write the browser page's files, for spaces_app/on_device/assets"
    option("--web", action="store_true", help=text)
    option("--ncnn", action="store_true", help="also write ncnn's files, for phones")
    option("--opset", type=int, default=20, help="ONNX opset (default: %(default)s)")

    option = command("push", "upload a model, the Space and a dataset to the Hub")
    option("--model", metavar="DIR", help="folder of a model or backbone (default: mobilefacenet)")
    option("--repo-id", metavar="ID", help="OWNER/NAME of the model's repository")
    option("--onnx", metavar="DIR", help="folder of exports to upload too; a Space takes only INT8")
    text = "files of `evaluate --output`, for the model card"
    option("--results", nargs="+", metavar="FILE.json", help=text)
    text = "datasets whose terms the weights inherit, for the card: celeba, utkface, ..."
    option("--trained-on", nargs="+", metavar="NAME", help=text)
    option("--space-id", metavar="ID", help="OWNER/NAME of the Space")
    option("--space", metavar="DIR", help="the Space's folder (default: the checkout's)")
    option("--dataset", metavar="DIR", help="prepared dataset")
    option("--dataset-id", metavar="ID", help="OWNER/NAME of the dataset's repository")
    name = "--i-have-the-right-to-redistribute"
    text = "upload a dataset although its terms forbid it, with its owners' permission"
    option(name, dest="right_to_redistribute", action="store_true", help=text)
    option(
        "--private",
        action="store_true",
        default=True,
        help="make new repositories private (the default)",
    )
    option("--public", dest="private", action="store_false", help="make new repositories public")
    option("--revision", metavar="REV", help="branch, or refs/pr/NUMBER (default: main)")
    option("--create-pr", action="store_true", help="open pull requests to main instead")
    text = "list files and sizes, without asking the Hub"
    option("--dry-run", action="store_true", help=text)


def _names() -> str:
    first, *others = checkpoint_names()
    return f"shipped model: {', '.join([f'{first} (default)', *others])}"


def _any_model() -> str:
    return f"folder, Hub id, exported ONNX file, or {_names()}"


def _batch_size(option: Option, default: int, what: str) -> None:
    text = f"{what} per forward pass (default: %(default)s)"
    option("--batch-size", type=positive_integer, default=default, metavar="N", help=text)


def _no_align(option: Option, text: str) -> None:
    option("--no-align", dest="align", action="store_false", help=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    It is 0 for success, 1 if a photo could not be read, 2 for an error that the user can fix, with
    one line on standard error, and 130 if interrupted.
    """
    args = build_parser().parse_args(arguments)
    with warnings.catch_warnings(), _escape_what_cannot_be_printed():
        # Pillow warns about damaged metadata even if the photo itself can be read.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = lambda message, *_: print(
            f"warning: {printable(str(message))}", file=sys.stderr
        )
        remove_leftovers()
        return _run(args)


@contextmanager
def _escape_what_cannot_be_printed() -> Iterator[None]:
    """Print characters outside the terminal's encoding as escapes."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)


def _extra_for(command: str, module: str) -> str:
    """Return the extra that installs a module and the command's other dependencies."""
    extra = EXTRAS.get(module, "train")
    if extra != "torch" or command in ("predict", "label", "video"):
        return extra
    return "export" if command == "export" else "train"


def _run(args: argparse.Namespace) -> int:
    try:
        module, _, function = COMMANDS[args.command].partition(":")
        return getattr(importlib.import_module(f"label2label.{module}"), function)(args)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module == "label2label":
            raise  # a bug in this package: installing an extra would not help
        print(
            f"error: {args.command} needs {module}, which is not installed: "
            f"install label2label with its extra [{_extra_for(args.command, module)}]",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (such as `head`) closed the pipe: avoid an error when Python flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # Such as a read-only folder or a full disk: not a bug, so no traceback.
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
