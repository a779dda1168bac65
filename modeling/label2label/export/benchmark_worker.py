"""One row of the benchmark in a process of its own: loads a model, then runs it when told.

`python -m label2label.export.benchmark_worker SPECIFICATION` writes a line of JSON when the model
is loaded, and one for each number of runs that it reads: the seconds of each, and those of the
processor for all of them, on all threads. At the end of its input, its peak memory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def random_images(batch: int, size: int) -> np.ndarray:
    """The benchmark's images: noise, normalised, float32 (batch, 3, size, size).

    Args:
        batch: images; the first ones are the same in every batch.
        size: height and width in pixels.

    Returns:
        The images.
    """
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)


def load_torch(path: str, threads: int, shape: tuple[int, ...], compiled: bool = False) -> Run:
    """A model's folder in PyTorch, by operators as they come or by `torch.compile`."""
    import torch

    from label2label.prediction.backends import load_model

    torch.set_num_threads(threads)
    model: Any = load_model(path)[0]
    run: Any = torch.compile(model) if compiled else model

    def predict(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return run(torch.from_numpy(pixels)).logits.sigmoid().numpy()

    return predict


def load_torch_compile(path: str, threads: int, shape: tuple[int, ...]) -> Run:
    """A model's folder by `torch.compile`, which needs a C++ compiler."""
    return load_torch(path, threads, shape, compiled=True)


def load_onnxruntime(path: str, threads: int, shape: tuple[int, ...]) -> Run:
    """An ONNX file by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def load_openvino(path: str, threads: int, shape: tuple[int, ...]) -> Run:
    """An ONNX file by OpenVINO, in float32 where a processor would tempt it to bfloat16."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    properties: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", properties)
    return lambda pixels: compiled(pixels)[0]


def load_ncnn(path: str, threads: int, shape: tuple[int, ...]) -> Run:
    """`label2label export --ncnn`'s files by ncnn, which takes one image at a time."""
    from label2label.export.ncnn import NcnnModel

    model = NcnnModel(Path(path), threads)
    return lambda pixels: np.stack([model.predict(image) for image in pixels])


RUNTIMES: dict[str, tuple[str, str, Callable[[str, int, tuple[int, ...]], Run]]] = {
    # Title, Python module, loader.
    "torch": ("PyTorch", "torch", load_torch),
    "torch-compile": ("PyTorch, compiled", "torch", load_torch_compile),
    "onnxruntime": ("ONNX Runtime", "onnxruntime", load_onnxruntime),
    "openvino": ("OpenVINO", "openvino", load_openvino),
    "ncnn": ("ncnn", "ncnn", load_ncnn),
}


def peak_memory() -> int:
    """Most memory that this process held, in bytes.

    Not by `getrusage` where it can be helped: there a child begins at its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> int:
    """Serve one row.

    Returns:
        The exit status: 0, or 1 where the model cannot run, said in the first line's `error`.
    """
    # What libraries print must not stand between the lines of JSON.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    row = json.loads(sys.argv[1])
    pixels = random_images(row["batch"], row["image_size"])
    _, module, load = RUNTIMES[row["runtime"]]
    try:
        started = time.perf_counter()
        importlib.import_module(module)
        imported = time.perf_counter()
        run = load(row["path"], row["threads"], pixels.shape)
        loaded = time.perf_counter()
        output = run(pixels)
        predicted = time.perf_counter()
    except Exception as error:  # of any library: the other rows go on
        answer({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
        return 1
    answer(
        {
            "import_seconds": imported - started,
            "load_seconds": loaded - imported,
            "first_prediction_seconds": predicted - loaded,
            "probabilities": output.tolist(),
        }
    )
    for line in sys.stdin:
        seconds = []
        # Over all runs: the system books other threads' time by its ticks, of some milliseconds.
        cpu = time.process_time()
        for _ in range(int(line)):
            wall = time.perf_counter()
            run(pixels)
            seconds.append(time.perf_counter() - wall)
        answer({"seconds": seconds, "cpu_seconds": time.process_time() - cpu})
    answer({"peak_memory_bytes": peak_memory()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
