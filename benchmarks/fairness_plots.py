"""The pictures of `fairness_tables.py`: what each recipe gains and costs, and what images bring."""

from __future__ import annotations

from typing import Any

import numpy as np
from label2label.evaluation.plots import BLUE, GRAY, ORANGE, STYLE
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def mitigation_plot(table: dict[str, Any], goal_loss: float) -> Figure:
    """What each recipe gains on the shifted domain, as it is and aligned, and costs on CelebA; and
    Male by race, before and after the chosen one.

    Args:
        table: As it is written to `fairness_mitigation.json`.
        goal_loss: Of CelebA's accuracy on test, 0 to 1, that a recipe should cost at most.

    Returns:
        A figure of three panels, or of two where no recipe is chosen.
    """
    recipes = list(table["after"])[::-1]
    titles = [f"{name}, chosen" if name == table["chosen"] else name for name in recipes]
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        gained, lost, *races = figure.subplots(1, 3 if table["chosen"] else 2)
        for axes, domain, offset, color, label in (
            (gained, "shifted", 0.12, BLUE, "as they are"),
            (gained, "aligned", -0.12, ORANGE, "aligned as photos are"),
            (lost, "celeba", 0.0, BLUE, None),
        ):
            changes = [table["after"][name]["difference"][domain] for name in recipes]
            value = 100 * np.array([change["difference"] for change in changes])
            ends = 100 * np.array([change["interval"] for change in changes]).T
            places = np.arange(len(recipes)) + offset
            spread = np.abs(ends - value)
            axes.errorbar(value, places, xerr=spread, fmt="o", color=color, capsize=2, label=label)
        for axes in (gained, lost):
            axes.axvline(0, color=GRAY, linewidth=0.8)
            axes.set_yticks(range(len(recipes)), titles if axes is gained else [])
            axes.set_ylim(-0.5, len(recipes) - 0.5)
        gained.set_xlabel(f"{table['shifted']}: Male and Young gained, points")
        gained.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        lost.axvline(-100 * goal_loss, color=GRAY, linestyle="--", linewidth=0.8)
        lost.set_xlabel("CelebA: accuracy gained, points\n(dashed: the goal)")
        if races:
            _draw_races(races[0], table["before"]["test"], table["after"][table["chosen"]]["test"])
            races[0].set_xlabel("accuracy of Male on UTKFace,\nbefore and after the chosen recipe")
    return figure


def _draw_races(axes: Axes, before: dict[str, Any], after: dict[str, Any]) -> None:
    races = sorted(before["Male_by_race"], key=lambda race: before["Male_by_race"][race])[::-1]
    for y, race in enumerate(races):
        start, end = before["Male_by_race"][race], after["Male_by_race"][race]
        axes.plot([start, end], [y, y], color=GRAY, linewidth=1.5, zorder=1)
        axes.scatter(start, y, color=ORANGE, zorder=2, label="before" if y == 0 else None)
        axes.scatter(end, y, color=BLUE, zorder=2, label="after" if y == 0 else None)
    titles = [f"{race}, {before['num_images_by_race'][race]} images" for race in races]
    axes.set_yticks(range(len(races)), titles)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)


def few_shot_plot(table: dict[str, Any]) -> Figure:
    """The shifted domain's accuracy over the number of its labelled images.

    Args:
        table: As it is written to `fairness_few_shot.json`.

    Returns:
        A figure.
    """
    counts = [0, *(int(count) for count in table["images"])]
    rows = [table["before"]["test"], *(row["test"] for row in table["images"].values())]
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for key, title, color in (("mean", "Male and Young", BLUE), ("Male", "Male", ORANGE)):
            value = np.array([row[key]["value"] for row in rows])
            ends = np.array([row[key]["interval"] for row in rows]).T
            axes.errorbar(
                *(range(len(counts)), value),
                yerr=np.abs(ends - value),
                fmt="o-",
                capsize=3,
                color=color,
                label=title,
            )
        axes.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
        axes.set_xlabel(f"labelled images of {table['shifted']} faces, at most")
        axes.set_ylabel("accuracy, 95 % interval")
        axes.legend(frameon=False)
    return figure
