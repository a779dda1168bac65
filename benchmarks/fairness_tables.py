"""Measure the racial shift, mitigate it by every recipe, and write both down: Tables 3 and 4.

    python datasets_scripts/celeba.py --source CELEBA --output data/celeba
    python datasets_scripts/utkface.py --source UTKFACE --as-is --output data/utkface
    python datasets_scripts/utkface.py --source UTKFACE --output data/utkface-aligned
    python benchmarks/fairness_tables.py

Every step (a training, an evaluation) leaves a file and is skipped where that exists: a run that
was stopped goes on with the same command. `--list` prints the commands of the steps to come.

UTKFace's images are read twice: as they are, which show the face about twice as large as CelebA's,
and aligned as `label2label predict` aligns the faces of a photo.

Written, the last two with pictures: `fairness_before.json` (the model as it is, by group),
`fairness_mitigation.json` (after each recipe: the shifted domain, what was forgotten of CelebA,
gaps between groups, raw and age-adjusted) and `fairness_few_shot.json` (how much 10, 50, 200 and
1,000 labelled images bring).

The mitigation that is `chosen` is so on validation: the best on all races, as they are and aligned,
of those that cost CelebA at most `LARGEST_LOSS` (of the shifted domain alone there are too few
images). Test is read once a row. Differences from the model before are paired; all intervals are of
95 %.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairness_plots import few_shot_plot, mitigation_plot
from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError
from label2label.evaluation.plots import save_figure
from label2label.files import sha256, write_whole
from label2label.training.recipe import load_recipe

RECIPES = (
    *("finetune-shifted", "finetune-merged", "group-balanced", "group-dro"),
    "group-balanced-framings",
)
FEW_SHOT_RECIPE = "finetune-merged"
FEW_SHOT = (10, 50, 200, 1000)
# Of CelebA's accuracy: what a recipe may cost on validation to be chosen, and the goal on test.
LARGEST_LOSS = 0.004
GOAL_LOSS = 0.003
SPLITS = ("validation", "test")
# What every model is measured on, and the recipes' name for it.
DATASETS = {
    "utkface": "data/utkface",
    "aligned": "data/utkface-aligned",
    "celeba": "data/celeba",
}


@dataclass(frozen=True)
class Step:
    """A command of the project and the file by which to tell that it is done.

    Args:
        title: What it does.
        arguments: Of the `label2label` command.
        done: The file that it leaves at its end.
    """

    title: str
    arguments: list[str]
    done: Path


def plan_steps(args: argparse.Namespace) -> Iterator[Step]:
    """All steps, in order: for each model its training, then its evaluations.

    Args:
        args: The command line.

    Yields:
        The steps, done or not.
    """
    for name, recipe, limit in [
        ("before", None, 0),
        *((recipe, recipe, 0) for recipe in args.recipes),
        *((f"few-shot-{limit}", FEW_SHOT_RECIPE, limit) for limit in args.few_shot),
    ]:
        run = args.runs / name
        if recipe:
            yield _training(args, run, recipe, limit)
        for split in SPLITS:
            for data in DATASETS:
                output = run / f"{data}-{split}.json"
                model = str(run / "best") if recipe else find_checkpoint(args.model)
                arguments = ["evaluate", "--model", model, "--data", getattr(args, data)]
                arguments += ["--split", split, "--output", str(output)]
                if data != "celeba":
                    arguments += ["--group", "race"]
                if split == "test" and recipe:
                    arguments += ["--against", find_checkpoint(args.model)]
                yield Step(f"{name}: evaluate on {data}, {split}", arguments, output)


def _training(args: argparse.Namespace, run: Path, recipe: str, limit: int) -> Step:
    arguments = ["train", "--recipe", recipe, "--output", str(run)]
    settings = []
    if args.model:
        settings.append(f"init_from={args.model}")
        if load_recipe(recipe).teachers:
            settings.append(f"teachers=[{args.model}]")
    given = {path: getattr(args, data) for data, path in DATASETS.items()}
    for place, source in enumerate(load_recipe(recipe).sources):
        shifted = "race" in source.where
        settings.append(f"data.{place}.path={given[source.path]}")
        if shifted:
            settings.append(f"data.{place}.where.race={args.shifted}")
        if shifted and limit:
            settings.append(f"data.{place}.limit={limit}")
    for setting in [*settings, *args.set]:
        arguments += ["--set", setting]
    if list((run / "state").glob("step-*")):
        arguments.append("--resume")
    return Step(f"{run.name}: train", arguments, run / "finished.json")


def hold_on_to_model(args: argparse.Namespace) -> None:
    """Refuse to mix steps of two starting models in one folder of runs.

    Args:
        args: The command line.

    Raises:
        UserError: If the runs were begun from other weights.
    """
    weights = Path(find_checkpoint(args.model)) / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights} is missing: --model takes the folder of a model")
    start = {"weights_sha256": sha256(weights)}
    file = args.runs / "start.json"
    if not file.is_file():
        _write(file, start)
    elif json.loads(file.read_text(encoding="utf-8")) != start:
        raise UserError(f"{args.runs} was begun from another model: remove it, or choose --runs")


def run_command(arguments: Sequence[str]) -> int:
    """Run one `label2label` command in a process of its own.

    Args:
        arguments: Of the command.

    Returns:
        Its exit code.
    """
    return subprocess.run([sys.executable, "-m", "label2label", *arguments]).returncode


def carry_out(step: Step) -> None:
    """Run a step, and mark a training as done.

    Args:
        step: The step.

    Raises:
        UserError: If the command fails or is stopped.
    """
    print(f"== {step.title}", file=sys.stderr, flush=True)
    step.done.parent.mkdir(parents=True, exist_ok=True)
    code = run_command(step.arguments)
    if code:
        raise UserError(f"{step.title}: exit code {code}; the same command goes on from here")
    if step.arguments[0] == "train":
        _write(step.done, {"command": shlex.join(["label2label", *step.arguments])})


def summarize(
    utkface: dict[str, Any], aligned: dict[str, Any], celeba: dict[str, Any], shifted: str
) -> dict[str, Any]:
    """The figures of one row of the tables.

    Args:
        utkface: Evaluation on UTKFace, by race.
        aligned: The same on aligned images.
        celeba: Evaluation on CelebA.
        shifted: Name of the shifted group.

    Returns:
        Each figure as `{"value", "interval"}`: the shifted domain (mean of Male and Young, each of
        them, those of 15 and more years, and all of these aligned), all races as they are and
        aligned, CelebA's accuracy, and Male's gap between the worst and the best race, raw,
        age-adjusted, and of 15 and more years; and Male by race.
    """

    def by_group(scores: dict[str, Any], prefix: str) -> dict[str, Any]:
        race = scores["groups"]["race"]
        own = race["per_group"][shifted]
        figures = {f"{prefix}mean": _figure(own["accuracy"], own["interval"])}
        for attribute in ("Male", "Young"):
            by_race = race["per_attribute"][attribute]
            figures[f"{prefix}{attribute}"] = _figure(
                by_race["accuracy"][shifted], by_race["interval"][shifted]
            )
        male = race["per_attribute"]["Male"]
        figures[f"{prefix}Male_gap"] = _gap(male)
        adjusted = scores["age_adjusted"].get("race", {"per_attribute": {}})
        male_adjusted = adjusted["per_attribute"].get("Male")
        figures[f"{prefix}Male_gap_age_adjusted"] = _gap(male_adjusted) if male_adjusted else None
        return figures

    return {
        **by_group(utkface, ""),
        **(by_group(utkface["minimum_age"], "from_15_") if utkface["minimum_age"] else {}),
        **by_group(aligned, "aligned_"),
        "all_races": _figure(utkface["accuracy"], utkface["intervals"]["accuracy"]),
        "aligned_all_races": _figure(aligned["accuracy"], aligned["intervals"]["accuracy"]),
        "celeba": _figure(celeba["accuracy"], celeba["intervals"]["accuracy"]),
        "Male_by_race": utkface["groups"]["race"]["per_attribute"]["Male"]["accuracy"],
        "Young_by_race": utkface["groups"]["race"]["per_attribute"]["Young"]["accuracy"],
        "num_images_by_race": utkface["groups"]["race"]["per_attribute"]["Male"]["num_images"],
    }


def _figure(value: float | None, interval: Sequence[float] | None) -> dict[str, Any]:
    return {"value": value, "interval": interval}


def _gap(scores: dict[str, Any]) -> dict[str, Any]:
    return {
        **_figure(scores["gap"], scores["gap_interval"]),
        "worst": scores["worst_group"],
        "best": scores["best_group"],
        "by_chance": scores["expected_gap_under_null"],
        "p_value": scores["p_value"],
    }


def describe_row(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Everything measured of one model.

    Args:
        args: The command line.
        name: Of its folder among the runs.

    Returns:
        `validation` and `test`, as `summarize`; and, of a trained model, `difference` from the one
        before on test, paired: of the shifted domain and of every race (Male and Young), as they
        are and aligned, and of CelebA.
    """

    def read(file: str) -> dict[str, Any]:
        return json.loads((args.runs / name / file).read_text(encoding="utf-8"))

    row: dict[str, Any] = {
        split: summarize(*(read(f"{data}-{split}.json") for data in DATASETS), args.shifted)
        for split in SPLITS
    }
    if name != "before":
        tested = read("utkface-test.json")
        row["weights_sha256"] = tested["model"]["weights_sha256"]
        by_race, aligned_by_race = (
            evaluation["comparison"]["groups"]["race"]["per_group"]
            for evaluation in (tested, read("aligned-test.json"))
        )
        row["difference"] = {
            "by_race": by_race,
            "shifted": by_race[args.shifted],
            "aligned_by_race": aligned_by_race,
            "aligned": aligned_by_race[args.shifted],
            "celeba": read("celeba-test.json")["comparison"]["overall"]["accuracy"],
        }
        history = read("history.json")
        row["training"] = {
            "seconds": sum(entry["seconds"] for entry in history),
            "steps": history[-1]["step"],
            "command": read("finished.json")["command"],
        }
    return row


