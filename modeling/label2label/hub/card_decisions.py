"""The model card's sections of what its probabilities are good for: decisions, and known words."""

from __future__ import annotations

from label2label.hub.card_tables import interval, number, table
from label2label.hub.measurements import CardSection, Measurements, figure

_SCORES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "expected_calibration_error": "Expected calibration error",
}


def calibration_section(measured: Measurements) -> CardSection | None:
    """Temperature and thresholds, and what they changed on a split that they were not fitted to."""
    calibration = measured.get("calibration")
    if not calibration or "measured_on" not in calibration:
        return None
    scores = calibration["measured_on"]
    rows = [
        (
            title,
            number(scores["before"][key]["value"]),
            number(scores["after"][key]["value"]),
            f"{scores['difference'][key]['value']:+.4f}",
            interval(scores["difference"][key]["interval"]),
        )
        for key, title in _SCORES.items()
    ]
    fitted = calibration["fitted_on"]
    text = "\n\n".join(
        [
            "## Calibration and thresholds",
            f"A temperature of {calibration['temperature']:.3f} divides the logits, and each "
            "attribute counts as present from a threshold of its own, both fitted to the "
            f"{fitted['num_images']:,} images of the {fitted['split']} split and stored with the "
            "model. Rare attributes have lower thresholds: as much balanced accuracy as costs at "
            f"most {calibration['accuracy_loss']:.4f} of accuracy in cross-validation. "
            "`label2label predict` and the processor's `post_process_attributes` decide by them; "
            "all other scores on this card are at 0.5, as in the papers. On the "
            f"{scores['num_images']:,} images of the {scores['split']} split:",
            table(("", "before", "after", "change", "95 % interval"), rows),
            *_elsewhere(measured),
        ]
    )
    evaluation = {
        "dataset": {"name": calibration["dataset"]["name"], "split": scores["split"]},
        "num_images": scores["num_images"],
    }
    figures = [
        figure(
            evaluation,
            key,
            f"{title}, {when} calibration",
            scores[when][key]["value"],
            scores[when][key]["interval"],
        )
        for when in ("before", "after")
        for key, title in _SCORES.items()
    ]
    return CardSection(text, figures)


def _elsewhere(measured: Measurements) -> list[str]:
    """How far off the probabilities are on faces that calibration knew nothing of."""
    other = measured.get("utkface_test")
    if not other:
        return []
    return [
        f"On UTKFace's {other['num_images']:,} test images (`Male` and `Young` alone) the expected "
        f"calibration error is {number(other['expected_calibration_error'])}."
    ]


def known_words_section(measured: Measurements) -> CardSection | None:
    """How much the other attributes gain where some are known."""
    known = measured.get("known_words")
    if not known:
        return None
    rows = [
        (
            str(point["given"]),
            number(point["accuracy"]),
            f"{point['gain']:+.4f}",
            interval(point["gain_interval"]) if point["given"] else "",
        )
        for point in known["curve"]
    ]
    # From how many on every gain is told from none.
    helps = [point["gain_interval"][0] > 0 for point in known["curve"]]
    enough = next((i for i in range(len(helps)) if all(helps[i:])), None)
    if enough is None:
        verdict = "**Known words do not help this model**: the interval of the gain holds zero."
    else:
        given = known["curve"][enough]["given"]
        verdict = (
            f"Known words help a little: from {given} given on, the interval of the gain lies "
            "above zero; of fewer no gain can be told."
        )
    text = "\n\n".join(
        [
            "## Known words",
            "Accuracy on attributes that are asked when others are given as `known_labels`, on the "
            f"{known['num_images']:,} images of the {known['dataset']['split']} split "
            f"({known['protocol']}; {known['draws']} draws). {verdict}",
            table(("attributes given", "accuracy", "gain", "95 % interval"), rows),
        ]
    )
    figures = [
        figure(
            known,
            "accuracy",
            f"Accuracy on half of the attributes, {point['given']} others given",
            point["accuracy"],
            point["interval"],
        )
        for point in known["curve"]
    ]
    return CardSection(text, figures)
