"""The model card's section of the shift between groups: faces that CelebA shows few of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from label2label.hub.card_tables import interval, number, table
from label2label.hub.measurements import CardSection, Measurements

_DATA = (
    "The test part of UTKFace (`datasets_scripts/utkface.py` on its `crop_part1`), by its own "
    "labels; only `Male` and `Young` follow from them. The set is skewed toward young children, "
    "and age differs by race in it: gaps are therefore also given as if every race had the same "
    "ages (post-stratified by age band)."
)
_WARNING = (
    "**These figures are low and differ by race, and this model is not mitigated**: do not read "
    "`Male` or `Young` off children or off people unlike CelebA's. `celeba-mobilefacenet-fair` is."
)
_FIGURES = {
    "mean": "Male and Young, mean, {shifted}",
    "Male": "Male, {shifted}",
    "Young": "Young, {shifted}",
    "aligned_mean": "Male and Young, mean, {shifted}, aligned",
    "from_15_mean": "Male and Young, mean, {shifted}, 15 and older",
    "from_15_Male": "Male, {shifted}, 15 and older",
    "Male_gap": "gap on Male",
    "Male_gap_age_adjusted": "gap on Male, same ages",
    "from_15_Male_gap": "gap on Male, 15 and older",
    "celeba": "CelebA, all attributes",
}
_GOALS = {
    "gain_of_the_mean": "gain of the mean",
    "Male": "Male",
    "Male_from_15": "Male, 15 and older",
    "loss_of_celeba": "loss on CelebA",
    "Male_gap_age_adjusted": "gap on Male, same ages",
    "smallest_gain_of_a_race": "smallest gain of a race",
}


def shift_section(measured: Measurements) -> CardSection | None:
    """How the model does on another dataset by race: before mitigation (the 2024 paper's Table 3),
    or, for a model that is mitigated, beside the one before (its Table 4)."""
    aligned = measured.get("utkface_aligned")
    if measured.mitigation:
        return _mitigated(measured.mitigation, aligned)
    before = measured.get("fairness_before")
    if before:
        test = before["test"]
        images, male, young = (test[f"{key}_by_race"] for key in ("num_images", "Male", "Young"))
        return _unmitigated(images, male, young, before, aligned)
    by_race = (measured.get("utkface_test") or {}).get("groups", {}).get("race")
    if not by_race or not {"Male", "Young"} <= by_race["per_attribute"].keys():
        return None
    male, young = (by_race["per_attribute"][attribute] for attribute in ("Male", "Young"))
    return _unmitigated(male["num_images"], male["accuracy"], young["accuracy"], aligned=aligned)


def _unmitigated(
    images: Mapping[str, int],
    male: Mapping[str, float],
    young: Mapping[str, float],
    before: Mapping[str, Any] | None = None,
    aligned: Mapping[str, Any] | None = None,
) -> CardSection:
    """Accuracies by race and, where they were measured, the figures of the shift."""
    races = [
        (race, f"{count:,}", number(male[race]), number(young[race]))
        for race, count in sorted(images.items())
    ]
    parts = [
        "## Other faces: UTKFace by race, before any mitigation",
        _DATA,
        table(("race", "images", "Male", "Young"), races),
    ]
    if before:
        test, shifted = before["test"], before["shifted"]
        rows = [
            (
                _title(key, shifted),
                number(test[key]["value"]),
                interval(test[key]["interval"]),
                _between(test[key]),
            )
            for key in _FIGURES
            if key != "celeba"
        ]
        parts.append(table(("", "value", "95 % interval", "between"), rows))
    return CardSection("\n\n".join([*parts, *_framing(aligned), _WARNING]))


def _mitigated(mitigation: Mapping[str, Any], aligned: Mapping[str, Any] | None) -> CardSection:
    shifted, recipe = mitigation["shifted"], mitigation["chosen"]
    before, row = mitigation["before"]["test"], mitigation["after"][recipe]
    after, difference = row["test"], row["difference"]["by_race"]
    figures = [
        (
            _title(key, shifted),
            number(before[key]["value"]),
            number(after[key]["value"]),
            interval(after[key]["interval"]),
            _between(after[key]),
        )
        for key in _FIGURES
    ]
    races = [
        (
            race,
            f"{images:,}",
            *(
                number(scores[f"{attribute}_by_race"][race])
                for attribute in ("Male", "Young")
                for scores in (before, after)
            ),
            f"{difference[race]['difference']:+.4f}",
            interval(difference[race]["interval"]),
        )
        for race, images in sorted(after["num_images_by_race"].items())
    ]
    goals = [
        (_GOALS[name], f"{goal['value']:.4f}", goal["goal"], "yes" if goal["met"] else "**no**")
        for name, goal in mitigation["goals"].items()
    ]
    others = [
        (
            name,
            number(other["test"]["mean"]["value"]),
            number(other["test"]["aligned_mean"]["value"]),
            number(other["test"]["Male"]["value"]),
            number(other["test"]["Male_gap_age_adjusted"]["value"]),
            number(other["test"]["celeba"]["value"]),
            f"{other['training']['seconds'] / 60:.0f}",
        )
        for name, other in mitigation["after"].items()
    ]
    return CardSection(
        "\n\n".join(
            [
                "## Other faces: UTKFace by race, before and after mitigation",
                f"{_DATA} This model was also trained on other images of UTKFace; before is the "
                f"default model, `{mitigation['model']['name']}`.",
                table(
                    (
                        *("race", "images", "Male before", "Male", "Young before", "Young"),
                        *("gain of both", "95 % interval"),
                    ),
                    races,
                ),
                table(("", "before", "after", "95 % interval", "between"), figures),
                "What we aimed at:",
                table(("", "reached", "goal", "met"), goals),
                _resolution(after["Male_gap_age_adjusted"]),
                *_framing(aligned),
                f"All recipes, of which `{recipe}` was chosen on the validation split, the best on "
                "all races, as they are and aligned, of those that cost CelebA at most "
                f"{100 * mitigation['largest_loss']:.1f} points there:",
                table(
                    ("recipe", "mean", "aligned", "Male", "gap, same ages", "CelebA", "minutes"),
                    others,
                ),
                "Only `Male` and `Young` were mitigated, on one dataset, whose labels are what its "
                "makers read off the photos. Of the other attributes nothing is known on these "
                "faces.",
            ]
        )
    )


def _resolution(same_ages: Mapping[str, Any]) -> str:
    return (
        "On these images a model that does equally well on all races would show a gap on Male, "
        f"same ages, of {number(same_ages['by_chance'])} on average; that this model does so has a "
        f"p-value of {number(same_ages['p_value'])} (Wald's test)."
    )


def _framing(aligned: Mapping[str, Any] | None) -> list[str]:
    """The same images framed as `label2label predict` frames the faces of a photo."""
    if not aligned:
        return []
    text = (
        "All of this is on UTKFace's own crops, which show the face about twice as large as "
        "CelebA's and those of `label2label predict`. Aligned as by that command "
        "(`datasets_scripts/utkface.py --align`; beyond the crop its edge is repeated), "
        f"`Male` and `Young` of the {aligned['num_images']:,} images are right for "
        f"{number(aligned['accuracy'])}"
    )
    if not aligned["comparison"]:
        races = sorted(aligned["groups"]["race"]["per_group"].items())
        by_race = ", ".join(f"{race} {number(scores['accuracy'])}" for race, scores in races)
        return [f"{text} ({by_race})."]
    before = aligned["comparison"]["overall"]["accuracy"]["other"]
    rows = [
        (
            race,
            number(entry["other"]),
            number(entry["model"]),
            f"{entry['difference']:+.4f}",
            interval(entry["interval"]),
        )
        for race, entry in sorted(aligned["comparison"]["groups"]["race"]["per_group"].items())
    ]
    return [
        f"{text}, before for {number(before)}. **Photos are framed like these**: expect the gain "
        "of this table, and not that of the crops:",
        table(("race", "before", "after", "gain", "95 % interval"), rows),
    ]


def _title(key: str, shifted: str) -> str:
    return _FIGURES[key].format(shifted=shifted)


def _between(entry: Mapping[str, Any]) -> str:
    return f"{entry['worst']} and {entry['best']}" if "worst" in entry else ""
