"""The model card: `model_card_template.md`, filled from a model's folder and its evaluations.

`label2label push` writes it into the repository, `python -m label2label.hub.model_card` to a file.
Its figures come from JSON files of `label2label evaluate`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open

from label2label.checkpoints import checkpoint_names, default_checkpoint, find_checkpoint
from label2label.errors import UserError, join_lines
from label2label.evaluation import format_p_value
from label2label.files import sha256, write_whole

TEMPLATE = Path(__file__).with_name("model_card_template.md")


class Source(NamedTuple):
    """A dataset.

    Args:
        title: Its name.
        link: Its page.
        terms: What its terms allow.
        restricted: Whether they forbid redistribution and commercial use.
        limits: Known flaws that a model learns from it, as a sentence of the card.
    """

    title: str
    link: str
    terms: str
    restricted: bool = True
    limits: str = ""


# By the value of the column `source` of prepared datasets.
SOURCES = {
    source: Source(**facts)
    for source, facts in yaml.safe_load(
        Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8")
    ).items()
}


class Training(NamedTuple):
    """The training of a model that ships, for its card.

    Args:
        sources: Keys of `SOURCES`; the licence and its sentences follow from them.
        text: Which images, how they were split, and what the weights started from.
    """

    sources: Sequence[str]
    text: str


_MERGE = (
    "First CelebA's official partition: 64,258 of its 162,770 training images, 5,185 of validation "
    "and 2,750 of test were available. Then a merge of CelebA with 60,000 images of six other "
    "sets, in which labels that a set lacks stay unknown; no person or photo is in two splits. "
)
_BACKBONE = (
    "The backbone was initialised from a public MobileFaceNet trained for face recognition on "
    "MS-Celeb-1M (foamliu/MobileFaceNet, Apache-2.0). MS-Celeb-1M's publisher withdrew it; it was "
    "collected from the web without the consent of the people in it."
)
_MERGED = ["celeba", "fairface", "utkface", "all-age-faces", "scut-fbp5500", "lfwa", "masks"]
_PRUNED = (
    "Half of the default model's channels, trained further on the same images, by their labels "
    "and by its answers. The default model's own training: "
)
_KOREAN11 = (
    "The default model, trained further for the 2024 paper's 11 attributes on 1,467 photos of East "
    "Asian people labelled for them, real masks, CelebA and LFWA. The default model's own "
    "training: "
)
# For the cards of the models that ship, by the name of their folder in checkpoints/.
SHIPPED = {
    "mobilefacenet": Training(_MERGED, _MERGE + _BACKBONE),
    "mobilefacenet-korean11": Training(_MERGED, _KOREAN11 + _MERGE + _BACKBONE),
    "mobilefacenet-tiny": Training(_MERGED, _PRUNED + _MERGE + _BACKBONE),
}

_SCORES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "average_precision": "Average precision",
    "expected_calibration_error": "Expected calibration error",
    "query_accuracy": "Accuracy of the AQN alone",
    "majority_accuracy": "Accuracy of the majority-class baseline",
}
EVALUATION_KEYS = {"model", "dataset", "accuracy", "intervals", "per_attribute", "groups"}
_HEADLINE = ("accuracy", "balanced_accuracy", "f1", "expected_calibration_error")
_LISTED_METRICS = ("accuracy", "f1")  # those that https://hf.co/metrics lists
_OPINIONS = ("Attractive", "Big_Lips", "Big_Nose", "Chubby", "Young")

_MATPLOTLIB = "https://raw.githubusercontent.com/matplotlib/matplotlib/v3.9.0/lib/matplotlib/"
_SCIKIT_IMAGE = "https://raw.githubusercontent.com/scikit-image/scikit-image/v0.24.0/skimage/"
WIDGET = [
    {
        "src": _MATPLOTLIB + "mpl-data/sample_data/grace_hopper.jpg",
        "example_title": "Grace Hopper (public domain, U.S. Navy)",
    },
    {
        "src": _SCIKIT_IMAGE + "data/astronaut.png",
        "example_title": "Eileen Collins (public domain, NASA)",
    },
]


def model_card(
    folder: Path,
    results: Iterable[Path] = (),
    repo_id: str | None = None,
    trained_on: Sequence[str] | None = None,
    plots: Mapping[str, str] | None = None,
) -> ModelCard:
    """Write a model's card.

    Args:
        folder: Folder of the model or backbone.
        results: JSON files written by `label2label evaluate --output` for these weights; the first
            is also shown per attribute.
        repo_id: Hub id of the model that the examples load; by default they load a shipped model.
        trained_on: Training data, as keys of `SOURCES`; known for shipped models.
        plots: Path in the repository by title.

    Returns:
        The card; `str(card)` is its text.

    Raises:
        UserError: The config, the weights or a result cannot be read, a result belongs to other
            weights, or a dataset's terms are unknown.
    """
    config = read_json(folder / "config.json")
    weights = folder / "model.safetensors"
    name = repo_id.partition("/")[2] if repo_id else folder.resolve().name
    ships = folder.resolve().parent == Path(default_checkpoint()).resolve().parent
    training = SHIPPED.get(folder.resolve().name if ships else "", Training((), ""))
    if trained_on is None:
        trained_on = training.sources
    if unknown := [source for source in trained_on if source not in SOURCES]:
        raise UserError(f"the terms of {unknown[0]!r} are unknown: use {', '.join(SOURCES)}")
    evaluations = [read_evaluation(path, weights) for path in results]
    labels = config.get("id2label", {})
    attributes = [labels[index] for index in sorted(labels, key=int)]
    backbone = (config.get("backbone_config") or {}).get("model_type", "")
    is_backbone = config.get("model_type") == "mobilefacenet"
    restricted = [source for source in trained_on if SOURCES[source].restricted]
    facts: dict[str, Any] = {
        "name": name,
        "model": f'"{repo_id}"' if repo_id else f'find_checkpoint("{name}")',
        "model_argument": repo_id or name,
        "training": training.text,
        "imports_checkpoint": not repo_id,
        "is_backbone": is_backbone,
        "backbone": "MobileFaceNet" if backbone == "mobilefacenet" else backbone,
        "image_size": config.get("image_size", 112),
        "attributes": attributes,
        "parameters": f"{count_parameters(weights) / 1e6:.2f}",
        "opinions": [attribute for attribute in _OPINIONS if attribute in attributes],
        "evaluations": evaluations,
        "p_value": format_p_value,
        "scores": _SCORES,
        "plots": dict(plots or {}),
        "sources": [SOURCES[source] for source in trained_on],
        "restricted": [SOURCES[source] for source in restricted],
    }
    with explain_results() if evaluations else contextlib.nullcontext():
        metadata = _metadata(name, is_backbone, trained_on, restricted, evaluations)
        return ModelCard.from_template(metadata, template_path=str(TEMPLATE), **facts)


@contextlib.contextmanager
def explain_results() -> Iterator[None]:
    """Turn the errors of an evaluation without the expected entries into a UserError."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, TemplateError) as error:
        raise UserError(
            "--results are not in the current format of `label2label evaluate`: "
            f"{join_lines(error)}"
        ) from error


