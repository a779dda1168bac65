"""Tables of the shift and of its mitigation: chosen on validation, gone on with step by step."""

import json

import pytest


@pytest.fixture
def options(shifted_faces, tmp_path) -> list[str]:
    """Arguments of trainings of a few steps."""
    arguments = [*shifted_faces, "--runs", str(tmp_path / "runs")]
    arguments += ["--aligned", str(tmp_path / "utkface")]
    arguments = ["--model", str(tmp_path / "model"), *arguments]
    arguments += ["--output", str(tmp_path / "results")]
    for setting in ("epochs=1", "batch_size=8", "workers=0", "mixed_precision='no'"):
        arguments += ["--set", setting]
    return arguments


@pytest.mark.slow
def test_tables_hold_what_evaluate_says_and_a_stopped_run_goes_on(
    options, tmp_path, load_benchmark, run_inside, monkeypatch, capsys
):
    benchmark = load_benchmark("fairness_tables")
    ran: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        ran.append(arguments)
        return 1 if len(ran) == 8 else run_inside(arguments)

    monkeypatch.setattr(benchmark, "run_command", run)
    options += ["--recipes", "finetune-merged", "--few-shot", "10"]
    assert benchmark.main(options) == 2
    assert "the same command goes on" in capsys.readouterr().err
    assert len(ran) == 8
    assert benchmark.main(options) == 0
    commands = [arguments[0] for arguments in ran]
    # 6 evaluations before; twice a training and 6 evaluations; and the one that failed.
    assert (commands.count("train"), commands.count("evaluate")) == (2, 19)
    assert benchmark.main(options) == 0
    assert len(ran) == 21
    weights = tmp_path / "model/model.safetensors"
    before, _ = weights.read_bytes(), weights.write_bytes(b"another")
    assert benchmark.main(options) == 2
    assert "begun from another model" in capsys.readouterr().err
    weights.write_bytes(before)

    results = tmp_path / "results"
    before = json.loads((results / "fairness_before.json").read_text())
    scores = json.loads((tmp_path / "runs/before/utkface-test.json").read_text())
    male = scores["groups"]["race"]["per_attribute"]["Male"]
    assert before["test"]["Male"]["value"] == male["accuracy"]["Asian"]
    assert before["test"]["Male_gap"]["value"] == male["gap"]
    assert before["test"]["Male_by_race"] == male["accuracy"]
    older = scores["minimum_age"]["groups"]["race"]["per_group"]["Asian"]
    assert before["test"]["from_15_mean"]["value"] == older["accuracy"]

    table = json.loads((results / "fairness_mitigation.json").read_text())
    row = table["after"]["finetune-merged"]
    assert row["test"]["aligned_mean"] == row["test"]["mean"]  # the same images here
    for name, key in (("shifted", "mean"), ("aligned", "aligned_mean"), ("celeba", "celeba")):
        gain = row["test"][key]["value"] - before["test"][key]["value"]
        assert row["difference"][name]["difference"] == pytest.approx(gain, abs=1e-5)
    assert list(json.loads((results / "fairness_few_shot.json").read_text())["images"]) == ["10"]
    used = (tmp_path / "runs/few-shot-10/recipe.yaml").read_text()
    assert "limit: 10" in used
    assert str(tmp_path / "utkface") in used


def row(crops: float, celeba: float, aligned: float = 0.8) -> dict:
    scores = {"all_races": crops, "aligned_all_races": aligned, "celeba": celeba}
    scores = {name: {"value": value} for name, value in scores.items()}
    return {"validation": scores, "test": scores}


def test_the_chosen_one_is_best_of_those_that_forget_little(load_benchmark):
    choose = load_benchmark("fairness_tables").choose
    rows = {"a": row(0.95, 0.89), "b": row(0.85, 0.903), "c": row(0.9, 0.9025), "d": row(0.8, 0.91)}
    assert choose(row(0.7, 0.905), rows) == "c"
    rows["e"] = row(0.88, 0.9025, aligned=0.83)
    assert choose(row(0.7, 0.905), rows) == "e"
    assert choose(row(0.7, 0.95), rows) is None


def test_goals_are_judged_on_test(load_benchmark):
    before = {
        "test": {"mean": {"value": 0.74}, "celeba": {"value": 0.905}, "Male": {"value": 0.65}}
    }
    after = {
        "test": {
            "mean": {"value": 0.83},
            "Male": {"value": 0.79},
            "celeba": {"value": 0.9025},
            "from_15_Male": {"value": 0.93},
            "Male_gap_age_adjusted": None,
        },
        "difference": {"by_race": {"a": {"difference": 0.1}, "b": {"difference": -0.01}}},
    }
    goals = load_benchmark("fairness_tables").judge(before, after)
    met = {name: goal["met"] for name, goal in goals.items()}
    assert met == {
        "gain_of_the_mean": True,
        "Male": False,
        "Male_from_15": True,
        "loss_of_celeba": True,
        "Male_gap_age_adjusted": False,
        "smallest_gain_of_a_race": False,
    }
    assert goals["gain_of_the_mean"]["value"] == pytest.approx(0.09)


def test_list_prints_what_is_left_and_runs_nothing(options, load_benchmark, capsys, monkeypatch):
    benchmark = load_benchmark("fairness_tables")
    monkeypatch.setattr(benchmark, "run_command", None)
    assert benchmark.main([*options, "--list"]) == 0
    commands = capsys.readouterr().out.splitlines()
    # 5 recipes and 4 numbers of images, each a training and 6 evaluations, and 6 before.
    assert len(commands) == 9 * 7 + 6
    assert sum(" data.1.limit=" in command for command in commands) == 4
