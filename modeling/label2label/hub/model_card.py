"""The model card, written from a model's config and the JSON files under results/.

`python -m label2label.hub.model_card --output model_card.md` writes it for the model that ships. It
says only what the files say: a result whose JSON is not there has no section.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from label2label.checkpoints import default_checkpoint
from label2label.errors import UserError
from label2label.hub.card_text import (
    CITATION,
    COMPARISON,
    LICENSE,
    LIMITS,
    PUBLISHED,
    SUMMARY,
    TRAINING,
    USE,
    WIDGET,
)

_METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "average_precision": "Average precision",
    "expected_calibration_error": "Expected calibration error",
}


def model_card(model: Path, results: Path, repo_id: str | None = None) -> ModelCard:
    """Write a model's card.

    Args:
        model: its folder.
        results: folder of JSON files: `celeba_test.json` is needed; `celeba_validation.json`,
            `model_size.json`, `lfw_verification.json` and any evaluation by group are shown where
            they are there.
        repo_id: the model's Hub id for the examples; without one they name the model that ships
            with the package.

    Returns:
        The card; `str(card)` is its text.

    Raises:
        UserError: where the model's config, weights or test results cannot be read, or the results
            are of other weights.
    """
    config = _read(model / "config.json")
    test = _read(results / "celeba_test.json")
    names = list(config.get("id2label", {}).values())
    if sorted(test["per_attribute"]) != sorted(names):
        raise UserError(f"celeba_test.json is not of {model}: its attributes are others")
    if test["model"]["weights_sha256"] != _digest(model / "model.safetensors"):
        raise UserError(f"celeba_test.json is not of {model}'s weights: evaluate them again")
    evaluations = {path.stem: _read(path) for path in sorted(results.glob("*.json"))}
    evaluations = {name: e for name, e in evaluations.items() if "per_attribute" in e}
    size = _read_if_there(results / "model_size.json")
    verification = _read_if_there(results / "lfw_verification.json")
    reference = f'"{repo_id}"' if repo_id else "default_checkpoint()"
    source = "" if repo_id else "from label2label.checkpoints import default_checkpoint\n"
    sections = [
        SUMMARY.format(attributes=len(names), **_size_in_words(test, size)),
        USE.format(model=reference, source=source),
        _results_section(test, evaluations.get("celeba_validation"), size, verification),
        _comparison_section(test),
        _attribute_section(test),
        *(_group_section(e) for e in evaluations.values() if _is_test_by_group(e)),
        LIMITS,
        TRAINING,
        LICENSE,
        CITATION,
    ]
    data = _metadata(model.resolve().name, evaluations, verification)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _metadata(
    name: str, evaluations: Mapping[str, Any], verification: Mapping[str, Any] | None
) -> ModelCardData:
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Facial attributes",
            dataset_type=evaluation["dataset"]["name"],
            dataset_name=f"{_title(evaluation)} ({evaluation['num_images']:,} images)",
            dataset_split=evaluation["dataset"]["split"],
            metric_type=metric,
            metric_name=title,
            metric_value=evaluation[metric],
            metric_args={"interval_95": evaluation["intervals"][metric]},
        )
        for evaluation in evaluations.values()
        for metric, title in _METRICS.items()
        if evaluation[metric] is not None
    ]
    if verification:
        results.append(
            EvalResult(
                task_type="face-verification",
                task_name="Face verification by the backbone before training on attributes",
                dataset_type="lfw",
                dataset_name=f"LFW ({verification['num_pairs']:,} pairs)",
                metric_type="accuracy",
                metric_name="Accuracy",
                metric_value=verification["accuracy"],
            )
        )
    return ModelCardData(
        license="other",
        license_name="celeba-non-commercial-research",
        license_link="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["facial-attributes", "multi-label", "label2label", "mobilefacenet", "fairness"],
        datasets=["celeba"],
        metrics=["accuracy", "f1"],
        model_name=name,
        eval_results=results,
        widget=WIDGET,
    )


def _size_in_words(test: Mapping[str, Any], size: Mapping[str, Any] | None) -> dict[str, str]:
    words = f"{test['model']['parameters']['all'] / 1e6:.2f} M parameters"
    if size:
        words += f", {size['model']['flops']['all'] / 1e9:.2f} GFLOPs a face"
        words += f", {size['model']['file_bytes'] / 1e6:.1f} MB"
    return {"size": words}


def _results_section(
    test: Mapping[str, Any],
    validation: Mapping[str, Any] | None,
    size: Mapping[str, Any] | None,
    verification: Mapping[str, Any] | None,
) -> str:
    drawn = "people" if test["bootstrap"]["unit"] == "identity" else "images"
    columns = ["test", "95 % interval"] + (["validation"] if validation else [])
    rows = []
    for metric, title in {**_METRICS, "query_accuracy": "Accuracy of the AQN alone"}.items():
        if test[metric] is not None:
            row = [title, _number(test[metric]), _interval(test["intervals"][metric])]
            rows.append(row + ([_number(validation[metric])] if validation else []))
    rows.append(
        ["Majority of each attribute (accuracy)", _number(test["majority_accuracy"]), ""]
        + ([_number(validation["majority_accuracy"])] if validation else [])
    )
    parts = [
        "## Results",
        f"On {test['num_images']:,} test images that share nobody with training. Accuracy is the "
        "mean over images and attributes of (prediction = label); the other scores are means over "
        f"attributes. Intervals: {test['bootstrap']['resamples']:,} bootstrap resamples of the "
        f"{test['bootstrap']['num_units']:,} {drawn} in the split. The epoch was chosen on the "
        "validation split.",
        _table(("", *columns), rows),
    ]
    if size:
        parts.append(_size_table(size))
    if verification:
        parts.append(
            "The face-recognition backbone that training started from verifies "
            f"{verification['accuracy']:.2%} of {verification['num_pairs']:,} LFW pairs "
            f"({verification['protocol']}). This model is not for recognition: training on "
            "attributes changes the backbone."
        )
    return "\n\n".join(parts)


def _size_table(size: Mapping[str, Any]) -> str:
    names = {
        "model": "this model",
        "original_label2label": "original Label2label, built here (as released: 150.0 M, 22.0)",
    }
    rows = []
    for key, name in names.items():
        parameters, flops = size[key]["parameters"], size[key]["flops"]
        image = f"{size[key]['image_size']}x{size[key]['image_size']}"
        rows.append(
            [f"{name}, {image}"]
            + [f"{parameters[part] / 1e6:.2f} M" for part in ("backbone", "head", "all")]
            + [f"{flops['all'] / 1e9:.2f}"]
        )
    return _table(
        ("", "backbone", "head", "all parameters", "GFLOPs an image (2 x multiply-add)"), rows
    )


def _comparison_section(test: Mapping[str, Any]) -> str:
    rows = [
        (
            "this model",
            f"{test['model']['parameters']['all'] / 1e6:.2f} M",
            _number(test["accuracy"]),
            f"subset of CelebA: {test['num_images']:,} images, unseen people",
        ),
        *PUBLISHED,
    ]
    header = ("", "parameters", "accuracy", "measured on")
    return "\n\n".join([COMPARISON, _table(header, rows)])


def _attribute_section(test: Mapping[str, Any]) -> str:
    rows = (
        (
            name,
            _number(s["accuracy"]),
            _interval(s["interval"]),
            _number(s["balanced_accuracy"]),
            _number(s["f1"]),
            _number(s["average_precision"]),
            _number(s["majority_accuracy"]),
            f"{s['num_present']:,}",
        )
        for name, s in test["per_attribute"].items()
    )
    columns = ("accuracy", "95 % interval", "balanced", "F1", "AP", "majority", "present")
    return "\n\n".join(
        [
            "## Results by attribute",
            "`majority` is the accuracy of always giving the more frequent answer: where the "
            "model's is close to it, look at balanced accuracy and average precision (AP). "
            f"`present` counts images that have the attribute, of {test['num_images']:,}.",
            _table(("attribute", *columns), rows),
        ]
    )


def _group_section(evaluation: Mapping[str, Any]) -> str:
    parts = [f"## Results by group: {_title(evaluation)}, {evaluation['dataset']['split']}"]
    for column, scores in evaluation["groups"].items():
        rows = [
            (
                group + (" (under 30 images: not compared)" if s["small"] else ""),
                f"{s['num_images']:,}",
                _number(s["accuracy"]),
                _interval(s["interval"]),
            )
            for group, s in scores["per_group"].items()
        ]
        parts.append(_table((column, "images", "accuracy", "95 % interval"), rows))
        if scores["gap"] is not None:
            parts.append(
                f"Gap between {scores['best_group']} and {scores['worst_group']}: "
                f"{_number(scores['gap'])} {_interval(scores['gap_interval'])}."
            )
        adjusted = (evaluation["age_adjusted"].get(column) or {}).get("overall")
        if adjusted:
            parts.append(
                "As if every group had the same ages (post-stratified by age band): between "
                f"{adjusted['best_group']} and {adjusted['worst_group']} "
                f"{_number(adjusted['gap'])} {_interval(adjusted['gap_interval'])}."
            )
    return "\n\n".join(parts)


def _is_test_by_group(evaluation: Mapping[str, Any]) -> bool:
    return bool(evaluation["groups"]) and evaluation["dataset"]["split"] == "test"


def _title(evaluation: Mapping[str, Any]) -> str:
    titles = {"celeba": "CelebA subset", "utkface": "UTKFace subset"}
    name = evaluation["dataset"]["name"]
    return titles.get(name, name)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    rule = [":---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *rows])


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _interval(ends: list[float | None] | None) -> str:
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]" if ends and None not in ends else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.exists() else None


def main() -> int:
    """Write a model's card to a file.

    Returns:
        The exit status: 0, or 2 where something that the card needs is not there.
    """
    parser = argparse.ArgumentParser(description="Write a model card from config and results.")
    parser.add_argument("--model", type=Path, default=Path(default_checkpoint()), metavar="DIR")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--repo-id", metavar="USER/NAME", help="the model's Hub id, in examples")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.md")
    args = parser.parse_args()
    try:
        text = str(model_card(args.model, args.results, args.repo_id))
        draft = args.output.with_name(f".{args.output.name}.part")
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, args.output)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
