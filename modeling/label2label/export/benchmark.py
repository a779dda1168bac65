"""`label2label benchmark`: size and speed beside what a user might pick instead, in one run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from label2label.errors import UserError
from label2label.export.benchmark_answers import compare_answers, judge_answers
from label2label.export.benchmark_worker import RUNTIMES
from label2label.files import sha256

THREADS, BATCHES = (1, 2), (1, 32)
ROUNDS, ROUND_SECONDS = {1: 15, 32: 5}, 0.5
REFERENCES = ("ours-onnx", "ours-onnx-int8", "tiny-onnx")  # what the ratios are to
LIBRARIES = (
    "label2label",
    "ncnn",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "torch",
    "transformers",
)


class Worker:
    """A row's process, that holds its model and runs it when told.

    Args:
        row: of `benchmark_rows`.
        threads: of one inference.
        batch: images at once.
    """

    def __init__(self, row: Any, threads: int, batch: int) -> None:
        self.row = row
        specification = {
            "runtime": row.runtime,
            "path": str(row.path),
            "image_size": row.image_size,
            "threads": threads,
            "batch": batch,
        }
        numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "label2label.export.benchmark_worker",
                json.dumps(specification),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **numbers},
        )
        self.start = self._read()
        self.seconds: list[list[float]] = []  # of each run, by round
        self.cpu_seconds: list[float] = []  # of a run, on all threads, by round

    @property
    def error(self) -> str | None:
        """Why the row cannot run, or None."""
        return self.start.get("error")

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "its process ended without a word"}

    def warm_up(self, seconds: float) -> None:
        """Run twice, and see how many runs a round of so many seconds holds."""
        self._runs = max(1, min(100, int(seconds / self._ask(2)["seconds"][-1])))

    def measure(self) -> None:
        """Run a round."""
        answer = self._ask(self._runs)
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"] / self._runs)

    def _ask(self, runs: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{runs}\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise UserError(f"the benchmark's row {self.row.name} failed: {answer['error']}")
        return answer

    def stop(self) -> int:
        """End the process; returns its peak memory in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        answer = self._read()
        self._process.wait()
        return answer.get("peak_memory_bytes", 0)

    def kill(self) -> None:
        """End the process whatever it does."""
        self._process.kill()
        self._process.wait()


def benchmark_command(args: argparse.Namespace) -> int:
    """Run `label2label benchmark`.

    Args:
        args: `model` (folder, Hub id or None), `output` (JSON file, or None to print), `rows`
            (names, or None for all), `int8` and `tiny_int8` (ONNX files or None), `results` (folder
            of evaluations), `quick`.

    Returns:
        The exit code, 0.

    Raises:
        UserError: the model or an INT8 file will not do, or no row is left.
    """
    from label2label.checkpoints import find_checkpoint
    from label2label.export.benchmark_report import markdown, plot
    from label2label.export.benchmark_rows import ROW_NAMES

    model = find_checkpoint(args.model)
    if unknown := sorted(set(args.rows or ()) - set(ROW_NAMES)):
        raise UserError(f"no row {unknown[0]!r}: the rows are {', '.join(ROW_NAMES)}")
    names = [name for name in ROW_NAMES if name in (args.rows or ROW_NAMES)]
    for option, file in (("--int8", args.int8), ("--tiny-int8", args.tiny_int8)):
        if file and not Path(file).is_file():
            raise UserError(f"{option} {file} does not exist: `label2label export --int8` makes it")
    if args.output and Path(args.output).suffix != ".json":
        raise UserError(f"--output {args.output}: give a name that ends in .json")
    int8 = Path(args.int8) if args.int8 else None
    tiny_int8 = Path(args.tiny_int8) if args.tiny_int8 else None
    result = run_benchmark(model, names, int8, tiny_int8, Path(args.results), args.quick)
    print(markdown(result))
    if args.output:
        output = Path(args.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure = plot(result)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".benchmark.") as draft:
            Path(draft, output.name).write_text(json.dumps(result, indent=1) + "\n")
            Path(draft, f"{output.stem}.md").write_text(markdown(result))
            figure.savefig(Path(draft, f"{output.stem}.png"), dpi=150)
            figure.savefig(Path(draft, f"{output.stem}.svg"), metadata={"Date": None})
            for file in sorted(Path(draft).iterdir()):
                file.replace(output.parent / file.name)
    return 0


