"""Evaluate a model on a labelled dataset; write JSON and a report (`label2label evaluate`)."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from accelerate import Accelerator
from datasets import Dataset, Image
from scipy.special import expit
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from label2label.data.loading import column_values, label_array, load_split, read_encoded
from label2label.data.vocabulary import IGNORE_INDEX, VOCABULARIES
from label2label.errors import UserError, printable
from label2label.evaluation.groups import age_bands, check_groups
from label2label.evaluation.predictions import Column, Predictions
from label2label.evaluation.report import html_page
from label2label.evaluation.scores import compare_predictions, score_predictions
from label2label.files import prepare_output, sha256, write_whole
from label2label.prediction.backends import OnnxBackend, TorchBackend, without_accelerator

_LIBRARIES = ("label2label", "torch", "transformers", "datasets", "accelerate", "numpy")

ScoredModel = TorchBackend | OnnxBackend


def evaluate_command(args: Namespace) -> int:
    """Run `label2label evaluate`; return 0."""
    for file in filter(None, (args.output, args.report)):
        prepare_output(Path(file))
    result = run_evaluation(args, load_split(args.data, args.split), args.split)
    if not result:
        return 0
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if args.output:
        write_whole(Path(args.output), text)
        print(summary(result))
    else:
        print(text, end="")
    if args.report:
        write_whole(Path(args.report), html_page(result))
        print(f"report: {args.report}", file=sys.stderr)
    return 0


def run_evaluation(
    args: Namespace, dataset: Dataset, split: str | None, other_dataset: Dataset | None = None
) -> dict[str, Any]:
    """Call `evaluate_models` with the options of `evaluate` and `audit`; name the dataset."""
    accelerator = Accelerator(cpu=without_accelerator())
    result = evaluate_models(
        args.model,
        dataset,
        against=args.against,
        other_dataset=other_dataset,
        group_columns=args.group,
        batch_size=args.batch_size,
        resamples=args.bootstrap,
        accelerator=accelerator,
    )
    # Exiting before the process group is destroyed may abort the process.
    accelerator.end_training()
    return result and result | {"dataset": {"name": short_name(args.data), "split": split}}


def evaluate_models(
    model_name: str,
    dataset: Dataset,
    against: str | None = None,
    group_columns: Sequence[str] = (),
    batch_size: int = 64,
    resamples: int = 1000,
    accelerator: Accelerator | None = None,
    other_dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Score a model on a labelled dataset, and optionally compare it with another model.

    Args:
        model_name: Folder, Hub id or exported ONNX file.
        dataset: In the project's schema: `image`, one nullable bool column per attribute, and
            optionally `identity`, `age` and group columns.
        against: Folder, Hub id or exported ONNX file of the other model.
        group_columns: Columns to group by; `age` is grouped into bands.
        batch_size: Images per forward pass and process.
        resamples: Number of bootstrap resamples.
        accelerator: A new one by default.
        other_dataset: The same images, cropped for the other model; `dataset` by default.

    Returns:
        The scores of `score_predictions`, and `model`, `missing_attributes` (attributes of the
        model without a known label), `unscored_columns` (label columns that are not attributes of
        the model), `comparison` (from `compare_predictions`, and the other `model`; or None) and
        `versions`. Empty on all but the main process.

    Raises:
        UserError: If a model cannot be loaded, a group column is missing or has one value, or the
            dataset has no images or no labels of the model's attributes.
    """
    accelerator = accelerator or Accelerator(cpu=without_accelerator())
    model = load_scored_model(model_name)
    other = load_scored_model(against) if against else None
    predictions = collect_predictions(model, dataset, group_columns, batch_size, accelerator)
    others = other and collect_predictions(
        other, other_dataset or dataset, group_columns, batch_size, accelerator
    )
    if predictions is None:
        return {}
    known = (predictions.labels != IGNORE_INDEX).any(axis=0)
    return {
        "model": identify_model(model_name, model),
        **score_predictions(predictions, resamples),
        "missing_attributes": [
            name for name, labelled in zip(predictions.names, known, strict=True) if not labelled
        ],
        "unscored_columns": _unscored_columns(dataset, predictions.names, group_columns),
        "comparison": other
        and others
        and {
            "model": identify_model(str(against), other),
            **compare_predictions(predictions, others, resamples),
        },
        "versions": library_versions(),
    }


