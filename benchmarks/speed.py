"""Measure size and speed of the models that ship, beside what one might use instead.

    make benchmark DATA=data/celeba

or, for some rows, `python benchmarks/speed.py --rows ours-onnx mobilenet-v2`. Each row keeps its
model loaded in its own process; the rows run in turn, round by round, so that other load on the
machine slows all of them alike. Ratios are medians over rounds. Images are noise, and models
without public weights have random ones, which does not change their speed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Worker,
    command_line,
    describe_machine,
    finish,
    peak_memory,
    percentiles,
    serve_answers,
    write_json,
)
from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError, join_lines
from label2label.files import sha256
from tqdm import tqdm

ROUNDS, ROUND_SECONDS = {1: 15, 32: 5}, 0.5  # rounds by batch size
REFERENCE = "ours-onnx"
TOLERANCE = 1e-2  # maximum difference of a probability: float16 differs by 2e-3; INT8 is exempt
NUM_LABELS = 40
OURS = {  # by row: shipped model (None: the default one) and runtime
    "ours-torch": (None, "torch"),
    "ours-torch-compile": (None, "torch-compile"),
    "ours-onnx": (None, "onnxruntime"),
    "ours-onnx-int8": (None, "onnxruntime"),
    "ours-openvino": (None, "openvino"),
    "ours-openvino-int8": (None, "openvino"),
    "ours-ncnn": (None, "ncnn"),
    "tiny-onnx": ("mobilefacenet-tiny", "onnxruntime"),
    "tiny-onnx-int8": ("mobilefacenet-tiny", "onnxruntime"),
}
OTHERS = {  # by row: title and image size; `build_other` builds them
    "original": ("Label2label's original shape (ResNet-50, hidden 2048)", 250),
    "resnet50-224": ("ResNet-50 and our head", 224),
    "resnet50-112": ("ResNet-50 and our head", 112),
    "mobilenet-v2": ("MobileNetV2 and a linear head", 224),
    "mobilevit-small": ("MobileViT-small and a linear head", 256),
}


@dataclass(frozen=True)
class Row:
    """One model in one runtime."""

    name: str
    path: Path
    files: tuple[Path, ...]  # whose sizes are added up
    facts: dict[str, Any]  # `title`, `runtime`, `image_size` and other constants of the result
    expected: np.ndarray  # PyTorch's probabilities (images, attributes) of the first images


def noise(batch: int, size: int) -> np.ndarray:
    """Draw normalised float32 images (batch, 3, size, size); larger batches only add images."""
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)


# The rows


def our_rows(names: list[str], folder: Path) -> list[Row]:
    """Return the rows of `OURS`, by the files that ship; ncnn's are exported to a folder."""
    import torch
    from complexity import measure_complexity
    from label2label.export.ncnn import NCNN_FILES, export_ncnn
    from label2label.prediction.backends import TorchBackend

    rows = []
    for model in dict.fromkeys(OURS[name][0] for name in names):
        checkpoint = Path(find_checkpoint(model))
        backend = TorchBackend.from_pretrained(str(checkpoint))
        network, size = backend.model.cpu(), backend.preprocessing.crop_size
        with torch.inference_mode():
            expected = network(torch.from_numpy(noise(32, size))).logits.sigmoid().numpy()
        complexity = measure_complexity(network.config, size)
        for name in (name for name in names if OURS[name][0] == model):
            runtime, is_int8 = OURS[name][1], name.endswith("int8")
            if runtime == "ncnn":
                export_ncnn(network, backend.preprocessing, folder)
                path, files = folder, tuple(folder / file for file in NCNN_FILES)
            elif runtime.startswith("torch"):
                path, files = checkpoint, (checkpoint / "model.safetensors",)
            else:
                path = checkpoint / ("model_int8.onnx" if is_int8 else "model.onnx")
                files = (path,)
            facts = {
                "title": checkpoint.name + (" in INT8" if is_int8 else ""),
                "runtime": runtime,
                "image_size": size,
                "parameters": complexity["parameters"]["all"],
                "flops": complexity["flops"]["all"],
                "weights_sha256": sha256(checkpoint / "model.safetensors"),
            }
            rows.append(Row(name, path, files, facts, expected))
    return rows