def run_benchmark(
    model: str,
    names: list[str],
    int8: Path | None,
    tiny_int8: Path | None,
    results: Path,
    quick: bool = False,
) -> dict[str, Any]:
    """Measure rows against each other.

    Args:
        model: folder or Hub id of ours.
        names: of the rows.
        int8: file of ours in INT8; one calibrated by noise where there is none.
        tiny_int8: the same of the tiny model that ships.
        results: folder of JSON files by `label2label evaluate`, for accuracy.
        quick: one thread, one image, two short rounds: to see that it works.

    Returns:
        `machine`, `settings`, `rows` by name, `ratios` by reference and name, `profile`. A row's
        `largest_difference` is the greatest one of a probability from PyTorch's in float32, on
        noise, over all threads and batches; `evaluated_difference` that from the answers which its
        `accuracy` is of, which is None where they are others. A row in float with wrong answers
        says so by its `error`.

    Raises:
        UserError: a model cannot be loaded or translated, or a row fails amid the run.
    """
    from label2label.checkpoints import find_checkpoint
    from label2label.export.benchmark_profile import profile_backbone
    from label2label.export.benchmark_rows import (
        OTHERS,
        OURS,
        TINY,
        TINY_CHECKPOINT,
        other_row,
        our_rows,
        refuse_int8,
    )
    from label2label.export.onnx import export_onnx
    from label2label.prediction.backends import TorchBackend

    model = find_folder(model)
    ours = (
        ("Label2label, MobileFaceNet", model, OURS, int8),
        ("Label2label, tiny", find_checkpoint(TINY_CHECKPOINT), TINY, tiny_int8),
    )
    for _, checkpoint, _, file in ours:
        if file:
            refuse_int8(file, checkpoint)
    rounds = dict.fromkeys(BATCHES, 2) if quick else ROUNDS
    seconds = 0.05 if quick else ROUND_SECONDS
    with tempfile.TemporaryDirectory(prefix="label2label-benchmark-") as scratch:
        folder = Path(scratch)
        rows = []
        for title, checkpoint, kinds, file in ours:
            if chosen := [name for name in names if name in kinds]:
                part = folder / chosen[0]
                part.mkdir()
                rows += our_rows(title, checkpoint, chosen, part, file)
        others = [name for name in names if name in OTHERS]
        for name in tqdm(others, desc="export", unit="model", disable=not others):
            rows.append(other_row(name, folder))
        entries = {row.name: _describe(row, results) for row in rows}
        ratios: dict[str, dict[str, Any]] = {}
        for threads in THREADS[:1] if quick else THREADS:
            for batch in BATCHES[:1] if quick else BATCHES:
                workers = _measure(rows, threads, batch, rounds[batch], seconds, entries)
                if (threads, batch) == (1, 1):
                    ratios = _ratios(workers)
        for row in rows:
            judge_answers(row, entries[row.name])
        backend = TorchBackend.from_pretrained(model)
        network, preprocessing = backend.model.cpu(), backend.preprocessing
        backbone, whole = folder / "backbone.onnx", folder / "whole.onnx"
        export_onnx(network, preprocessing, backbone, backbone_only=True)
        export_onnx(network, preprocessing, whole)
        repeats = 5 if quick else 100
        profile = profile_backbone(backbone, whole, preprocessing.crop_size, repeats)
    return {
        "machine": describe_machine(),
        "settings": {"quick": quick, "rounds": rounds, "round_seconds": seconds},
        "rows": entries,
        "ratios": ratios,
        "profile": profile,
    }


def find_folder(model: str) -> str:
    """The folder of a model, fetched where it is a Hub id.

    Args:
        model: folder or Hub id.

    Returns:
        The folder; of a Hub id, that of its snapshot in the Hub's cache.

    Raises:
        UserError: the Hub has no such model.
    """
    from huggingface_hub import snapshot_download

    from label2label.prediction.backends import load_model

    if Path(model).is_dir():
        return model
    load_model(model)  # says in one line what is no model
    return snapshot_download(model, allow_patterns=["*.json", "*.safetensors"])