def collect_predictions(
    model: ScoredModel,
    dataset: Dataset,
    group_columns: Sequence[str],
    batch_size: int,
    accelerator: Accelerator,
) -> Predictions | None:
    """Predict a labelled dataset and collect its labels, people, groups and ages.

    Arguments and errors are those of `evaluate_models`. Return None on all but the main process.
    """
    preprocessing = model.preprocessing
    labels = label_array(dataset, preprocessing.attributes)
    groups = {column: read_groups(dataset, column) for column in group_columns}
    if (labels == IGNORE_INDEX).all():
        raise UserError(
            "the dataset has no label for any of the model's attributes "
            f"({preprocessing.attributes[0]}, ...): it needs at least one bool column of those "
            "names that is not null throughout"
        )
    probabilities, query_probabilities = predict_dataset(accelerator, model, dataset, batch_size)
    if not accelerator.is_main_process:
        return None
    return Predictions(
        names=preprocessing.attributes,
        probabilities=probabilities,
        query_probabilities=query_probabilities,
        labels=labels,
        identities=read_column(dataset, "identity"),
        groups=groups,
        ages=read_column(dataset, "age"),
        thresholds=preprocessing.thresholds,
        exclusive_answers=preprocessing.exclusive_answers,
    )


def predict_dataset(
    accelerator: Accelerator, model: ScoredModel, dataset: Dataset, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray | None]:
    """Predict every image once, shared between processes, in the dataset's order.

    Return, on every process, the probabilities of the model and of its query network (None if it
    has none, or is an ONNX file), each (images, attributes).
    """
    # Not decoded by datasets, so that an unreadable image fails here, where its row is known.
    images = dataset.select_columns(["image"]).cast_column("image", Image(decode=False))

    def crop(row: int) -> np.ndarray:
        try:
            return model.preprocessing.crop(read_encoded(images[row]["image"]))
        except UserError as error:
            raise UserError(
                f"the image in row {row} of the split cannot be read: {error}"
            ) from error

    if isinstance(model, TorchBackend):
        layout = torch.channels_last  # faster on most devices
        network = model.model.to(memory_format=layout)  # type: ignore[call-overload]
        network = accelerator.prepare_model(network, evaluation_mode=True).eval()

    def predict(crops: np.ndarray) -> list[torch.Tensor]:
        if not isinstance(model, TorchBackend):
            return [torch.from_numpy(model.predict(crops)).to(accelerator.device)]
        pixels = torch.from_numpy(model.preprocessing.normalize(crops)).to(accelerator.device)
        with torch.inference_mode():
            outputs = network(pixel_values=pixels.contiguous(memory_format=layout))
        return [logits for logits in (outputs.logits, outputs.query_logits) if logits is not None]

    numbers: Any = range(len(dataset))  # a sequence is a map-style dataset
    loader = accelerator.prepare(DataLoader(numbers, batch_size=batch_size))
    batches = []
    for rows in tqdm(
        loader, desc="evaluate", unit="batch", disable=not accelerator.is_main_process
    ):
        own = predict(np.stack([crop(row) for row in rows.tolist()]))
        # In the dataset's order, without the rows that are repeated to fill the last batches.
        batches.append([part.cpu() for part in accelerator.gather_for_metrics(own)])
    whole = [torch.cat(parts).double().numpy() for parts in zip(*batches, strict=True)]
    if isinstance(model, TorchBackend):
        whole = list(map(expit, whole))
    return whole[0], whole[1] if len(whole) > 1 else None


