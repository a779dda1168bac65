"""Where the time of an ONNX file goes, by operator, beside what the machine can do at best."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from label2label.export.benchmark_worker import random_images

MATRIX = 1024  # side of the matrices that measure the machine


def profile_backbone(
    backbone: Path, whole: Path, image_size: int, repeats: int = 100
) -> dict[str, Any]:
    """Compare a backbone's speed with matrix multiplication by the same library, one thread, batch
    1, and see where the time goes.

    Args:
        backbone: ONNX file of the backbone alone.
        whole: ONNX file of the whole model.
        image_size: height and width in pixels.
        repeats: of each; matrix multiplications stand between the runs.

    Returns:
        `matmul_gflops`, the machine's rate; of `backbone` and of `model` each `milliseconds` (sum
        of its operators' medians) and `operators`, slowest first: `operator`, `count`,
        `milliseconds`, and for convolutions `gflops`, and `fraction` of the machine's rate. Of the
        backbone also `gflops` and `fraction` of all its convolutions over all its time.
    """
    multiply = _matrix_multiplication()
    result: dict[str, Any] = {"matmul_gflops": 0.0}
    seconds: list[float] = []
    for name, path in (("backbone", backbone), ("model", whole)):
        operators = _profile(path, image_size, repeats, lambda: seconds.append(multiply()))
        total = sum(x["milliseconds"] for x in operators)
        result[name] = {"milliseconds": total, "operators": operators}
    rate = 2 * MATRIX**3 / float(np.median(seconds)) / 1e9
    result["matmul_gflops"] = rate
    for part in (result["backbone"], result["model"]):
        for operator in part["operators"]:
            flops = operator.pop("flops")
            if flops:
                operator["gflops"] = flops / operator["milliseconds"] / 1e6
                operator["fraction"] = operator["gflops"] / rate
            part["flops"] = part.get("flops", 0) + flops
    part = result["backbone"]
    part["gflops"] = part["flops"] / part["milliseconds"] / 1e6
    part["fraction"] = part["gflops"] / rate
    del result["model"]["flops"]  # of convolutions alone: the head has other products too
    return result


def _session(model: Path | bytes, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _matrix_multiplication() -> Callable[[], float]:
    """A function that multiplies two matrices and returns its seconds on the processor.

    Not by the clock on the wall: other work on the machine interrupts what takes so long.
    """
    shape = [MATRIX, MATRIX]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "abc"]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "matmul", tensors[:2], tensors[2:])
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    session = _session(model.SerializeToString())
    values = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    inputs = {"a": values[0], "b": values[1]}
    session.run(None, inputs)

    def multiply() -> float:
        started = time.thread_time()
        session.run(None, inputs)
        return time.thread_time() - started

    return multiply


def _profile(
    path: Path, image_size: int, repeats: int, between: Callable[[], None]
) -> list[dict[str, Any]]:
    pixels = random_images(1, image_size)
    with tempfile.TemporaryDirectory() as scratch:
        session = _session(path, Path(scratch, "profile"))
        inputs = {session.get_inputs()[0].name: pixels}
        for _ in range(repeats):
            session.run(None, inputs)
            between()
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["name"]].append(event)
    found: dict[str, dict[str, Any]] = {}
    for runs in nodes.values():
        title, flops = _describe(runs[-1]["args"])
        entry = found.setdefault(
            title, {"operator": title, "count": 0, "milliseconds": 0.0, "flops": 0}
        )
        entry["count"] += 1
        entry["milliseconds"] += float(np.median([run["dur"] for run in runs])) / 1e3
        entry["flops"] += flops
    return sorted(found.values(), key=lambda entry: -entry["milliseconds"])


def _describe(arguments: dict[str, Any]) -> tuple[str, int]:
    """An operator's name, which tells kinds of convolutions apart, and a convolution's FLOPs."""
    name = arguments["op_name"]
    if name != "Conv":
        return name, 0
    weight = next(iter(arguments["input_type_shape"][1].values()))
    output = next(iter(arguments["output_type_shape"][0].values()))
    kind = f"{weight[2]}x{weight[3]}"
    if weight[1] == 1:
        kind += " depthwise"
    return f"Conv {kind}", 2 * math.prod(output) * math.prod(weight[1:])
