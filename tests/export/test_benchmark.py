"""The benchmark measures what it says: the right files, in turns, each in a process of its own."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from label2label.checkpoints import find_checkpoint
from label2label.cli import main
from label2label.export.benchmark import Worker, find_accuracy
from label2label.export.complexity import measure_complexity

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
