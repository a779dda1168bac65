"""`label2label evaluate`: a model and a labelled dataset in, a JSON file and a report out."""

import hashlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedModel

from label2label.data.batching import label_array, load_split
from label2label.data.vocabulary import IGNORE_INDEX
from label2label.errors import UserError
from label2label.evaluation.groups import age_bands
from label2label.evaluation.report import markdown_table, write_report
from label2label.evaluation.scores import Predictions, score_predictions
from label2label.prediction.labelled import predict_dataset
from label2label.prediction.loading import load_model

_LIBRARIES = ("label2label", "torch", "transformers", "datasets", "accelerate", "numpy")


def evaluate_command(args: Namespace) -> int:
    """Run `label2label evaluate`.

    Args:
        args: `model` (folder or Hub id), `data` (dataset folder or Hub id), `split`, `group`
            (columns), `output` (JSON file), `batch_size`, `bootstrap` (resamples), `report`
            (folder).

    Returns:
        The exit status, 0.

    Raises:
        UserError: for a model or dataset that cannot be read, a split or a column that is missing,
            a split without images or labels.
    """
    accelerator = Accelerator()
    dataset = load_split(args.data, args.split)
    model, processor = load_model(args.model)
    result = evaluate_model(
        model,
        processor,
        dataset,
        group_columns=getattr(args, "group", None) or (),
        batch_size=getattr(args, "batch_size", None) or 64,
        resamples=getattr(args, "bootstrap", None) or 1000,
        accelerator=accelerator,
    )
    if not accelerator.is_main_process:
        return 0
    result = {
        "model": {
            "name": _short_name(args.model),
            "weights_sha256": _weights_digest(Path(args.model)),
            **describe_model(model),
        },
        "dataset": {"name": _short_name(args.data), "split": args.split},
        **result,
        "versions": {library: version(library) for library in _LIBRARIES},
    }
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if getattr(args, "report", None):
        print(f"report: {write_report(result, Path(args.report))}", file=sys.stderr)
    if args.output:
        _write(Path(args.output), text)
        print(summary(result))
    else:
        print(text, end="")
    return 0


def evaluate_model(
    model: PreTrainedModel,
    processor: Any,
    dataset: Dataset,
    group_columns: Sequence[str] = (),
    batch_size: int = 64,
    resamples: int = 1000,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """Score a model on a labelled dataset.

    Args:
        model: a `Label2LabelForImageClassification`.
        processor: its image processor.
        dataset: of the project's schema: `image`, one nullable bool column an attribute, and,
            where known, `identity`, `age` and group columns.
        group_columns: to report by; `age` is reported by age band.
        batch_size: images a forward pass and process.
        resamples: of the bootstrap.
        accelerator: of the process; made if not given.

    Returns:
        As `score_predictions`, and `missing_attributes`: those without a known label here. Empty on
        every process but the main one.

    Raises:
        UserError: where the dataset lacks images, all of the model's attributes, or a group column.
    """
    accelerator = accelerator or Accelerator()
    config: Any = model.config
    names = [config.id2label[index] for index in range(config.num_labels)]
    labels = label_array(dataset, names)
    labelled = (labels != IGNORE_INDEX).any(axis=0)
    missing = [name for name, known in zip(names, labelled, strict=True) if not known]
    _check_columns(dataset, group_columns)
    if len(missing) == len(names):
        raise UserError(
            f"the dataset has no label for any of the model's attributes ({names[0]}, ...): it "
            "needs at least one bool column of those names that is not null throughout"
        )
    probabilities, query_probabilities = predict_dataset(
        accelerator, model, processor, dataset, batch_size
    )
    if not accelerator.is_main_process:
        return {}
    predictions = Predictions(
        names=names,
        probabilities=probabilities,
        query_probabilities=query_probabilities,
        labels=labels,
        identities=_column(dataset, "identity"),
        groups={column: _groups(dataset, column) for column in group_columns},
        ages=_column(dataset, "age"),
    )
    return {**score_predictions(predictions, resamples), "missing_attributes": missing}


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """Name a model's parts and count their parameters.

    Args:
        model: a `Label2LabelForImageClassification`.

    Returns:
        `backbone` (its model type), `head` (its kind), `parameters` of `backbone`, `head`, `all`.
    """
    base_model: Any = model.base_model
    everything = model.num_parameters()
    backbone = sum(parameter.numel() for parameter in base_model.backbone.parameters())
    return {
        "backbone": model.config.backbone_config.model_type,
        "head": model.config.head_type,
        "parameters": {"backbone": backbone, "head": everything - backbone, "all": everything},
    }


def summary(result: dict[str, Any]) -> str:
    """The headline figures as a few lines for the terminal.

    Args:
        result: of an evaluation.

    Returns:
        A Markdown table.
    """
    figures = [
        (name.replace("_", " "), result[name], interval)
        for name, interval in result["intervals"].items()
        if result[name] is not None
    ]
    for column, groups in result["groups"].items():
        if groups["gap"] is not None:
            pair = f"{groups['worst_group']} to {groups['best_group']}"
            figures.append((f"gap by {column}: {pair}", groups["gap"], groups["gap_interval"]))
    return markdown_table(
        (f"{result['num_images']:,} images", "value", "95 % interval"),
        (
            (title, f"{value:.4f}", f"[{low:.4f}, {high:.4f}]")
            for title, value, (low, high) in figures
        ),
    )


def _check_columns(dataset: Dataset, group_columns: Sequence[str]) -> None:
    if "image" not in dataset.column_names:
        raise UserError(
            f"the dataset has no column image: it has {', '.join(dataset.column_names)}"
        )
    if not len(dataset):
        raise UserError("the split has no images")
    for column in group_columns:
        if column not in dataset.column_names or column == "image":
            raise UserError(f"no group column {column!r}: the dataset has {dataset.column_names}")


def _column(dataset: Dataset, name: str) -> list[Any] | None:
    if name not in dataset.column_names:
        return None
    values = list(dataset.select_columns([name])[:][name])
    return None if all(value is None for value in values) else values


def _groups(dataset: Dataset, column: str) -> list[str | None]:
    values = _column(dataset, column)
    if values is None:
        raise UserError(f"the group column {column!r} is null throughout: nothing to compare")
    if column == "age":
        return age_bands(values)
    if dataset.features[column].dtype == "bool":
        names = {True: column, False: f"not {column}", None: None}
        return [names[value] for value in values]
    return [None if value is None else str(value) for value in values]


def _short_name(reference: str | os.PathLike) -> str:
    path = Path(reference)
    return path.resolve().name if path.exists() else str(reference)


def _weights_digest(folder: Path) -> str | None:
    weights = folder / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
