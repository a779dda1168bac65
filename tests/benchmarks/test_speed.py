"""The speed of a row is measured in a process of its own, and only of right answers."""

import json
import sys

import pytest

pytest.importorskip("onnx")


@pytest.fixture
def speed(load_benchmark):
    return load_benchmark("speed")


def run(speed, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["speed.py", *map(str, arguments)])
    return speed.finish(speed.main)


@pytest.mark.slow
def test_rows_are_measured_against_each_other(speed, monkeypatch, tmp_path):
    output = tmp_path / "speed.json"
    assert run(speed, monkeypatch, "--quick", "--rows", "ours-onnx", "tiny-onnx", "mobilenet-v2",
               "--output", output) == 0  # fmt: skip
    result = json.loads(output.read_text())
    assert list(result["rows"]) == ["ours-onnx", "tiny-onnx", "mobilenet-v2"]
    for row in result["rows"].values():
        assert "error" not in row
        assert row["largest_difference"] < 1e-4
        (measured,) = row["measurements"]
        assert measured["p50_ms"] <= measured["p95_ms"]
        assert measured["times_as_long"] > 0
        assert measured["peak_memory_bytes"] > 10e6
    assert result["rows"]["ours-onnx"]["measurements"][0]["times_as_long"] == 1
    sizes = [row["parameters"] for row in result["rows"].values()]
    assert sizes[1] < sizes[0] < sizes[2]


def test_a_row_that_cannot_run_says_why_and_a_wrong_one_too(speed, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    shapes = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("pixel_values", "p")
    ]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", ["pixel_values"], ["p"])], "g", *[[x] for x in shapes]
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "good.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    pixels = speed.noise(1, 8)
    facts = {"runtime": "onnxruntime", "image_size": 8}
    answers = {"good": 1 / (1 + speed.np.exp(-pixels)), "wrong": 0 * pixels, "bad": pixels}
    rows, entries = [], {}
    for name, expected in answers.items():
        path = tmp_path / ("bad.onnx" if name == "bad" else "good.onnx")
        rows.append(speed.Row(name, path, (path,), facts, expected))
        entries[name] = {"largest_difference": None, "measurements": []}
    speed.measure(rows, 1, 1, 2, 0.01, entries)
    assert "error" not in entries["good"]
    assert entries["good"]["largest_difference"] < 1e-6
    assert "differ from PyTorch's by" in entries["wrong"]["error"]
    assert entries["bad"]["error"]
    assert entries["bad"]["measurements"] == []