def summary(result: dict[str, Any]) -> str:
    """Format the main scores as a table for the terminal."""
    figures = [
        (name.replace("_", " "), result[name], interval)
        for name, interval in result["intervals"].items()
        if result[name] is not None
    ]
    for name, scores in (result["contradictions"] or {}).items():
        if scores and "share" in scores:
            title = f"contradictory: {name.replace('_', ' ')}"
            figures.append((title, scores["share"], scores["interval"]))
    if result["comparison"]:
        accuracy = result["comparison"]["overall"]["accuracy"]
        title = f"accuracy against {result['comparison']['model']['name']}"
        figures.append((title, accuracy["difference"], accuracy["interval"]))
    for column, groups in result["groups"].items():
        if groups["gap"] is not None:
            pair = f"{groups['worst_group']} to {groups['best_group']}"
            figures.append((f"gap by {column}: {pair}", groups["gap"], groups["gap_interval"]))
    titles = [printable(title) for title, *_ in figures]
    rows = [(f"{value:.4f}", f"[{low:.4f}, {high:.4f}]") for _, value, (low, high) in figures]
    table = pandas.DataFrame(rows, titles, ["value", "95 % interval"])
    return f"{result['num_images']:,} images\n{table.to_string()}"


def load_scored_model(name: str | os.PathLike[str]) -> ScoredModel:
    """Load a model to be scored: an ONNX file by ONNX Runtime, all others by PyTorch."""
    if Path(name).suffix == ".onnx":
        return OnnxBackend(name)
    return TorchBackend.from_pretrained(name)


def identify_model(reference: str | os.PathLike[str], model: ScoredModel) -> dict[str, Any]:
    """Describe the model that was loaded from a folder, Hub id or ONNX file.

    Return `name` and `weights_sha256` (None for a Hub id); for a PyTorch model also `backbone`
    (model type), `head` (head type), and the number of `parameters` of `backbone`, `head` and
    `all`.
    """
    weights = Path(reference)
    if weights.suffix != ".onnx":
        weights /= "model.safetensors"
    digest = sha256(weights) if weights.is_file() else None
    identity = {"name": short_name(reference), "weights_sha256": digest}
    if not isinstance(model, TorchBackend):
        return identity
    network: Any = model.model
    everything = network.num_parameters()
    backbone = sum(p.numel() for p in network.base_model.backbone.parameters())
    return identity | {
        "backbone": network.config.backbone_config.model_type,
        "head": network.config.head_type,
        "parameters": {"backbone": backbone, "head": everything - backbone, "all": everything},
    }


def short_name(reference: str | os.PathLike[str]) -> str:
    """Return the last part of a local path, or the Hub id, so that no local path is published."""
    path = Path(reference)
    return path.resolve().name if path.exists() else str(reference)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on, by name."""
    return {library: version(library) for library in _LIBRARIES}


def read_column(dataset: Dataset, name: str) -> list[Any] | None:
    """Read a column without decoding the images; None if it is missing or null throughout."""
    values = list(dataset.with_format(None)[name]) if name in dataset.column_names else []
    return values if any(value is not None for value in values) else None


def read_groups(dataset: Dataset, column: str) -> Column:
    """Read the groups of a column; ages as bands. Raise UserError if there are fewer than two."""
    values = column_values(dataset, column, "the dataset")
    check_groups(column, values)
    if column == "age":
        return age_bands(values)
    if dataset.features[column].dtype == "bool":
        names = {True: column, False: f"not {column}", None: None}
        return [names[value] for value in values]
    return [None if value is None else str(value) for value in values]


def _unscored_columns(
    dataset: Dataset, names: Sequence[str], group_columns: Sequence[str]
) -> list[str]:
    """List the label columns that are not attributes of the model."""
    used = {*names, *group_columns, *(VOCABULARIES["union"].opposites.get(n) for n in names)}
    return [
        column
        for column, feature in dataset.features.items()
        if getattr(feature, "dtype", None) == "bool"
        and column not in used
        and any(value is not None for value in dataset.with_format(None)[column])
    ]
