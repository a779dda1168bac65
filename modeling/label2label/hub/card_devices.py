"""The model card's section of speed and size on a processor, beside what else one might pick."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult

from label2label.hub.card_tables import number, table
from label2label.hub.measurements import CardSection, Measurements, dataset_title


def devices_section(measured: Measurements) -> CardSection | None:
    """One face on one thread, by runtime and by model, from one interleaved run."""
    benchmark = measured.get("benchmark")
    reference = _own_reference(measured, benchmark) if benchmark else None
    if reference is None:
        return None
    ratios = benchmark["ratios"][reference]
    rows, figures = [], []
    for name, row in benchmark["rows"].items():
        alone = _one_face(row)
        if alone is None:
            continue
        if row["weights_sha256"] == measured.weights_sha256:
            figures += _figures(row, alone)
        accuracy = row["accuracy"]
        rows.append(
            (
                f"{row['title']}, {row['image_size']}x{row['image_size']}",
                row["runtime"],
                f"{row['file_bytes'] / 1e6:.2f} MB",
                number(accuracy["accuracy"]) if accuracy else "",
                f"{alone['latency_p50_ms']:.1f} ms",
                f"{alone['peak_memory_bytes'] / 1e6:.0f} MB",
                f"{ratios[name]['latency']:.2f}",
            )
        )
    machine = benchmark["machine"]
    return CardSection(
        "\n\n".join(
            [
                "## On a processor",
                f"One face at a time on one thread of {machine['processor']}, by `label2label "
                "benchmark`: medians of interleaved rounds, each row in a process of its own. The "
                "last column says how many times as long a row takes as this model in ONNX "
                "Runtime. Models without an accuracy have random weights, which are as fast as "
                "any.",
                table(
                    ("model", "runtime", "file", "accuracy", "a face", "memory", "times"),
                    rows,
                ),
            ]
        ),
        figures,
    )


def _figures(row: dict[str, Any], alone: dict[str, Any]) -> list[EvalResult]:
    """A row of this model for the metadata: how long a face takes, and its accuracy."""
    title = f"{row['title']}, {row['runtime']}"
    figures = [
        EvalResult(
            task_type="image-classification",
            task_name="Facial attributes",
            dataset_type="noise",
            dataset_name="Random images, one at a time on one thread",
            metric_type="latency",
            metric_name=f"Milliseconds, {title}",
            metric_value=round(alone["latency_p50_ms"], 1),
        )
    ]
    if row["accuracy"]:
        figures.append(
            EvalResult(
                task_type="image-classification",
                task_name="Facial attributes",
                dataset_type=row["accuracy"]["name"],
                dataset_name=dataset_title({"dataset": row["accuracy"]}),
                dataset_split=row["accuracy"]["split"],
                metric_type="accuracy",
                metric_name=f"Accuracy, {title}",
                metric_value=row["accuracy"]["accuracy"],
            )
        )
    return figures


def _own_reference(measured: Measurements, benchmark: dict[str, Any]) -> str | None:
    """The row of these weights in float that the others are compared to; None where none is."""
    for name in benchmark["ratios"]:
        own = benchmark["rows"][name]["weights_sha256"] == measured.weights_sha256
        if own and not name.endswith("int8"):
            return name
    return None


def _one_face(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row's measurement by one thread and one face; None where it could not run."""
    return next((m for m in row["measurements"] if (m["threads"], m["batch"]) == (1, 1)), None)