def build_other(name: str) -> Any:
    """Build a model of `OTHERS` with random weights, in evaluation mode."""
    import torch
    import transformers as hf
    from complexity import original_label2label
    from label2label.models import Label2LabelConfig, Label2LabelForImageClassification

    torch.manual_seed(0)
    if name == "mobilenet-v2":
        config = hf.MobileNetV2Config(num_labels=NUM_LABELS)
        model: Any = hf.MobileNetV2ForImageClassification(config)
    elif name == "mobilevit-small":
        config = hf.MobileViTConfig(num_labels=NUM_LABELS)
        model = hf.MobileViTForImageClassification(config)
    elif name == "original":
        model = Label2LabelForImageClassification(original_label2label())
    else:
        backbone = hf.ResNetConfig(out_features=["stage4"])
        config = Label2LabelConfig(backbone_config=backbone, num_labels=NUM_LABELS)
        model = Label2LabelForImageClassification(config)
    # Set BatchNorm's statistics on noise: otherwise activations shrink layer by layer to denormal
    # numbers, which are slow.
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.from_numpy(noise(2, OTHERS[name][1])))
    return model.eval()


def other_row(name: str, folder: Path) -> Row:
    """Build a model of `OTHERS` and export it to ONNX in the same way as ours."""
    import onnx
    import torch
    from complexity import count_flops, count_parameters
    from label2label.export.onnx import translate

    title, size = OTHERS[name]
    model = build_other(name)

    class Probabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values).logits.sigmoid()

    wrapper, path = Probabilities().eval(), folder / f"{name}.onnx"
    with torch.inference_mode():
        expected = wrapper(torch.from_numpy(noise(1, size))).numpy()
    flops = count_flops(model, torch.empty(1, 3, size, size))
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    inputs = {"pixel_values": torch.zeros(2, 3, size, size)}
    onnx.save(translate(wrapper, inputs, ["probabilities"]), path)
    facts = {
        "title": title,
        "runtime": "onnxruntime",
        "image_size": size,
        "parameters": count_parameters(model),
        "flops": flops,
        "weights_sha256": None,
    }
    return Row(name, path, (path,), facts, expected)


# A row's process

Run = Callable[[np.ndarray], np.ndarray]


def load(runtime: str, path: str, threads: int, shape: tuple[int, ...]) -> Run:
    """Load a model as a function from normalised images of one shape to probabilities."""
    if runtime.startswith("torch"):
        import torch
        from label2label.prediction.backends import load_model

        torch.set_num_threads(threads)
        model: Any = load_model(path)[0]
        model = torch.compile(model) if runtime == "torch-compile" else model

        def predict(pixels: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(pixels)).logits.sigmoid().numpy()

        return predict
    if runtime == "openvino":
        import openvino

        core = openvino.Core()
        network = core.read_model(path)
        network.reshape(list(shape))
        properties: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # the default may be bfloat16 on some processors
        }
        compiled = core.compile_model(network, "CPU", properties)
        return lambda pixels: compiled(pixels)[0]
    if runtime == "ncnn":
        return load_ncnn(Path(path), threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixel_values": pixels})[0]


def load_ncnn(folder: Path, threads: int) -> Run:
    """Load the files of `label2label export --ncnn`, which take one image at a time."""
    import ncnn
    from label2label.export.ncnn import NCNN_FILES

    net = ncnn.Net()
    net.opt.num_threads = threads
    param, weights = (str(folder / name) for name in NCNN_FILES)
    if net.load_param(param) or net.load_model(weights):
        raise UserError(f"{folder} contains no model that ncnn can run")

    def predict(image: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image)))
        return np.array(extractor.extract("out0")[1])

    return lambda pixels: np.stack([predict(image) for image in pixels])


