"""Tables in documents are what results/ says, and results/ holds what they need."""

import re
from pathlib import Path

import pytest
from label2label.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(load_benchmark):
    return load_benchmark("tables")


def test_every_document_shows_what_was_measured(tables):
    for file in tables.documents():
        text = file.read_text(encoding="utf-8")
        assert text == tables.fill(text), f"run `python benchmarks/tables.py {file}`"


def test_every_result_is_shown_in_a_document(tables):
    read = set()

    def recording(name):
        read.add(f"{name}.json")
        return tables.read_result(name)

    texts = [file.read_text(encoding="utf-8") for file in tables.documents()]
    for text in texts:
        read |= set(re.findall(r"results/([\w/-]+\.svg)", text))
        tables.fill(text, recording)
    kept = {
        path.relative_to(tables.RESULTS).as_posix()
        for path in tables.RESULTS.rglob("*")
        if path.is_file()
    }
    # The Space shows the groups of every evaluation, also of those that no table reads.
    evaluations = {name for name in kept - read if is_by_group(tables, name)}
    assert kept - read - evaluations == set()


def is_by_group(tables, name):
    return name.endswith(".json") and bool(tables.read_result(name[:-5]).get("groups"))


def test_content_between_markers_is_replaced_and_the_rest_stays(tables):
    text = "before\n<!-- table: lfw-verification -->\n| old |\n<!-- end -->\nafter 0.1\n"
    test = {"num_pairs": 600, "accuracy": 0.91238, "standard_error": 0.00251}
    filled = tables.fill(text, lambda name: test)
    assert filled.startswith("before\n<!-- table: lfw-verification -->\n| pairs of LFW |")
    assert "| 600 | 0.912 | 0.0025 |\n" in filled
    assert "old" not in filled
    assert filled.endswith("<!-- end -->\nafter 0.1\n")
    assert tables.fill(filled, lambda name: test) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: none -->\n<!-- end -->", "no table 'none'"),
        ("<!-- table: tiny -->\n<!-- end -->", "table tiny: a result lacks 'accuracy'"),
        ("<!-- table: tiny -->\n", "no `<!-- end -->`"),
    ],
)
def test_a_table_that_cannot_be_filled_is_one_line(text, message, tables):
    with pytest.raises(UserError, match=message):
        tables.fill(text, lambda name: {})


def test_a_missing_result_is_one_line(tables):
    with pytest.raises(UserError, match=r"nothing\.json cannot be read"):
        tables.read_result("nothing")