def _metadata(
    name: str,
    is_backbone: bool,
    trained_on: Sequence[str],
    restricted: Sequence[str],
    evaluations: Sequence[Mapping[str, Any]],
) -> ModelCardData:
    """Return the metadata by which the Hub filters, cites results and runs the widget."""
    terms: dict[str, Any] = {"license": "other", "license_name": "see-model-card"}
    if len(restricted) == 1:
        terms["license_name"] = f"{restricted[0]}-non-commercial-research"
        terms["license_link"] = SOURCES[restricted[0]].link
    elif restricted:
        terms["license_name"] = "non-commercial-research"
    if is_backbone:
        return ModelCardData(
            **terms,
            library_name="transformers",
            pipeline_tag="image-feature-extraction",
            tags=["face", "mobilefacenet"],
        )
    figures = [figure for result in evaluations for figure in _headline(result)]
    published = {figure.metric_type for figure in figures}
    return ModelCardData(
        **terms,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["facial-attributes", "multi-label", "label2label", "mobilefacenet", "fairness"],
        datasets=list(trained_on) or None,
        metrics=[metric for metric in _LISTED_METRICS if metric in published] or None,
        model_name=name,
        eval_results=figures or None,
        widget=WIDGET,
    )


def _headline(result: Mapping[str, Any]) -> Iterable[EvalResult]:
    """Yield an evaluation's figures for the metadata."""
    for metric in _HEADLINE:
        value, interval = result[metric], result["intervals"].get(metric)
        if value is not None:
            yield EvalResult(
                task_type="image-classification",
                task_name="Facial attributes",
                dataset_type=result["dataset"]["name"],
                dataset_name=f"{result['dataset']['name']} ({result['num_images']:,} images)",
                dataset_split=result["dataset"]["split"],
                metric_type=metric,
                metric_name=_SCORES[metric],
                metric_value=value,
                metric_args={"interval_95": interval}
                if interval and None not in interval
                else None,
            )


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {join_lines(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value


def read_evaluation(path: Path, weights: Path) -> dict[str, Any]:
    """Read a model's evaluation, written by `label2label evaluate --output`.

    Args:
        path: The JSON file.
        weights: The model's `model.safetensors`.

    Raises:
        UserError: The file cannot be read, is not an evaluation, or belongs to other weights.
    """
    result = read_json(path)
    if not set(result) >= EVALUATION_KEYS or not isinstance(result["model"], dict):
        raise UserError(f"{path} is not an evaluation: `label2label evaluate --output` writes one")
    if result["model"].get("weights_sha256") != sha256(weights):
        raise UserError(f"{path} belongs to other weights than {weights}: evaluate the model again")
    return result


def count_parameters(weights: Path) -> int:
    """Count a model's parameters from its safetensors file, without BatchNorm's statistics.

    Raises:
        UserError: the file cannot be read.
    """
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    try:
        with safe_open(weights, framework="numpy") as file:
            return sum(
                math.prod(file.get_slice(key).get_shape())
                for key in file.keys()  # noqa: SIM118
                if not key.endswith(statistics)
            )
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights} cannot be read: {join_lines(error)}") from error


def main() -> int:
    """Write a model's card to a file; return the exit status, 2 if it cannot be written."""
    parser = argparse.ArgumentParser(description="Write a model card.")
    parser.add_argument("--model", metavar="NAME|DIR", help=", ".join(checkpoint_names()))
    parser.add_argument("--results", type=Path, nargs="+", default=[], metavar="FILE.json")
    parser.add_argument("--repo-id", metavar="OWNER/NAME", help="the model's Hub id, in examples")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.md")
    args = parser.parse_args()
    try:
        card = model_card(Path(find_checkpoint(args.model)), args.results, args.repo_id)
        write_whole(args.output, str(card))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
