"""Figures stand in tables that `benchmarks/tables.py` fills; card and reference are current."""

import re
import runpy
from pathlib import Path

import pytest
from label2label.checkpoints import default_checkpoint
from label2label.hub.model_card import model_card

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
CHOSEN = {"0.002", "0.003"}  # what a seed moves, rounded
MEASURED = re.compile(r"(?<![\w.])0\.\d{3,}(?![\w.])")


@pytest.mark.parametrize("name", ["README.md", "docs/devices.md", "docs/experiments.md"])
def test_measured_figures_stand_in_tables_alone(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|<!-- table: .*?<!-- end -->", "", text, flags=re.DOTALL)
    assert set(MEASURED.findall(prose)) <= CHOSEN


CARD_RESULTS = [RESULTS / f"{name}.json" for name in ("celeba_test", "fairface_test")]


def test_the_model_card_is_current_and_short():
    text = (ROOT / "model_card.md").read_text(encoding="utf-8")
    results = " ".join(path.relative_to(ROOT).as_posix() for path in CARD_RESULTS)
    assert text == str(model_card(Path(default_checkpoint()), CARD_RESULTS)), (
        f"run `python -m label2label.hub.model_card --results {results} --output model_card.md`"
    )
    assert len(text.splitlines()) <= 400


def test_the_api_reference_is_current():
    pytest.importorskip("griffe2md")
    written = runpy.run_path(str(ROOT / "docs" / "api_reference.py"))["api_reference"]()
    current = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert current == written, "run `python docs/api_reference.py`"