def serve(specification: str) -> None:
    """Serve one row: answer once it is loaded, and for each number of runs read."""
    answer, row = serve_answers(), json.loads(specification)
    pixels = noise(row["batch"], row["image_size"])
    try:
        started = time.perf_counter()
        importlib.import_module(row["runtime"].removesuffix("-compile"))
        run = load(row["runtime"], row["path"], row["threads"], pixels.shape)
        output = run(pixels)
        seconds = time.perf_counter() - started
    except Exception as error:  # any library's error: the other rows continue
        return answer({"error": f"{type(error).__name__}: {join_lines(error)}"})
    answer({"start_seconds": seconds, "probabilities": output.tolist()})
    for line in sys.stdin:
        times, cpu = [], time.process_time()
        for _ in range(int(line)):
            started = time.perf_counter()
            run(pixels)
            times.append(time.perf_counter() - started)
        cpu_seconds, peak = time.process_time() - cpu, peak_memory()
        answer({"seconds": times, "cpu_seconds": cpu_seconds, "peak_memory_bytes": peak})


def measure(
    rows: list[Row], threads: int, batch: int, rounds: int, seconds: float, entries: dict[str, Any]
) -> None:
    """Run all rows in turn and add the measurements to their entries."""
    title = f"{threads} thread{'s' * (threads > 1)}, batch {batch}"
    with contextlib.ExitStack() as stack:
        running: list[tuple[Row, Worker, int, list[dict[str, Any]]]] = []
        for row in tqdm(rows, desc=f"load ({title})", unit="row"):
            asked = {name: row.facts[name] for name in ("runtime", "image_size")}
            asked |= {"path": str(row.path), "threads": threads, "batch": batch}
            worker = Worker(__file__, asked, threads)
            stack.callback(worker.process.kill)
            if "error" in worker.start:
                entries[row.name]["error"] = worker.start["error"]
                continue
            runs = max(1, min(100, int(seconds / worker.ask(2)["seconds"][-1])))
            running.append((row, worker, runs, []))
        for _ in tqdm(range(rounds), desc=f"run ({title})", unit="round"):
            for _, worker, runs, answers in running:
                answers.append(worker.ask(runs))
        medians = {
            row.name: np.array([np.median(answer["seconds"]) for answer in answers])
            for row, _, _, answers in running
        }
        for row, worker, _, answers in running:
            entry = entries[row.name]
            times = 1e3 * np.concatenate([answer["seconds"] for answer in answers])
            found = np.array(worker.start["probabilities"])
            images = min(len(found), len(row.expected))
            difference = float(np.abs(found[:images] - row.expected[:images]).max())
            entry["largest_difference"] = max(entry["largest_difference"] or 0.0, difference)
            if "int8" not in row.name and not difference <= TOLERANCE:
                entry["error"] = f"its probabilities differ from PyTorch's by {difference:.2f}"
            ratios = None
            if REFERENCE in medians:
                ratios = float(np.median(medians[row.name] / medians[REFERENCE]))
            cpu = [answer["cpu_seconds"] / len(answer["seconds"]) for answer in answers]
            entry["measurements"].append(
                {
                    "threads": threads,
                    "batch": batch,
                    "runs": len(times),
                    **{f"{name}_ms": value for name, value in percentiles(times).items()},
                    "times_as_long": ratios,
                    "cpu_ms_per_image": 1e3 * float(np.median(cpu)) / batch,
                    "start_seconds": worker.start["start_seconds"],
                    "peak_memory_bytes": answers[-1]["peak_memory_bytes"],
                }
            )


def main() -> None:
    """Measure the rows in turn, by threads and batch size."""
    parser = command_line(__doc__)
    names = [*OURS, *OTHERS]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, help="these alone")
    parser.add_argument("--quick", action="store_true", help="two short rounds: does it work?")
    parser.add_argument("--output", type=Path, default=Path("results/speed.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="label2label-speed-") as scratch:
        rows = our_rows([name for name in OURS if name in args.rows], Path(scratch))
        rows += [other_row(name, Path(scratch)) for name in OTHERS if name in args.rows]
        entries = {
            row.name: {
                **row.facts,
                "file_bytes": sum(file.stat().st_size for file in row.files),
                "largest_difference": None,
                "measurements": [],
            }
            for row in rows
        }
        for threads in (1,) if args.quick else (1, 2):
            for batch in (1,) if args.quick else ROUNDS:
                rounds, seconds = (2, 0.05) if args.quick else (ROUNDS[batch], ROUND_SECONDS)
                measure(rows, threads, batch, rounds, seconds, entries)
    write_json(args.output, {"machine": describe_machine(), "rows": entries})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        sys.exit(finish(main))