def _measure(
    rows: Iterable[Any],
    threads: int,
    batch: int,
    rounds: int,
    seconds: float,
    entries: dict[str, Any],
) -> list[Worker]:
    """Run all rows in turns; adds what was measured to their entries."""
    workers: list[Worker] = []
    title = f"{threads} thread{'s' * (threads > 1)}, batch {batch}"
    try:
        for row in tqdm(list(rows), desc=f"load ({title})", unit="row"):
            worker = Worker(row, threads, batch)
            workers.append(worker)
            if worker.error:
                entries[row.name]["error"] = worker.error
            else:
                worker.warm_up(seconds)
        running = [worker for worker in workers if not worker.error]
        for _ in tqdm(range(rounds), desc=f"run ({title})", unit="round"):
            for worker in running:
                worker.measure()
        for worker in running:
            entry = entries[worker.row.name]
            entry["measurements"].append(_summarise(worker, threads, batch, worker.stop()))
            compare_answers(worker.row, np.array(worker.start["probabilities"]), entry)
    finally:
        for worker in workers:
            worker.kill()
    return running


def _summarise(worker: Worker, threads: int, batch: int, peak_memory: int) -> dict[str, Any]:
    milliseconds = 1e3 * np.concatenate(worker.seconds)
    medians = [1e3 * float(np.median(x)) for x in worker.seconds]
    median = float(np.median(milliseconds))
    return {
        "threads": threads,
        "batch": batch,
        "runs": len(milliseconds),
        "latency_p50_ms": median,
        "latency_p95_ms": float(np.percentile(milliseconds, 95)),
        "round_medians_ms": [min(medians), max(medians)],
        "images_per_second": 1e3 * batch / median,
        "cpu_seconds_per_image": float(np.median(worker.cpu_seconds)) / batch,
        "peak_memory_bytes": peak_memory,
        **{f"{part}_seconds": worker.start[f"{part}_seconds"] for part in _STARTS},
    }


_STARTS = ("import", "load", "first_prediction")


def _ratios(workers: list[Worker]) -> dict[str, dict[str, Any]]:
    """How many times a reference's latency every other row takes, round by round."""

    def medians(samples: list[list[float]]) -> np.ndarray:
        return np.array([np.median(x) for x in samples])

    ratios: dict[str, dict[str, Any]] = {}
    for reference in workers:
        if reference.row.name not in REFERENCES:
            continue
        ratios[reference.row.name] = {}
        for worker in workers:
            latency = medians(worker.seconds) / medians(reference.seconds)
            cpu = np.array(worker.cpu_seconds) / np.array(reference.cpu_seconds)
            ratios[reference.row.name][worker.row.name] = {
                "latency": float(np.median(latency)),
                "latency_quartiles": [float(np.quantile(latency, q)) for q in (0.25, 0.75)],
                "cpu_seconds": float(np.median(cpu)),
            }
    return ratios


def _describe(row: Any, results: Path) -> dict[str, Any]:
    return {
        "title": row.title,
        "runtime": RUNTIMES[row.runtime][0],
        "image_size": row.image_size,
        "parameters": row.parameters,
        "flops": row.flops,
        "weights_sha256": row.weights_sha256,
        "file_bytes": sum(file.stat().st_size for file in row.files),
        "accuracy": find_accuracy(row.files[0], results),
        "largest_difference": None,
        "evaluated_difference": None,
        "measurements": [],
    }


def find_accuracy(weights: Path, results: Path) -> dict[str, Any] | None:
    """The accuracy that `label2label evaluate` measured of exactly these weights.

    Args:
        weights: a model's `model.safetensors` or ONNX file.
        results: folder of its JSON files.

    Returns:
        `accuracy`, 0 to 1, of which `dataset` and `split`, and the `file` that says so; of the
        split `test` where several do; None where none does.
    """
    digest = sha256(weights)
    found = []
    for file in sorted(results.rglob("*.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
            if result["model"]["weights_sha256"] == digest:
                dataset = result["dataset"]
                entry = {"accuracy": result["accuracy"], **dataset, "file": file.name}
                found.append((dataset["split"] != "test", entry))
        except (KeyError, TypeError, ValueError):
            continue  # a result of another command
    return min(found, key=lambda pair: pair[0])[1] if found else None


def describe_machine() -> dict[str, Any]:
    """The processor's name and cores, the system, and versions of what ran."""
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }
