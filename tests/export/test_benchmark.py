"""The benchmark measures what it says: the right files, in turns, each in a process of its own."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import constants
from label2label.checkpoints import find_checkpoint
from label2label.cli import main
from label2label.errors import UserError
from label2label.export import benchmark_rows
from label2label.export.benchmark import Worker, _summarise, find_accuracy
from label2label.export.benchmark_answers import compare_answers, judge_answers
from label2label.export.complexity import measure_complexity

from tests.hub.hub_server import HubServer

pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def output(model_folder, tmp_path_factory):
    """What `benchmark --quick` writes for the tiny model."""
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    folder = tmp_path_factory.mktemp("benchmark")
    digest = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    measured = {
        "model": {"weights_sha256": digest},
        "dataset": {"name": "faces", "split": "test"},
        "accuracy": 0.75,
    }
    (folder / "results").mkdir()
    (folder / "results" / "test.json").write_text(json.dumps(measured))
    arguments = ["benchmark", "--quick", "--model", model_folder, "--results", folder / "results"]
    rows = ["ours-torch", "ours-onnx", "ours-ncnn", "tiny-onnx"]
    arguments += ["--output", folder / "out" / "speed.json", "--rows", *rows]
    assert main([*map(str, arguments)]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def result(output):
    return json.loads((output / "speed.json").read_text())


def test_json_table_and_plot_are_written_whole(output):
    names = sorted(file.name for file in output.iterdir())
    assert names == ["speed.json", "speed.md", "speed.png", "speed.svg"]
    assert (output / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_rows_say_what_torch_says(result):
    assert list(result["rows"]) == ["ours-torch", "ours-onnx", "ours-ncnn", "tiny-onnx"]
    assert result["rows"]["ours-torch"]["largest_difference"] < 1e-6
    assert result["rows"]["ours-onnx"]["largest_difference"] < 1e-4
    assert result["rows"]["ours-ncnn"]["largest_difference"] < 2e-2  # its weights are float16
    assert result["rows"]["tiny-onnx"]["largest_difference"] < 1e-4


def test_measurements_are_of_one_kind(result):
    for row in result["rows"].values():
        (measured,) = row["measurements"]
        assert (measured["threads"], measured["batch"]) == (1, 1)
        assert 0 < measured["latency_p50_ms"] <= measured["latency_p95_ms"]
        assert measured["images_per_second"] == pytest.approx(1e3 / measured["latency_p50_ms"])
        assert measured["cpu_seconds_per_image"] < 2e-3 * measured["latency_p95_ms"]
        assert measured["round_medians_ms"][0] <= measured["round_medians_ms"][1]
    memory = {n: r["measurements"][0]["peak_memory_bytes"] for n, r in result["rows"].items()}
    # Without torch a process is far smaller, which one process for all rows would hide.
    assert memory["ours-onnx"] < memory["ours-torch"] / 2


def test_cpu_seconds_are_those_of_a_whole_round_over_its_runs():
    worker = SimpleNamespace(
        seconds=[[0.002, 0.004], [0.002, 0.002], [0.002, 0.002]],
        cpu_seconds=[0.009, 0.004, 0.005],
        start={"import_seconds": 1, "load_seconds": 1, "first_prediction_seconds": 1},
    )
    summary = _summarise(worker, threads=2, batch=4, peak_memory=0)
    assert summary["cpu_seconds_per_image"] == 0.005 / 4
    assert summary["runs"] == 6


def test_worker_answers_one_cpu_figure_a_round(tmp_path, backend):
    from label2label.export.onnx import export_onnx

    export_onnx(backend.model, backend.preprocessing, tmp_path / "model.onnx")
    path = tmp_path / "model.onnx"
    row = SimpleNamespace(name="row", runtime="onnxruntime", path=path, image_size=112)
    worker = Worker(row, threads=1, batch=2)
    try:
        assert np.shape(worker.start["probabilities"]) == (2, 5)
        worker.warm_up(0.1)
        for _ in range(2):
            worker.measure()
    finally:
        worker.kill()
    assert len(worker.cpu_seconds) == len(worker.seconds) == 2
    for cpu, seconds in zip(worker.cpu_seconds, worker.seconds, strict=True):
        assert 0 < cpu < 2 * np.mean(seconds)


def judged(expected, *found, evaluated=None):
    """The entry of a row that answered so in one setting after the other."""
    row = SimpleNamespace(expected=np.array(expected), evaluated=evaluated)
    entry = {"accuracy": 0.9, "largest_difference": None, "evaluated_difference": None}
    for answers in found:
        compare_answers(row, np.array(answers), entry)
    judge_answers(row, entry)
    return entry


def test_accuracy_stands_where_the_answers_are_those_that_were_evaluated():
    entry = judged([[0.5, 0.25]], [[0.5, 0.25]], [[0.502, 0.25], [9.0, 9.0]], [[0.5, 0.251]])
    assert entry["largest_difference"] == pytest.approx(0.002)
    assert entry["accuracy"] == 0.9
    assert "error" not in entry


@pytest.mark.parametrize(("wrong", "difference"), [(0.75, 0.25), (float("nan"), 1.0)])
def test_answers_that_are_wrong_in_one_setting_have_no_accuracy_and_say_so(wrong, difference):
    entry = judged([[0.5, 0.25]] * 2, [[0.5, 0.25]], [[0.5, 0.25], [wrong, 0.25]], [[0.5, 0.25]])
    assert entry["largest_difference"] == difference
    assert entry["accuracy"] is None
    assert entry["error"] == (
        f"its answers are wrong: they differ from PyTorch's by {difference:.2f}"
    )


def test_int8_has_the_accuracy_of_its_file_where_it_answers_as_onnx_runtime_does():
    entry = judged([[0.5]], [[0.7]], evaluated=np.array([[0.7]]))
    assert (entry["accuracy"], entry["evaluated_difference"]) == (0.9, 0)
    assert entry["largest_difference"] == pytest.approx(0.2)
    entry = judged([[0.5]], [[0.5]], evaluated=np.array([[0.7]]))
    assert entry["accuracy"] is None
    assert "error" not in entry


def test_table_shows_how_far_answers_are_from_those_of_torch(result):
    from label2label.export.benchmark_report import markdown

    row = result["rows"]["tiny-onnx"]
    changed = {**row, "largest_difference": 0.7666, "error": "its answers are wrong"}
    table = markdown({**result, "rows": {**result["rows"], "tiny-onnx": changed}})
    head, _, *lines = table.split("\n\n")[0].splitlines()
    assert head.endswith("| accuracy | differs by |")
    assert lines[-1].endswith("| 8e-01 |")
    assert "Label2label, tiny, ONNX Runtime: its answers are wrong\n" in table


def test_plot_colours_every_row_of_ours_and_no_other(result):
    from label2label.export.benchmark_report import plot
    from matplotlib.colors import to_hex

    rows = {**result["rows"], "resnet50-224": result["rows"]["ours-torch"]}
    (axes,) = plot({**result, "rows": rows}).axes
    colours = [to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert len(colours) == 5
    assert sorted(map(colours.count, set(colours))) == [1, 4]


def test_ratios_are_to_our_onnx_file(result):
    ratios = result["ratios"]["ours-onnx"]
    assert ratios["ours-onnx"]["latency"] == 1
    assert ratios["ours-torch"]["latency"] > 0
    assert result["ratios"]["tiny-onnx"]["tiny-onnx"]["latency"] == 1


def test_sizes_are_of_the_model_and_its_files(result, backend):
    expected = measure_complexity(backend.model.config)
    row = result["rows"]["ours-onnx"]
    assert row["parameters"] == expected["parameters"]["all"]
    assert row["flops"] == expected["flops"]["all"]
    assert 0 < result["rows"]["ours-ncnn"]["file_bytes"] < row["file_bytes"]


def test_rows_name_the_weights_that_they_are_made_from(result, model_folder):
    tiny = Path(find_checkpoint("celeba-mobilefacenet-tiny"))
    for row, folder in (
        ("ours-torch", model_folder),
        ("ours-ncnn", model_folder),
        ("tiny-onnx", tiny),
    ):
        expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        assert result["rows"][row]["weights_sha256"] == expected


def test_accuracy_is_that_of_exactly_these_weights(result):
    accuracy = result["rows"]["ours-torch"]["accuracy"]
    assert accuracy == {
        "accuracy": 0.75,
        "name": "faces",
        "split": "test",
        "file": "test.json",
    }
    assert result["rows"]["ours-onnx"]["accuracy"] is None


def test_profile_accounts_for_every_flop_of_the_backbone(result, backend):
    profile = result["profile"]
    expected = measure_complexity(backend.model.config)["flops"]["backbone"]
    assert profile["backbone"]["flops"] == expected
    operators = {x["operator"]: x for x in profile["backbone"]["operators"]}
    assert operators["Conv 3x3"]["count"] == 1
    total = sum(x["milliseconds"] for x in operators.values())
    assert profile["backbone"]["milliseconds"] == pytest.approx(total)
    assert profile["backbone"]["fraction"] == pytest.approx(
        profile["backbone"]["gflops"] / profile["matmul_gflops"]
    )
    assert profile["model"]["milliseconds"] > 0


def test_accuracy_on_test_comes_before_validation(tmp_path):
    weights = tmp_path / "model.onnx"
    weights.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for name, split, value in (("a", "validation", 0.8), ("b", "test", 0.9), ("c", None, 0.1)):
        text = {
            "model": {"weights_sha256": digest if split else "others"},
            "dataset": {"name": "faces", "split": split},
            "accuracy": value,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(text))
    (tmp_path / "d.json").write_text("[]")
    assert find_accuracy(weights, tmp_path)["accuracy"] == 0.9
    (tmp_path / "b.json").unlink()
    assert find_accuracy(weights, tmp_path)["split"] == "validation"
    weights.write_bytes(b"other weights")
    assert find_accuracy(weights, tmp_path) is None


@pytest.fixture
def hub(model_folder, monkeypatch):
    """A Hub on this machine that holds the tiny model as `someone/faces`."""
    with HubServer() as server:
        server.add_user("someone", token="a-token")
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        files = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "a-token")
        push = ["push", "--model", str(model_folder), "--repo-id", "someone/faces"]
        assert main(push) == 0
        yield server


def test_rows_of_a_hub_id_are_of_the_folder_that_it_is_fetched_to(
    hub, model_folder, capsys, monkeypatch
):
    def tell(title, model, *more):
        raise UserError(model)

    monkeypatch.setattr(benchmark_rows, "our_rows", tell)
    capsys.readouterr()
    assert main(["benchmark", "--model", "someone/faces"]) == 2
    folder = Path(capsys.readouterr().err.removeprefix("error: ").rstrip())
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (folder / name).is_file()
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (model_folder / "model.safetensors").read_bytes()


def test_hub_id_of_no_model_is_one_line(hub, capsys):
    assert main(["benchmark", "--quick", "--model", "someone/none"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot load the model someone/none: ")
    assert error.count("\n") == 1


def test_row_that_cannot_run_says_why_and_ends(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    row = SimpleNamespace(
        name="row",
        runtime="onnxruntime",
        path=tmp_path / "model.onnx",
        image_size=8,
        expected=np.zeros(1),
    )
    worker = Worker(row, threads=1, batch=1)
    try:
        assert worker.error
    finally:
        worker.kill()


@pytest.mark.parametrize(
    ("option", "exported", "message"),
    [
        ("--int8", None, "file.onnx is no ONNX file that can run"),
        ("--int8", {"uint8_input": True}, "file.onnx takes uint8 pixels or known labels"),
        ("--int8", {"known_labels": True}, "file.onnx takes uint8 pixels or known labels"),
        ("--tiny-int8", {}, "file.onnx is of another model than"),
    ],
)
def test_int8_files_that_cannot_run_are_refused_before_anything_is_exported(
    option, exported, message, model_folder, backend, capsys, tmp_path, monkeypatch
):
    from label2label.export.onnx import export_onnx

    file = tmp_path / "file.onnx"
    if exported is None:
        file.write_bytes(b"no model")
    else:
        export_onnx(backend.model, backend.preprocessing, file, **exported)
    monkeypatch.setattr(benchmark_rows, "our_rows", lambda *args: pytest.fail("it exports"))
    assert main(["benchmark", "--quick", "--model", str(model_folder), option, str(file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "resnet"], "no row 'resnet': the rows are ours-torch"),
        (["--int8", "missing.onnx"], "missing.onnx does not exist"),
        (["--tiny-int8", "missing.onnx"], "--tiny-int8 missing.onnx does not exist"),
        (["--output", "speed.txt"], "ends in .json"),
        (["--model", "missing"], "missing does not exist"),
    ],
)
def test_options_that_will_not_do_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "--quick", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
