"""The `label2label` command. What it runs is imported when it runs: `--help` is quick."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from label2label import __version__
from label2label.checkpoints import checkpoint_names
from label2label.errors import UserError, printable
from label2label.files import remove_leftovers

# Extras by what they install (pyproject.toml); all else that may be missing is in [train].
EXTRAS = {
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("ncnn", "openvino", "pnnx"), "runtimes"),
    **dict.fromkeys(("safetensors", "torch", "transformers"), "torch"),
    "gradio": "space",
    "pyarrow": "label",
}


def run_predict(args: argparse.Namespace) -> int:
    """Attributes of every face in photos."""
    from label2label.prediction.command import predict_command

    return predict_command(args)


def run_train(args: argparse.Namespace) -> int:
    """Train by a recipe."""
    from label2label.training.trainer import train_command

    return train_command(args)


def run_pack(args: argparse.Namespace) -> int:
    """Write a dataset again with its images reduced to training crops."""
    from label2label.data.loading import pack_dataset

    count = pack_dataset(args.data, args.output, args.size, args.workers)
    print(f"{args.output}: {count:,} images; train on it with --data {args.output}")
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Accuracy of a model on a prepared dataset."""
    from label2label.checkpoints import find_checkpoint
    from label2label.evaluation.evaluate import evaluate_command

    args.model = find_checkpoint(args.model)
    return evaluate_command(args)


def run_audit(args: argparse.Namespace) -> int:
    """Accuracy and gaps between groups on data of one's own, as one HTML page."""
    from label2label.checkpoints import find_checkpoint
    from label2label.evaluation.audit import audit_command

    args.model = find_checkpoint(args.model)
    return audit_command(args)


def run_calibrate(args: argparse.Namespace) -> int:
    """Fit a model's temperature and thresholds to held-out images."""
    from label2label.evaluation.calibration import calibrate_command

    return calibrate_command(args)


def run_convert(args: argparse.Namespace) -> int:
    """Turn a public MobileFaceNet checkpoint into a backbone folder."""
    from label2label.training.conversion import convert_command

    return convert_command(args)


def run_export(args: argparse.Namespace) -> int:
    """Write a model as ONNX files."""
    from label2label.export.command import export_command

    return export_command(args)


def run_push(args: argparse.Namespace) -> int:
    """Upload a model, the Space and a dataset to the Hub."""
    from label2label.hub.upload import push_command

    return push_command(args)


def run_label(args: argparse.Namespace) -> int:
    """Label a whole image collection."""
    from label2label.prediction.labelling import label_command

    return label_command(args)


def run_video(args: argparse.Namespace) -> int:
    """Follow the faces of a video and average their attributes over time."""
    from label2label.prediction.video import video_command

    return video_command(args)


