import json

import pytest
from label2label.errors import UserError
from label2label.hub.figures import format_figure, stale_figures, unmarked, write_figures


@pytest.fixture
def results(tmp_path):
    scores = {"accuracy": 0.90126, "interval": [0.89, 0.91], "parameters": {"all": 1_402_528}}
    (tmp_path / "test.json").write_text(json.dumps(scores))
    return tmp_path


def test_a_stale_figure_is_found_and_rewritten(results):
    text = "| accuracy | <!--= test.json accuracy .4f -->0.8000<!--/--> |"
    stale = list(stale_figures(text, results))
    assert stale[0][1] == "<!--= test.json accuracy .4f -->0.9013<!--/-->"
    rewritten = write_figures(text, results)
    assert rewritten == "| accuracy | <!--= test.json accuracy .4f -->0.9013<!--/--> |"
    assert not list(stale_figures(rewritten, results))


def test_two_figures_on_a_line_keep_what_is_between_them(results):
    mark = "<!--= test.json interval/{} .2f --><!--/-->"
    text = write_figures(f"[{mark.format(0)}, {mark.format(1)}]", results)
    assert unmarked(text) == "[, ]"
    assert text.count("0.89") == text.count("0.91") == 1


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (1_402_528, ".2fM", "1.40"),
        (5.1e8, ".2fG", "0.51"),
        (0.9, ".1%", "90.0%"),
        (1042, ",", "1,042"),
    ],
)
def test_formats(value, form, shown):
    assert format_figure(value, form) == shown


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("other.json accuracy .4f", "cannot be read"),
        ("test.json f1 .4f", "has no f1"),
        ("test.json accuracy d", "cannot be written"),
        ("test.json parameters .4f", "cannot be written"),
    ],
)
def test_a_figure_without_a_source_is_refused(results, mark, message):
    with pytest.raises(UserError, match=message):
        write_figures(f"<!--= {mark} -->0<!--/-->", results)
