"""The audit says what the results say."""

import json
import logging

from audit import COMMAND, load_evaluations, render_audit
from label2label.cli import build_parser


def evaluation(**changes):
    per_group = {
        "A & B": {"accuracy": 0.9, "interval": [0.88, 0.92], "num_images": 400, "small": False},
        "C": {"accuracy": 0.84, "interval": [0.8, 0.87], "num_images": 100, "small": False},
        "D": {"accuracy": 0.5, "interval": [0.2, 0.8], "num_images": 9, "small": True},
    }
    attributes = {
        "Smiling": {"gap": 0.05, "demographic_parity_difference": 0.1},
        "Young": {"gap": 0.21, "demographic_parity_difference": 0.4},
        "Male": {"gap": float("nan"), "demographic_parity_difference": float("nan")},
        "Bald": {"gap": None, "demographic_parity_difference": None},
    }
    race = {
        "per_group": per_group,
        "best_group": "A & B",
        "worst_group": "C",
        "gap": 0.06,
        "gap_interval": [-0.01, 0.1],
        "expected_gap_under_null": 0.031,
        "p_value": 0.0174,
        "per_attribute": attributes,
    }
    return {
        "model": {"name": "some-model"},
        "dataset": {"name": "utkface", "split": "test"},
        "accuracy": 0.88,
        "intervals": {"accuracy": [0.86, 0.9]},
        "num_images": 509,
        "groups": {"race": race},
        "age_adjusted": {"race": {"overall": {**race, "gap": 0.025, "gap_interval": [0, 0.05]}}},
        **changes,
    }


def test_every_group_is_shown_with_its_images_and_interval():
    page = render_audit([evaluation()], "en")
    assert "some-model: UTKFace, test split, by perceived race" in page
    assert "A &amp; B" in page
    assert "A & B" not in page
    assert ">90.0 %<" in page
    assert "80.0 % – 87.0 %" in page
    assert "All 509 images: accuracy 88.0 % (86.0 % to 90.0 %)." in page


def test_a_group_under_30_images_is_flagged_and_others_are_not():
    page = render_audit([evaluation()], "en")
    assert page.count("under 30 images") == 1
    assert page.index("under 30 images") > page.index('"row">D')


def test_gaps_are_in_points_with_and_without_age():
    page = render_audit([evaluation()], "en")
    assert "lie 6.0 points (−1.0 to 10.0); 3.1 on average if there were no" in page
    assert "no difference (p-value 0.0174)" in page
    assert "same ages, 2.5 points remain" in page


def test_a_small_p_value_is_not_called_zero():
    result = evaluation()
    result["groups"]["race"]["p_value"] = 1e-7
    assert "no difference (p-value &lt; 0.0001)" in render_audit([result], "en")


def test_the_widest_gap_comes_first_and_undefined_ones_are_left_out():
    page = render_audit([evaluation()], "en")
    assert page.index("Young") < page.index("Smiling")
    assert "Male" not in page
    assert "nan" not in page


def test_without_results_the_page_says_so_in_the_visitors_language():
    assert "No evaluation by group was published" in render_audit([], "en")
    assert "집단별 평가 결과" in render_audit([], "ko")


def test_the_command_that_the_page_shows_is_the_packages():
    arguments = build_parser().parse_args(COMMAND.split()[1:])
    assert (arguments.command, arguments.group) == ("audit", ["race"])


def test_only_test_splits_by_group_are_read_and_damaged_files_are_left_out(tmp_path):
    files = {
        "b.json": json.dumps(evaluation()),
        "validation.json": json.dumps(evaluation(dataset={"name": "x", "split": "validation"})),
        "no_groups.json": json.dumps(evaluation(groups={})),
        "speed.json": json.dumps({"latency": 3}),
        "list.json": "[1, 2]",
        "damaged.json": '{"groups": ',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "a-model").mkdir()  # of another model than the default one, which comes first
    other = evaluation(model={"name": "a-model"})
    (tmp_path / "a-model" / "b.json").write_text(json.dumps(other))
    found = load_evaluations([tmp_path, tmp_path / "missing"])
    assert [e["model"]["name"] for e in found] == ["some-model", "a-model"]


def test_an_evaluation_that_lacks_what_the_page_shows_is_left_out_with_a_warning(tmp_path, caplog):
    old = evaluation()
    del old["groups"]["race"]["expected_gap_under_null"]  # the first version wrote none
    for name, content in {
        "old.json": old,
        "odd_dataset.json": evaluation(dataset="utkface"),
        "odd_interval.json": evaluation(intervals={"accuracy": [0.9]}),
        "new.json": evaluation(model={"name": "new"}),
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        found = load_evaluations([tmp_path])
    assert [e["model"]["name"] for e in found] == ["new"]
    assert "new: UTKFace, test split" in render_audit(found, "en")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 3
    (warning,) = (text for text in warnings if "/old.json" in text)
    assert "has no attribute 'expected_gap_under_null'" in warning
    assert "\n" not in warning