def choose(before: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str | None:
    """The mitigation that is best on validation images of all races, by the mean of these images as
    they are and aligned.

    Args:
        before: The row of the model before.
        rows: Rows by recipe.

    Returns:
        A recipe; none where all cost CelebA's validation accuracy more than `LARGEST_LOSS`.
    """
    start = before["validation"]["celeba"]["value"]
    cheap = [
        name
        for name, row in rows.items()
        if row["validation"]["celeba"]["value"] >= start - LARGEST_LOSS
    ]

    def both_framings(name: str) -> float:
        scores = rows[name]["validation"]
        return scores["all_races"]["value"] + scores["aligned_all_races"]["value"]

    return max(cheap, key=both_framings, default=None)


def judge(before: dict[str, Any], row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the chosen mitigation reaches, beside the goals.

    Args:
        before: The row of the model before.
        row: The chosen one's.

    Returns:
        By goal: `value`, `goal` and whether it is `met`, on test.
    """
    start, end = before["test"], row["test"]
    gap = end["Male_gap_age_adjusted"]
    measured = {
        "gain_of_the_mean": (end["mean"]["value"] - start["mean"]["value"], 0.08, "least"),
        "Male": (end["Male"]["value"], 0.80, "least"),
        "Male_from_15": (end.get("from_15_Male", {}).get("value"), 0.92, "least"),
        "loss_of_celeba": (start["celeba"]["value"] - end["celeba"]["value"], GOAL_LOSS, "most"),
        "Male_gap_age_adjusted": (gap and gap["value"], 0.03, "most"),
        "smallest_gain_of_a_race": (
            min(race["difference"] for race in row["difference"]["by_race"].values()),
            0.0,
            "least",
        ),
    }
    return {
        name: {
            "value": value if value is None else round(value, 6),
            "goal": f"at {bound} {goal}",
            "met": value is not None and (value >= goal if bound == "least" else value <= goal),
        }
        for name, (value, goal, bound) in measured.items()
    }


def write_tables(args: argparse.Namespace) -> None:
    """Write what the finished steps have measured, and print it.

    Args:
        args: The command line.
    """
    finished = [
        name
        for name in ("before", *args.recipes, *(f"few-shot-{limit}" for limit in args.few_shot))
        if all(
            (args.runs / name / f"{data}-{split}.json").is_file()
            for data in DATASETS
            for split in SPLITS
        )
    ]
    if "before" not in finished:
        return
    rows = {name: describe_row(args, name) for name in finished}
    before = rows["before"]
    evaluated = json.loads((args.runs / "before" / "celeba-test.json").read_text(encoding="utf-8"))
    about = {
        "model": evaluated["model"],  # the one before: what is said of it is of no other's weights
        "shifted": args.shifted,
        "attributes": ["Male", "Young"],
        "unit": "image",
    }
    _write(args.output / "fairness_before.json", about | before)
    mitigated = {name: rows[name] for name in args.recipes if name in rows}
    if mitigated:
        chosen = choose(before, mitigated)
        table = about | {"before": before, "after": mitigated, "chosen": chosen}
        table["largest_loss"] = LARGEST_LOSS
        if chosen:
            table["goals"] = judge(before, mitigated[chosen])
        _write(args.output / "fairness_mitigation.json", table)
        save_figure(mitigation_plot(table, GOAL_LOSS), args.output, "fairness_mitigation")
    few = {limit: rows[name] for limit in args.few_shot if (name := f"few-shot-{limit}") in rows}
    if few:
        table = about | {"recipe": FEW_SHOT_RECIPE, "before": before, "images": few}
        _write(args.output / "fairness_few_shot.json", table)
        save_figure(few_shot_plot(table), args.output, "fairness_few_shot")
    print(markdown(rows))


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The rows on test as a Markdown table.

    Args:
        rows: By name.

    Returns:
        The table.
    """
    columns = {
        "shifted: mean": "mean",
        "Male": "Male",
        "Young": "Young",
        "Male, 15+": "from_15_Male",
        "aligned: mean": "aligned_mean",
        "CelebA": "celeba",
        "Male gap": "Male_gap",
        "age-adjusted": "Male_gap_age_adjusted",
    }
    lines = [
        f"| {' | '.join(['model', *columns])} |",
        "| :--- |" + " ---: |" * len(columns),
    ]
    for name, row in rows.items():
        cells = [row["test"].get(key) for key in columns.values()]
        lines.append(f"| {' | '.join([name, *map(_cell, cells)])} |")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "–"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def _write(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps that are not done, then write the tables.

    Args:
        arguments: Of the command line; the process's own by default.

    Returns:
        0, or 2 where a step failed: the steps before it are kept.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="the model before (default: the one that ships)")
    parser.add_argument("--celeba", default="data/celeba", metavar="DIR", help="prepared CelebA")
    parser.add_argument("--utkface", default="data/utkface", metavar="DIR", help="prepared UTKFace")
    parser.add_argument(
        "--aligned", default="data/utkface-aligned", metavar="DIR", help="with framed faces"
    )
    parser.add_argument("--shifted", default="Asian", metavar="RACE", help="the shifted domain")
    parser.add_argument("--recipes", nargs="*", default=RECIPES, metavar="NAME")
    parser.add_argument("--few-shot", nargs="*", type=int, default=FEW_SHOT, metavar="N")
    parser.add_argument("--runs", type=Path, default=Path("runs/fairness"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    args = parser.parse_args(arguments)
    try:
        if not args.list:
            hold_on_to_model(args)
        for step in plan_steps(args):
            if step.done.is_file():
                continue
            if args.list:
                print(shlex.join(["label2label", *step.arguments]))
            else:
                carry_out(step)
                if step.arguments[0] == "evaluate":
                    write_tables(args)
        if not args.list:
            write_tables(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