def probability(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def positive_integer(text: str) -> int:
    """Parse a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def resamples(text: str) -> int:
    """Parse a number of resamples that an interval of 95 % can be read off."""
    value = int(text)
    if value < 100:
        raise argparse.ArgumentTypeError(f"{text} resamples are too few for an interval: take 100")
    return value


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the choice of what runs the model."""
    parser.add_argument(
        "--backend",
        choices=("onnx", "torch"),
        help="what runs the model (default: ONNX Runtime where it has an ONNX file, else PyTorch)",
    )


def add_language(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the drawn names' language."""
    parser.add_argument(
        "--language",
        choices=("en", "ko"),
        default="en",
        help="of the drawn attributes' names (default: %(default)s)",
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, the function that carries it out."""
    parser = argparse.ArgumentParser(
        prog="label2label", description="Facial attributes as a sentence, from a light model."
    )
    parser.add_argument("--version", action="version", version=f"label2label {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    names = f"a name ({', '.join(checkpoint_names())}; default: the first)"
    any_model = f"folder, Hub id, exported ONNX file, or {names}"

    predict = commands.add_parser("predict", help="attributes of every face in photos")
    predict.set_defaults(run=run_predict)
    predict.add_argument("images", nargs="+", metavar="IMAGE|FOLDER", help="photos and folders")
    predict.add_argument("--model", help=any_model)
    add_backend(predict)
    predict.add_argument("--json", action="store_true", help="print JSON instead of a table")
    predict.add_argument(
        "--draw", metavar="DIR", help="write copies of the photos with faces and attributes here"
    )
    add_language(predict)
    predict.add_argument(
        "--no-align",
        dest="align",
        action="store_false",
        help="take each whole image as one face's crop, without looking for faces",
    )
    predict.add_argument(
        "--threshold",
        type=probability,
        metavar="T",
        help="probability from which the table says yes (default: the model's own for each "
        "attribute); JSON has them all",
    )
    predict.add_argument(
        "--batch-size", type=positive_integer, default=32, metavar="N", help="faces at once"
    )

    label = commands.add_parser("label", help="label a whole image collection into Parquet files")
    label.set_defaults(run=run_label)
    label.add_argument("--model", help=any_model)
    add_backend(label)
    label.add_argument(
        "--data",
        required=True,
        metavar="DIR|GLOB",
        help="folder of photos, quoted glob of photos or Parquet files, or prepared dataset",
    )
    label.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write; the same command goes on with an interrupted run",
    )
    label.add_argument(
        "--no-align",
        dest="align",
        action="store_false",
        help="take each whole image as one face's crop, as the images of prepared datasets are",
    )
    label.add_argument(
        "--batch-size", type=positive_integer, default=32, metavar="N", help="faces at once"
    )
    label.add_argument(
        "--shard-size",
        type=positive_integer,
        default=1000,
        metavar="N",
        help="images a Parquet file, which is what an interruption can cost (default: %(default)s)",
    )

    video = commands.add_parser("video", help="attributes of every face in a video, over time")
    video.set_defaults(run=run_video)
    video.add_argument("video", metavar="FILE|CAMERA", help="video file, or a camera's number")
    video.add_argument("--model", help=any_model)
    add_backend(video)
    video.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="table to write, .csv or .parquet ('.[label]'): a row a face and frame",
    )
    video.add_argument("--draw", metavar="FILE.mp4", help="also write an annotated video")
    add_language(video)

    train = commands.add_parser("train", help="train a model by a recipe")
    train.set_defaults(run=run_train)
    train.add_argument(
        "--recipe",
        "--config",
        dest="config",
        metavar="NAME|FILE",
        help="recipe that comes with the package, or a YAML file",
    )
    train.add_argument("--data", metavar="DIR", help="prepared dataset, instead of the recipe's")
    train.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="attributes to learn, instead of the recipe's: a vocabulary, or `columns` for the "
        "dataset's own",
    )
    train.add_argument("--output", required=True, metavar="DIR", help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override one key of the recipe; may be repeated",
    )

    pack = commands.add_parser(
        "pack", help="reduce a prepared dataset to training crops, in parts of at most 60 MB"
    )
    pack.set_defaults(run=run_pack)
    pack.add_argument("--data", required=True, metavar="DIR", help="prepared dataset or Hub id")
    pack.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    pack.add_argument(
        "--size",
        type=positive_integer,
        default=112,
        metavar="PIXELS",
        help="side of the model's crop (default: %(default)s)",
    )
    pack.add_argument(
        "--workers",
        type=positive_integer,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads (default: %(default)s)",
    )

    evaluate = commands.add_parser("evaluate", help="accuracy of a model on a prepared dataset")
    evaluate.set_defaults(run=run_evaluate)
    evaluate.add_argument("--model", help=any_model)
    evaluate.add_argument("--data", required=True, metavar="DIR", help="prepared dataset or Hub id")
    evaluate.add_argument("--split", default="test", help="default: %(default)s")
    evaluate.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="COLUMN",
        help="also by the groups of this column, such as race; may be repeated, and is then also "
        "crossed",
    )
    evaluate.add_argument(
        "--against", metavar="MODEL", help="another model, compared on the same images, paired"
    )
    evaluate.add_argument(
        "--minimum-age",
        type=positive_integer,
        default=15,
        metavar="YEARS",
        help="where ages are known, also for these and more years alone (default: %(default)s)",
    )
    evaluate.add_argument("--output", metavar="FILE.json", help="write the figures here")
    evaluate.add_argument("--report", metavar="DIR", help="write a report with plots here")
    evaluate.add_argument(
        "--bootstrap", type=resamples, metavar="N", help="resamples of the intervals, 100 or more"
    )
    evaluate.add_argument(
        "--batch-size", type=positive_integer, default=64, metavar="N", help="images at once"
    )

    audit = commands.add_parser(
        "audit", help="accuracy and gaps by group on your own data, as one HTML page"
    )
    audit.set_defaults(run=run_audit)
    audit.add_argument("--model", help=any_model)
    audit.add_argument(
        "--data",
        required=True,
        metavar="DIR|FILE",
        help="prepared dataset, or a CSV or Parquet file with the columns image (path of a photo), "
        "labels named as the model's attributes (1, 0 or empty), the groups, and where known "
        "identity and age",
    )
    audit.add_argument(
        "--split", default="test", help="of a prepared dataset (default: %(default)s)"
    )
    audit.add_argument(
        "--group",
        action="append",
        required=True,
        metavar="COLUMN",
        help="compare the groups of this column; may be repeated, and is then also crossed",
    )
    audit.add_argument(
        "--against", metavar="MODEL", help="another model, compared on the same images, paired"
    )
    audit.add_argument("--output", required=True, metavar="FILE.html", help="page to write")
    audit.add_argument(
        "--no-align",
        dest="align",
        action="store_false",
        help="take each image of a CSV or Parquet file as a face's crop, without looking for faces",
    )
    audit.add_argument(
        "--minimum-age",
        type=positive_integer,
        default=15,
        metavar="YEARS",
        help="where ages are known, also for these and more years alone (default: %(default)s)",
    )
    audit.add_argument(
        "--bootstrap", type=resamples, metavar="N", help="resamples of the intervals, 100 or more"
    )
    audit.add_argument(
        "--batch-size", type=positive_integer, default=64, metavar="N", help="images at once"
    )

    calibrate = commands.add_parser(
        "calibrate", help="fit a model's temperature and thresholds to held-out images"
    )
    calibrate.set_defaults(run=run_calibrate)
    calibrate.add_argument(
        "--model", required=True, metavar="DIR", help="folder whose config files are rewritten"
    )
    calibrate.add_argument("--data", required=True, metavar="DIR", help="prepared dataset")
    calibrate.add_argument("--split", default="validation", help="to fit to (default: %(default)s)")
    calibrate.add_argument(
        "--measure-on", metavar="SPLIT", help="measure before and after on this split, unseen"
    )
    calibrate.add_argument(
        "--couple-on", metavar="SPLIT", help="fit what known words tell of others to this split"
    )
    calibrate.add_argument("--output", metavar="FILE.json", help="write the figures here")
    calibrate.add_argument(
        "--accuracy-loss",
        type=probability,
        default=0.0005,
        metavar="L",
        help="accuracy that thresholds may give up for balanced accuracy (default: %(default)s)",
    )
    calibrate.add_argument(
        "--bootstrap", type=resamples, metavar="N", help="resamples of the intervals, 100 or more"
    )
    calibrate.add_argument(
        "--batch-size", type=positive_integer, default=64, metavar="N", help="images at once"
    )

    convert = commands.add_parser(
        "convert", help="turn a public MobileFaceNet checkpoint into a backbone folder"
    )
    convert.set_defaults(run=run_convert)
    convert.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="PyTorch state dict or TorchScript archive (.pt)"
    )
    convert.add_argument("output", metavar="OUT", help="folder to write")

    export = commands.add_parser("export", help="write a model as ONNX, and INT8")
    export.set_defaults(run=run_export)
    export.add_argument("--model", help=f"folder, Hub id, or {names}")
    export.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    export.add_argument("--int8", action="store_true", help="quantise as well")
    export.add_argument(
        "--calibration", metavar="DIR", help="prepared dataset, or folder of face crops, for --int8"
    )
    export.add_argument(
        "--uint8-input",
        action="store_true",
        help="take uint8 pixels (batch, height, width, 3) instead of normalised floats",
    )
    export.add_argument(
        "--known-labels", action="store_true", help="take a second input, words that are known"
    )
    export.add_argument("--backbone-only", action="store_true", help="leave the head out")
    export.add_argument(
        "--web",
        action="store_true",
        help="also what the page in spaces_app/on_device needs, for its folder assets",
    )
    export.add_argument("--ncnn", action="store_true", help="also ncnn's files, for phones")
    export.add_argument("--opset", type=int, default=20, help="ONNX opset (default: %(default)s)")

    push = commands.add_parser("push", help="upload a model, the Space and a dataset to the Hub")
    push.set_defaults(run=run_push)
    push.add_argument("--model", metavar="DIR", help="model or backbone folder (default: ours)")
    push.add_argument("--repo-id", metavar="ID", help="OWNER/NAME of the model's repository")
    push.add_argument("--onnx", metavar="DIR", help="also these exports, INT8 to the Space")
    push.add_argument(
        "--results",
        nargs="+",
        metavar="FILE.json",
        help="what `evaluate --output` wrote of the model, for its card",
    )
    push.add_argument(
        "--trained-on",
        nargs="+",
        metavar="NAME",
        help="data whose terms the weights inherit, for the card: celeba, utkface, fairface, ...",
    )
    push.add_argument("--space-id", metavar="ID", help="OWNER/NAME of the Space")
    push.add_argument("--space", metavar="DIR", help="its folder (default: the checkout's)")
    push.add_argument("--dataset", metavar="DIR", help="prepared dataset")
    push.add_argument("--dataset-id", metavar="ID", help="OWNER/NAME of the dataset's repository")
    push.add_argument(
        "--i-have-the-right-to-redistribute",
        dest="right_to_redistribute",
        action="store_true",
        help="upload a dataset although its terms forbid it: its owners allowed it to you",
    )
    visibility = push.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private",
        action="store_true",
        default=True,
        help="make new repositories private (default)",
    )
    visibility.add_argument(
        "--public", dest="private", action="store_false", help="make new repositories public"
    )
    push.add_argument("--revision", metavar="REV", help="branch, or refs/pr/NUMBER (default: main)")
    push.add_argument("--create-pr", action="store_true", help="open pull requests to main instead")
    push.add_argument(
        "--dry-run", action="store_true", help="list files and sizes, without asking the Hub"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; the process's own by default.

    Returns:
        The exit code: 0; 1 where a photo could not be read; 2 for a mistake that the user can
        mend, said in one line on standard error; 130 when interrupted.
    """
    args = build_parser().parse_args(arguments)
    with warnings.catch_warnings(), _escape_what_cannot_be_printed():
        # Of damaged metadata in photos that can be read all the same.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = lambda message, *_: print(
            f"warning: {printable(str(message))}", file=sys.stderr
        )
        remove_leftovers()
        return _run(args)


@contextmanager
def _escape_what_cannot_be_printed() -> Iterator[None]:
    """Have characters that the terminal's encoding does not have printed as escapes."""
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


def _run(args: argparse.Namespace) -> int:
    try:
        return args.run(args)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module == "label2label":
            raise  # a fault of ours, which no installation mends
        print(
            f"error: {args.command} needs {module}, which is not installed: "
            f"install label2label with its extra [{EXTRAS.get(module, 'train')}]",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads the output has read enough; Python must not complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # Of a place that cannot be written, or a disk that is full: no fault of ours.
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
