"""The model card's section of the shift between groups: faces that CelebA shows few of."""

from __future__ import annotations

from typing import Any

from label2label.hub.card_tables import interval, number, table
from label2label.hub.measurements import CardSection, Measurements


def shift_section(measured: Measurements) -> CardSection | None:
    """How the model does on another dataset by race, unmitigated (the 2024 paper's Table 3)."""
    before = measured.get("fairness_before")
    if not before:
        return None
    test = before["test"]
    races = sorted(test["num_images_by_race"])
    rows = [
        (
            race,
            f"{test['num_images_by_race'][race]:,}",
            number(test["Male_by_race"][race]),
            number(test["Young_by_race"][race]),
        )
        for race in races
    ]
    return CardSection(
        "\n\n".join(
            [
                "## Other faces: UTKFace by race, before any mitigation",
                "The test part of UTKFace (`datasets_scripts/utkface.py` on its `crop_part1`), by "
                "its own labels; only `Male` and `Young` follow from them. The set is skewed "
                "toward young children, and age differs by race in it: gaps are therefore also "
                "given as if every race had the same ages (post-stratified by age band).",
                table(("race", "images", "Male", "Young"), rows),
                table(
                    ("", "value", "95 % interval", "between"),
                    [
                        _row("Male and Young, mean, " + before["shifted"], test["mean"]),
                        _row("the same, 15 and older", test["from_15_mean"]),
                        _row("gap on Male", test["Male_gap"]),
                        _row("gap on Male, same ages", test["Male_gap_age_adjusted"]),
                        _row("gap on Male, 15 and older", test["from_15_Male_gap"]),
                    ],
                ),
                "**These gaps are large and not yet mitigated**: do not read `Male` or `Young` off "
                "children or off people unlike CelebA's.",
            ]
        )
    )


def _row(title: str, entry: dict[str, Any]) -> tuple[str, str, str, str]:
    between = f"{entry['worst']} and {entry['best']}" if "worst" in entry else ""
    return title, number(entry["value"]), interval(entry["interval"]), between
