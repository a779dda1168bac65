"""The model card, written from a model's config and the JSON files under results/.

`python -m label2label.hub.model_card --output model_card.md` writes it for the model that ships. It
says only what the files say: a result whose JSON is not there has no section. A section is a
function in `SECTIONS` that returns its text, and the figures that the metadata publishes with it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError
from label2label.files import write_whole
from label2label.hub.card_decisions import calibration_section, known_words_section
from label2label.hub.card_devices import devices_section
from label2label.hub.card_metadata import card_metadata, plain_metadata
from label2label.hub.card_results import (
    attribute_section,
    comparison_section,
    group_sections,
    results_section,
)
from label2label.hub.card_shift import shift_section
from label2label.hub.card_text import (
    BACKBONE,
    CELEBA_ALONE,
    CELEBA_AND_UTKFACE,
    CITATION,
    COUPLED,
    COUPLED_BEFORE,
    EMISSIONS,
    ENDPOINTS,
    KINDS,
    LICENSE,
    LIMITS,
    PLAIN,
    PLAIN_LICENSE,
    ROUNDS,
    SHIPPED_IMPORT,
    SHIPPED_MODEL,
    SUMMARY,
    TRAINING,
    USE,
    UTKFACE,
)
from label2label.hub.emissions import CORES, estimate_emissions
from label2label.hub.measurements import (
    CardSection,
    Measurements,
    attribute_names,
    read_json,
)


def summary_section(measured: Measurements) -> CardSection:
    """What the model is, and how large."""
    size = measured.get("model_size")
    words = f"{measured.test['model']['parameters']['all'] / 1e6:.2f} M parameters"
    if size:
        words += f", {size['model']['flops']['all'] / 1e9:.2f} GFLOPs a face"
        words += f", {size['model']['file_bytes'] / 1e6:.1f} MB"
    kind = "".join(text for recipe, text in KINDS.items() if recipe in measured.training_logs)
    text = SUMMARY.format(
        name=measured.name, attributes=len(measured.attributes), size=words, kind=kind
    )
    return CardSection(text)


def use_section(measured: Measurements) -> CardSection:
    """How to load it, from Python, the command line and an endpoint."""
    shipped = SHIPPED_MODEL.format(name=measured.name)
    text = USE.format(source=SHIPPED_IMPORT, model=shipped, name=measured.name)
    return CardSection(f"{text}\n\n{ENDPOINTS}")


def training_section(measured: Measurements) -> CardSection:
    """How it was trained, on what, and at what cost."""
    logs = measured.training_logs
    rounds = [f"  - `{recipe}`: {text}" for recipe, text in ROUNDS.items() if recipe in logs]
    more = UTKFACE if measured.mitigation else ""
    coupling = COUPLED_BEFORE if measured.mitigation else COUPLED
    text = TRAINING.format(more=more, rounds="\n".join(rounds), coupling=coupling)
    emissions = estimate_emissions(logs.values())
    if emissions is None:
        return CardSection(text)
    cost = EMISSIONS.format(
        hours=emissions.hours, cores=CORES, grams=float(f"{emissions.grams:.2g}")
    )
    return CardSection(f"{text}\n{cost}")


def license_section(measured: Measurements) -> CardSection:
    """What the code and the weights may be used for."""
    sources = CELEBA_AND_UTKFACE if measured.mitigation else CELEBA_ALONE
    return CardSection(LICENSE.format(sources=sources))


def prose(text: str) -> Callable[[Measurements], CardSection]:
    """A section that no result changes."""
    return lambda measured: CardSection(text)


_SHIPPED_MODEL = re.compile(re.escape(SHIPPED_MODEL).replace(r"\{name\}", r"[^\"]+"))
PLOTS = "plots"  # folder of a report, in a model's folder
_PREDICTION = re.compile(r"(?<=^label2label predict photo\.jpg --model ).+$", re.MULTILINE)
_PLOT = re.compile(r"!\[([^\]]*)\]\(([^)/:]+\.png)\)")

Section = Callable[[Measurements], CardSection | Iterable[CardSection] | None]

SECTIONS: tuple[Section, ...] = (
    summary_section,
    use_section,
    results_section,
    comparison_section,
    attribute_section,
    group_sections,
    shift_section,
    calibration_section,
    known_words_section,
    devices_section,
    prose(LIMITS),
    training_section,
    license_section,
    prose(CITATION),
)


def model_card(model: Path, results: Path, repo_id: str | None = None) -> ModelCard:
    """Write a model's card.

    Args:
        model: its folder.
        results: folder of JSON files, as `Measurements`: `celeba_test.json` is needed; others are
            shown where they are there and of this model's weights.
        repo_id: the model's Hub id for the examples; without one they name a model that ships with
            the package.

    Returns:
        The card; `str(card)` is its text.

    Raises:
        UserError: where the model's config, weights or test results cannot be read, or the results
            are of other weights.
    """
    measured = Measurements(model, results)
    sections: list[CardSection] = []
    for section in SECTIONS:
        made = section(measured)
        if isinstance(made, CardSection):
            sections.append(made)
        elif made is not None:
            sections += made
    figures = [figure for section in sections for figure in section.figures]
    emissions = estimate_emissions(measured.training_logs.values())
    datasets = ["celeba", "utkface"] if measured.mitigation else ["celeba"]
    data = card_metadata(measured.name, datasets, figures, emissions)
    body = "\n\n".join(section.text for section in sections)
    text = f"---\n{data.to_yaml()}\n---\n\n{body}\n"
    return ModelCard(name_repository(text, repo_id) if repo_id else text)


def card_for_repository(model: Path, repo_id: str) -> str:
    """The README.md that a model's repository carries.

    Args:
        model: its folder; a README.md in it is the card.
        repo_id: `owner/name`, which the examples then name.

    Returns:
        The folder's card, with the plots of a report that `label2label evaluate --report` wrote to
        `plots/` in the folder; or one that says what the config says and that nothing was measured.

    Raises:
        UserError: the folder's card has metadata that is no YAML, or its config cannot be read.
    """
    card = model / "README.md"
    if card.is_file():
        try:
            text = card.read_text(encoding="utf-8")
            ModelCard(text)  # parses the metadata, which the Hub would refuse after the upload
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{card}: its metadata cannot be read: {reason}") from error
        return name_repository(with_plots(text, model / PLOTS, model), repo_id)
    config = read_json(model / "config.json")
    kind = config.get("model_type", "label2label")
    names = attribute_names(config)
    quoted = f'"{repo_id}"'
    if kind == "mobilefacenet":
        body = BACKBONE.format(model=quoted, size=config.get("image_size", 112))
    else:
        summary = PLAIN.format(
            name=repo_id.partition("/")[2], attributes=len(names), names=", ".join(names)
        )
        use = USE.format(source="", model=quoted, name=repo_id)
        body = f"{summary}\n\n{use}\n\n{ENDPOINTS}"
    parts = [f"---\n{plain_metadata(kind).to_yaml()}\n---", body, PLAIN_LICENSE, CITATION]
    return "\n\n".join(parts) + "\n"


def written_card(model: Path, results: Path, path: Path, repo_id: str | None = None) -> str:
    """A model's card as a file holds it: with the plots of the report in the model's folder.

    Args:
        model: its folder.
        results: folder of JSON files.
        path: of the card, from which it leads to the plots.
        repo_id: the model's Hub id, as for `model_card`.

    Returns:
        The text.

    Raises:
        UserError: as `model_card`.
    """
    text = str(model_card(model, results, repo_id))
    return with_plots(text, model / PLOTS, path.resolve().parent)


def with_plots(text: str, report: Path, folder: Path) -> str:
    """Show the plots of an evaluation's report in a card.

    Args:
        text: of the card.
        report: folder of the report.
        folder: of the card.

    Returns:
        The card, with the plots before its limits; as it was where there is no report, or where it
        shows them already.
    """
    path = report / "README.md"
    way = Path(os.path.relpath(report, folder)).as_posix()
    if not path.is_file() or f"]({way}/" in text:
        return text
    written = path.read_text(encoding="utf-8")
    title = written.partition("\n")[0].lstrip("# ")
    plots = [f"![{plot[1]}]({way}/{plot[2]})" for plot in _PLOT.finditer(written)]
    section = "\n\n".join(["## Plots", f"From [{title}]({way}/README.md):", *plots]) + "\n\n"
    before, limits, after = text.partition("## Limits")
    return f"{before}{section}{limits}{after}" if limits else f"{text.rstrip()}\n\n{section}"


def name_repository(text: str, repo_id: str) -> str:
    """Let a card's examples load the model from its repository.

    Args:
        text: a card whose examples load a model that ships with the package.
        repo_id: `owner/name`.

    Returns:
        The card.
    """
    text = _SHIPPED_MODEL.sub(f'"{repo_id}"', text.replace(SHIPPED_IMPORT, ""))
    return _PREDICTION.sub(repo_id, text)


def main() -> int:
    """Write a model's card to a file.

    Returns:
        The exit status: 0, or 2 where something that the card needs is not there.
    """
    parser = argparse.ArgumentParser(description="Write a model card from config and results.")
    parser.add_argument("--model", default=None, metavar="NAME|DIR", help="the default model")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--repo-id", metavar="USER/NAME", help="the model's Hub id, in examples")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.md")
    args = parser.parse_args()
    try:
        model = Path(find_checkpoint(args.model))
        write_whole(args.output, written_card(model, args.results, args.output, args.repo_id))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
