"""The figures that README.md and the model card show are those of results/*.json."""

import re
import runpy
from pathlib import Path

import pytest
from label2label.checkpoints import default_checkpoint
from label2label.hub.figures import stale_figures, unmarked
from label2label.hub.model_card import model_card

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
# Figures of the papers that README.md may show unmarked; ours must all be marked.
OTHERS = {"0.8810", "0.8813", "0.9124", "0.9138", "0.9183", "0.8552", "0.8820"}
MEASURED = re.compile(r"(?<![\w.])0\.\d{3,}(?![\w.])")


def test_readme_shows_what_was_measured():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!--=" in text
    stale = list(stale_figures(text, RESULTS))
    assert not stale, "run `python -m label2label.hub.figures README.md`"


def test_every_measured_figure_of_the_readme_names_its_source():
    text = unmarked((ROOT / "README.md").read_text(encoding="utf-8"))
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert set(MEASURED.findall(prose)) <= OTHERS


CARD_RESULTS = [RESULTS / f"{name}.json" for name in ("celeba_test", "utkface_aligned")]


def test_the_model_card_is_current_and_short():
    text = (ROOT / "model_card.md").read_text(encoding="utf-8")
    results = " ".join(path.relative_to(ROOT).as_posix() for path in CARD_RESULTS)
    assert text == str(model_card(Path(default_checkpoint()), CARD_RESULTS)), (
        f"run `python -m label2label.hub.model_card --results {results} --output model_card.md`"
    )
    assert len(text.splitlines()) <= 400


@pytest.mark.parametrize("file", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.name)
def test_the_docs_show_what_was_measured(file):
    stale = list(stale_figures(file.read_text(encoding="utf-8"), RESULTS))
    assert not stale, f"run `python -m label2label.hub.figures docs/{file.name}`"


def test_the_api_reference_is_current():
    pytest.importorskip("griffe2md")
    written = runpy.run_path(str(ROOT / "docs" / "api_reference.py"))["api_reference"]()
    current = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert current == written, "run `python docs/api_reference.py`"
