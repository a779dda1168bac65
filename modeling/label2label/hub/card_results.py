"""The model card's sections of accuracy: as a whole, beside others' figures, by attribute, by
group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult

from label2label.hub.card_tables import interval, number, table
from label2label.hub.card_text import COMPARISON, PUBLISHED
from label2label.hub.measurements import CardSection, Measurements, dataset_title, figure

_METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "average_precision": "Average precision",
    "expected_calibration_error": "Expected calibration error",
}
_OF_THE_WHOLE = {**_METRICS, "query_accuracy": "Accuracy of the AQN alone"}
_OF_AN_ATTRIBUTE = ("accuracy", "balanced_accuracy", "f1", "average_precision")
_MAJORITY = "Majority of each attribute (accuracy)"


def results_section(measured: Measurements) -> CardSection:
    """What the model scores on the test and validation splits, its size, and its backbone's."""
    test, validation = measured.test, measured.get("celeba_validation")
    drawn = "people" if test["bootstrap"]["unit"] == "identity" else "images"
    columns = ["test", "95 % interval"] + (["validation"] if validation else [])
    rows = []
    for metric, title in _OF_THE_WHOLE.items():
        if test[metric] is not None:
            row = [title, number(test[metric]), interval(test["intervals"][metric])]
            rows.append(row + ([number(validation[metric])] if validation else []))
    added = test["over_queries"]
    if added:
        of_validation = validation["over_queries"]["difference"] if validation else None
        rows.append(
            ["IC-MLM's gain over the AQN", f"{added['difference']:+.4f}"]
            + [interval(added["interval"])]
            + ([f"{of_validation:+.4f}"] if of_validation is not None else [])
        )
    rows.append(
        [_MAJORITY, number(test["majority_accuracy"]), ""]
        + ([number(validation["majority_accuracy"])] if validation else [])
    )
    parts = [
        "## Results",
        f"On {test['num_images']:,} test images that share nobody with training. Accuracy is the "
        "mean over images and attributes of (prediction = label); the other scores are means over "
        f"attributes. Intervals: {test['bootstrap']['resamples']:,} bootstrap resamples of the "
        f"{test['bootstrap']['num_units']:,} {drawn} in the split. The epoch was chosen on the "
        "validation split.",
        table(("", *columns), rows),
    ]
    figures = list(_whole_figures(test))
    if validation:
        figures += _whole_figures(validation)
    size = measured.get("model_size")
    if size:
        parts.append(_size_table(size))
    verification = measured.get("lfw_verification")
    if verification:
        parts.append(
            "The face-recognition backbone that training started from verifies "
            f"{verification['accuracy']:.2%} of {verification['num_pairs']:,} LFW pairs "
            f"({verification['protocol']}). This model is not for recognition: training on "
            "attributes changes the backbone."
        )
        figures.append(_verification_figure(verification))
    return CardSection("\n\n".join(parts), figures)


def _whole_figures(evaluation: Mapping[str, Any]) -> Iterator[EvalResult]:
    for metric, title in _OF_THE_WHOLE.items():
        value = evaluation[metric]
        if value is not None:
            kind = "accuracy" if metric == "query_accuracy" else metric
            yield figure(evaluation, kind, title, value, evaluation["intervals"].get(metric))
    yield figure(evaluation, "accuracy", _MAJORITY, evaluation["majority_accuracy"])


def _verification_figure(verification: Mapping[str, Any]) -> EvalResult:
    return EvalResult(
        task_type="face-verification",
        task_name="Face verification by the backbone before training on attributes",
        dataset_type="lfw",
        dataset_name=f"LFW ({verification['num_pairs']:,} pairs)",
        metric_type="accuracy",
        metric_name="Accuracy",
        metric_value=verification["accuracy"],
    )


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
    return table(
        ("", "backbone", "head", "all parameters", "GFLOPs an image (2 x multiply-add)"), rows
    )


def comparison_section(measured: Measurements) -> CardSection:
    """The figures of the papers, and why they cannot be compared one to one."""
    test = measured.test
    rows = [
        (
            "this model",
            f"{test['model']['parameters']['all'] / 1e6:.2f} M",
            number(test["accuracy"]),
            f"subset of CelebA: {test['num_images']:,} images, unseen people",
        ),
        *PUBLISHED,
    ]
    header = ("", "parameters", "accuracy", "measured on")
    return CardSection("\n\n".join([COMPARISON, table(header, rows)]))


def attribute_section(measured: Measurements) -> CardSection:
    """Every attribute of the test split by itself."""
    test = measured.test
    rows = (
        (
            name,
            number(s["accuracy"]),
            interval(s["interval"]),
            number(s["balanced_accuracy"]),
            number(s["f1"]),
            number(s["average_precision"]),
            number(s["majority_accuracy"]),
            f"{s['num_present']:,}",
        )
        for name, s in test["per_attribute"].items()
    )
    columns = ("accuracy", "95 % interval", "balanced", "F1", "AP", "majority", "present")
    text = "\n\n".join(
        [
            "## Results by attribute",
            "`majority` is the accuracy of always giving the more frequent answer: where the "
            "model's is close to it, look at balanced accuracy and average precision (AP). "
            f"`present` counts images that have the attribute, of {test['num_images']:,}.",
            table(("attribute", *columns), rows),
        ]
    )
    figures = [
        figure(
            test,
            metric,
            f"{_METRICS[metric]}, {name}",
            scores[metric],
            scores["interval"] if metric == "accuracy" else None,
        )
        for name, scores in test["per_attribute"].items()
        for metric in _OF_AN_ATTRIBUTE
        if scores[metric] is not None
    ]
    return CardSection(text, figures)


def group_sections(measured: Measurements) -> Iterator[CardSection]:
    """One section for each evaluation by group on a test split."""
    for evaluation in measured.evaluations.values():
        if evaluation["groups"] and evaluation["dataset"]["split"] == "test":
            yield _group_section(evaluation, is_shown=evaluation is measured.test)


def _group_section(evaluation: Mapping[str, Any], is_shown: bool) -> CardSection:
    parts = [f"## Results by group: {dataset_title(evaluation)}, {evaluation['dataset']['split']}"]
    # CelebA's figures as a whole are those of the first section.
    figures = [] if is_shown else list(_whole_figures(evaluation))
    for column, scores in evaluation["groups"].items():
        rows = []
        for group, s in scores["per_group"].items():
            small = " (under 30 images: not compared)" if s["small"] else ""
            rows.append(
                (
                    group + small,
                    f"{s['num_images']:,}",
                    number(s["accuracy"]),
                    interval(s["interval"]),
                )
            )
            if s["accuracy"] is not None:
                title = f"Accuracy, {column} {group}"
                figures.append(figure(evaluation, "accuracy", title, s["accuracy"], s["interval"]))
        parts.append(table((column, "images", "accuracy", "95 % interval"), rows))
        if scores["gap"] is not None:
            parts.append(
                f"Gap between {scores['best_group']} and {scores['worst_group']}: "
                f"{number(scores['gap'])} {interval(scores['gap_interval'])}, where "
                f"{number(scores['gap_by_chance'])} is to be expected of groups of these sizes "
                "that the model does equally well on. That all groups are equal has a p-value of "
                f"{number(scores['p_value'])} (Wald's test)."
            )
            title = f"Gap in accuracy by {column}"
            figures.append(
                figure(evaluation, "accuracy_gap", title, scores["gap"], scores["gap_interval"])
            )
        adjusted = (evaluation["age_adjusted"].get(column) or {}).get("overall")
        if adjusted:
            parts.append(
                "As if every group had the same ages (post-stratified by age band): between "
                f"{adjusted['best_group']} and {adjusted['worst_group']} "
                f"{number(adjusted['gap'])} {interval(adjusted['gap_interval'])}, by chance "
                f"{number(adjusted['gap_by_chance'])}, p-value of no difference "
                f"{number(adjusted['p_value'])}. Images by age:"
            )
            bands = list(adjusted["strata"])
            counts = [
                (group, *(f"{s['num_images'][band]:,}" for band in bands))
                for group, s in adjusted["per_group"].items()
            ]
            parts.append(table((column, *bands), counts))
            title = f"Gap in accuracy by {column}, same ages"
            ends = adjusted["gap_interval"]
            figures.append(figure(evaluation, "accuracy_gap", title, adjusted["gap"], ends))
    return CardSection("\n\n".join(parts), figures)
