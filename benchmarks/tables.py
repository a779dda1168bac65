"""Fill the tables of the documents from the JSON files under results/.

    python benchmarks/tables.py              # README, model_card, SECURITY and docs/*.md
    python benchmarks/tables.py docs/devices.md

Each table stands between a pair of markers, which name the function in this file that builds it;
the text between them is replaced.

    <!-- table: speed -->
    <!-- end -->

A new table is a function that takes `read`, which loads a file under results/ by its name without
suffix, and returns rows of cells, the header first. A test fails if a document and the JSON
disagree, or if no document shows a file under results/.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from common import command_line, finish
from label2label.errors import UserError
from label2label.evaluation import format_p_value
from label2label.files import write_whole

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Read = Callable[[str], Any]
Rows = Iterable[Sequence[str]]
TABLES: dict[str, Callable[[Read], Rows]] = {}


def table(function: Callable[[Read], Rows]) -> Callable[[Read], Rows]:
    """Register a table under its function's name, with hyphens."""
    TABLES[function.__name__.replace("_", "-")] = function
    return function


def documents() -> list[Path]:
    """List the documents that may hold tables."""
    top = [ROOT / name for name in ("README.md", "model_card.md", "SECURITY.md")]
    return [*top, *sorted((ROOT / "docs").glob("*.md"))]


def read_result(name: str) -> Any:
    """Read `results/NAME.json`.

    Raises:
        UserError: The file does not exist or is not JSON.
    """
    path = RESULTS / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def markdown(rows: Rows) -> str:
    """Format rows as a Markdown table, the first column left-aligned, the others right-aligned."""
    header, *body = [list(map(str, row)) for row in rows]
    rule = [":---", *["---:"] * (len(header) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *body])


def fill(text: str, read: Read = read_result) -> str:
    """Replace the content of every table in a document.

    Args:
        text: Markdown with marked tables.
        read: Loads a result by name.

    Returns:
        The text with up-to-date tables.

    Raises:
        UserError: No table has the marker's name, a marker has no end, or a result lacks a value.
    """

    def current(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise UserError(f"no table {name!r}: the tables are {', '.join(TABLES)}")
        try:
            return match[1] + markdown(TABLES[name](read)) + match[3]
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"the table {name}: a result lacks {error}") from error

    filled = MARKED.sub(current, text)
    if filled.count("<!-- table:") != len(MARKED.findall(filled)):
        raise UserError("a table has no `<!-- end -->`")
    return filled


# Number formats


def between(ends: Sequence[float], form: str = ".4f") -> str:
    """Format a 95 % interval."""
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def estimate(entry: dict[str, Any], form: str = ".3f") -> str:
    """Format a value with its 95 % interval."""
    return f"{entry['value']:{form}} ({between(entry['interval'], form)})"


def millions(number: float, digits: int = 2) -> str:
    """Format a number of parameters or bytes in millions."""
    return f"{number / 1e6:.{digits}f}"


# The tables. Results of the default model are directly in results/.

TINY = "mobilefacenet-tiny"
# As published, on CelebA: accuracy, and parameters and FLOPs of the backbone alone.
PUBLISHED = (
    ("MobileFaceNet Label2label (2024), backbone", "1.0", "0.45", "0.8810"),
    ("ResNet-50 Label2label (2024), backbone", "40.29", "2.19", "0.8813"),
    ("Slim-CNN (arXiv:1907.02157)", "", "", "0.9124"),
)


@table
def results(read: Read) -> Rows:
    """Compare size, speed and accuracy of the shipped models with published figures."""
    yield "model", "parameters, M", "GFLOPs", "ms", "file, MB", "accuracy", "95 % interval"
    rows = read("speed")["rows"]

    def speed_of(name: str) -> tuple[str, str]:
        one = next(m for m in rows[name]["measurements"] if (m["threads"], m["batch"]) == (1, 1))
        return f"{one['p50_ms']:.1f}", millions(rows[name]["file_bytes"], 1)

    def size_of(size: dict[str, Any]) -> tuple[str, str]:
        digits = 2 if size["parameters"]["all"] < 1e7 else 1
        return millions(
            size["parameters"]["all"], digits
        ), f"{size['flops']['all'] / 1e9:.{digits}f}"

    for title, name, folder, evaluated in (
        ("**this model**", "ours-onnx", "", "celeba_test"),
        ("in INT8", "ours-onnx-int8", "", "celeba_test_int8"),
        (f"`{TINY}`", "tiny-onnx", f"{TINY}/", f"{TINY}/celeba_test"),
        ("tiny in INT8", "tiny-onnx-int8", f"{TINY}/", f"{TINY}/celeba_test_int8"),
    ):
        test = read(evaluated)
        accuracy = f"{test['accuracy']:.4f}", between(test["intervals"]["accuracy"])
        size = size_of(read(f"{folder}model_size")["model"])
        yield title, *size, *speed_of(name), *accuracy
    alone = read("celeba_only_test")
    accuracy = f"{alone['accuracy']:.4f}", between(alone["intervals"]["accuracy"])
    yield "trained on CelebA alone", *size_of(read("model_size")["model"]), "", "", *accuracy
    size = size_of(read("model_size")["original_label2label"])
    yield "Label2Label's own shape, built here", *size, *speed_of("original"), "", ""
    for title, parameters, flops, accuracy in PUBLISHED:
        yield title, parameters, flops, "", "", accuracy, ""
    majority = f"{read('celeba_test')['majority_accuracy']:.4f}"
    yield "majority-class baseline", "", "", "", "", majority, ""


RUNTIMES = {
    "torch": "PyTorch",
    "torch-compile": "PyTorch, compiled",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
}
EVALUATED = {
    "ours-onnx": "celeba_test_onnx",
    "ours-onnx-int8": "celeba_test_int8",
    "tiny-onnx": f"{TINY}/celeba_test_onnx",
    "tiny-onnx-int8": f"{TINY}/celeba_test_int8",
}


@table
def speed(read: Read) -> Rows:
    """List the speed in ONNX Runtime, one face at a time on one thread."""
    yield "in ONNX Runtime", "input", "ms per face", "times as long", "file, MB", "accuracy"
    for name, row in read("speed")["rows"].items():
        if row["runtime"] == "onnxruntime":
            one = next(m for m in row["measurements"] if (m["threads"], m["batch"]) == (1, 1))
            times = f"{one['p50_ms']:.1f}", f"{one['times_as_long']:.2f}"
            accuracy = f"{read(EVALUATED[name])['accuracy']:.4f}" if name in EVALUATED else ""
            yield (
                row["title"],
                str(row["image_size"]),
                *times,
                millions(row["file_bytes"]),
                accuracy,
            )


@table
def speed_by_runtime(read: Read) -> Rows:
    """List the shipped models' speed per runtime: one or two threads, one or 32 faces at once."""
    yield (
        "model",
        "runtime",
        "ms",
        "ms, 2 threads",
        "ms of 32",
        "memory, MB",
        "start, s",
        "file, MB",
    )
    for row in read("speed")["rows"].values():
        if row["weights_sha256"]:
            by = {(m["threads"], m["batch"]): m for m in row["measurements"]}
            cells = [f"{by[key]['p50_ms']:.1f}" for key in ((1, 1), (2, 1), (1, 32))]
            cells += [f"{by[1, 1]['peak_memory_bytes'] / 1e6:.0f}"]
            cells += [f"{by[1, 1]['start_seconds']:.2f}", millions(row["file_bytes"])]
            yield row["title"], RUNTIMES[row["runtime"]], *cells


@table
def browser(read: Read) -> Rows:
    """Compare the page in headless Chromium with Python on the same core, one thread each."""
    measured = read("in_browser")
    yield "milliseconds, median", "Chromium", "Python"
    for step, title in (("attributes", "attributes of a face"), ("detection", "to find it")):
        yield title, *(f"{measured[where][step]['p50']:.0f}" for where in ("browser", "python"))


@table
def cold_start(read: Read) -> Rows:
    """List the times of whole processes, from start to exit."""
    seconds = read("cold_start")["median_seconds"]
    yield "a fresh process", "seconds, median"
    yield "`label2label --help`", f"{seconds['help']:.2f}"
    yield "`label2label predict photo.jpg`, by ONNX", f"{seconds['first_prediction']:.2f}"


@table
def label_throughput(read: Read) -> Rows:
    """List the speed and memory of `label2label label` on two cores."""
    yield "photos", "photos per second", "peak memory, MB"
    for name in ("once", "repeated"):
        row = read("label_throughput")[name]
        speed, memory = f"{row['images_per_second']:.0f}", f"{row['peak_megabytes']:.0f}"
        yield f"{row['images']:,}", speed, memory


@table
def space_load(read: Read) -> Rows:
    """List the Space's response times and memory on two cores."""
    measured = read("space_load")
    one, many = measured["one_visitor"], measured["many_visitors"]
    yield "visitors", "median, ms", "95 % below, ms", "errors"
    yield "one", f"{one['median_ms']:.0f}", f"{one['p95_ms']:.0f}", "0"
    cells = f"{many['median_ms']:.0f}", f"{many['p95_ms']:.0f}", str(many["errors"])
    yield f"{many['users']} at once, for a minute", *cells


@table
def known_words(read: Read) -> Rows:
    """List accuracy on the predicted attributes by number of given ones."""
    yield "attributes given", "accuracy on the others", "gain", "95 % interval"
    for point in read("known_words")["curve"]:
        gain = f"{point['gain']:+.4f}", between(point["gain_interval"], "+.4f")
        yield (
            str(point["given"]),
            f"{point['accuracy']:.4f}",
            *(gain if point["given"] else ("", "")),
        )


@table
def tiny(read: Read) -> Rows:
    """Compare the tiny model with the default one."""
    yield "test images", "default", "tiny"
    for title, name in (
        ("CelebA, 40 attributes", "celeba_test"),
        ("FairFace, `Male` and `Young`", "fairface_test"),
    ):
        yield title, *(f"{read(folder + name)['accuracy']:.4f}" for folder in ("", f"{TINY}/"))


def fairness_rows(measured: Any, models: Sequence[Any], keys: Iterable[str]) -> Rows:
    """List rows of `fairness.py`: own models with intervals, peers without."""
    yield "", "photos", *(model["name"] for model in models)
    for key in keys:
        row = measured["rows"][key]
        cells = []
        for model in models:
            score = model["rows"][key]
            told = f"{score['value']:.3f}" if score["value"] is not None else "–"
            cells.append(told if model["peer"] or told == "–" else estimate(score))
        yield row["title"], f"{row['num_photos']:,}", *cells


def own_models(measured: Any) -> list[Any]:
    """Return the models of `fairness.py` that are no peers; the last is the subject."""
    return [model for model in measured["models"] if not model["peer"]]


@table
def fairness(read: Read) -> Rows:
    """List models and peers by source, group and look."""
    measured = read("fairness")
    ages = re.compile(r"[\w-]+/\d+|(east-asian|celeba-\d).*")
    keys = [key for key in measured["rows"] if not ages.fullmatch(key)]
    yield from fairness_rows(measured, measured["models"], keys)


@table
def fairness_gaps(read: Read) -> Rows:
    """List the gap between the best and the worst group by model; the worst of the last model."""
    measured = read("fairness")
    own, rows = own_models(measured), measured["rows"]
    yield "groups", *(model["name"] for model in own), "expected under the null", "worst"
    for name, after in own[-1]["gaps"].items():
        gaps = [model["gaps"].get(name) for model in own]
        cells = [
            f"{gap['gap']:.3f} ({between(gap['gap_interval'], '.3f')})" if gap else "–"
            for gap in gaps
        ]
        expected, worst = f"{after['expected_gap_under_null']:.3f}", rows[after["worst"]]["title"]
        yield rows[name]["title"], *cells, expected, worst


@table
def east_asian(read: Read) -> Rows:
    """List the 2024 paper's attributes on East Asian faces, and the cost on CelebA, by model."""
    measured = read("east_asian")
    keys = [key for key in measured["rows"] if key.startswith(("east-asian", "celeba-", "scut"))]
    models = [m for m in own_models(measured) if m["name"] not in FEW_SHOT[1:-1]]
    yield from fairness_rows(measured, models, keys)


FEW_SHOT = ("CelebA alone", "50 photos", "200 photos", "500 photos", "1,467 photos")


@table
def few_shot(read: Read) -> Rows:
    """List what more and more photos of the shifted domain give to the CelebA-only model."""
    measured = {model["name"]: model["rows"] for model in own_models(read("east_asian"))}
    keys = "east-asian-accuracy", "east-asian-balanced", "celeba-10"
    yield "fine-tuned on", "accuracy", "balanced accuracy", "accuracy on CelebA, 10 attributes"
    for name in FEW_SHOT:
        title = "nothing" if name == FEW_SHOT[0] else name
        yield title, *(estimate(measured[name][key]) for key in keys)


@table
def paper_tables(read: Read) -> Rows:
    """List backbones and heads on equal terms, beside the papers' Tables 1 and 2."""
    yield (
        *("backbone", "head", "accuracy", "query network", "backbone / all, M"),
        *("backbone / all, GFLOPs", "difference", "95 % interval", "seeds"),
    )
    for row in read("ablation")["rows"].values():
        accuracy = f"{row['accuracy']['mean']:.4f}"
        if row["accuracy"]["std"] is not None:
            accuracy += f" ± {row['accuracy']['std']:.4f}"
        query = f"{row['query_accuracy']['mean']:.4f}" if "query_accuracy" in row else ""
        sizes = [millions(row["parameters"][part]) for part in ("backbone", "all")]
        flops = [f"{row['flops'][part] / 1e9:.2f}" for part in ("backbone", "all")]
        compared, difference = row["compared"], ("", "")
        if compared:
            difference = f"{compared['difference']:+.4f}", between(compared["interval"], "+.4f")
        cells = row["backbone"], row["head"], accuracy, query, " / ".join(sizes), " / ".join(flops)
        yield *cells, *difference, str(len(row["seeds"]))
    for title, parameters, flops, accuracy in PUBLISHED[:2]:
        yield title, "label2label", accuracy, "", parameters, flops, "", "", ""


@table
def contradictions(read: Read) -> Rows:
    """List the share of contradictory answers per dataset, and what deciding costs in accuracy."""
    measured = {name: read(f"{name.lower()}_test") for name in ("CelebA", "LFWA")}
    titles = (f"{name}, {row['num_images']:,} images" for name, row in measured.items())
    yield "contradictory", *titles
    rows = [row["contradictions"] for row in measured.values()]
    for key, title in (
        ("labels", "labels"),
        ("query_answers", "attribute query network"),
        ("answers", "masked language model"),
        ("decided", "as decided"),
    ):
        yield title, *(f"{row[key]['share']:.2%}" for row in rows)
    changes = (row["accuracy"] for row in rows)
    cells = (f"{x['difference']:+.5f} ({between(x['interval'], '+.5f')})" for x in changes)
    yield "accuracy, decided less not", *cells


@table
def over_queries(read: Read) -> Rows:
    """Compare the masked language model with its own query network."""
    yield "test images", "accuracy", "of the query network", "difference", "95 % interval", "p"
    for title, name in (
        ("CelebA", "celeba_test"),
        ("LFWA", "lfwa_test"),
        ("LFWA, after fine-tuning on it", "lfwa_tuned_test"),
    ):
        test = read(name)
        compared = test["over_queries"]
        yield (
            f"{title}, {test['num_images']:,}",
            *(f"{test[key]:.4f}" for key in ("accuracy", "query_accuracy")),
            f"{compared['difference']:+.4f}",
            between(compared["interval"], "+.4f"),
            format_p_value(compared["p_value"]),
        )


@table
def framings(read: Read) -> Rows:
    """List each model's accuracy by how tightly the face is framed."""
    measured = read("framings")["models"]
    yield "the face is shown", *measured
    for points in zip(*measured.values(), strict=True):
        zoom = points[0]["zoom"]
        title = "as `predict` frames it" if zoom == 1 else f"{zoom:g} times as large"
        yield title, *(f"{point['accuracy']:.4f}" for point in points)


@table
def lfw_verification(read: Read) -> Rows:
    """List the backbone's verification accuracy on LFW pairs."""
    measured = read("lfw_verification")
    yield "pairs of LFW", "accuracy", "standard error"
    accuracy = f"{measured['accuracy']:.3f}", f"{measured['standard_error']:.4f}"
    yield f"{measured['num_pairs']:,}", *accuracy


@table
def training_speed(read: Read) -> Rows:
    """List images per second in training; each row makes one change to the baseline."""
    measured = read("training_speed")
    yield "training step", "images per second", "times the baseline"
    for row in measured["rows"].values():
        if "error" not in row:
            yield row["title"], f"{row['images_per_second']:.0f}", f"{row['ratio']:.2f}"
    bare = measured["loop"]["images_per_second"] / measured["loop"]["ratio"]
    yield "the baseline's bare step", f"{bare:.0f}", f"{1 / measured['loop']['ratio']:.2f}"


def both_clocks(stages: dict[str, Any], stage: str) -> str:
    """Format the wall and CPU time of a stage in milliseconds."""
    if stage not in stages["wall"]:
        return ""
    return f"{stages['wall'][stage]:.0f} ({stages['processor'][stage]:.1f})"


@table
def photo_speed(read: Read) -> Rows:
    """List the time of one photo per stage, and photos per second of a folder."""
    stages = ("decode", "detect", "align", "attributes", "whole")
    yield "photo", "version", *stages, "folder, photos/s"
    speed = read("photo")["speed"]
    for key, name in (("small", "250x250"), ("large", "12 megapixels")):
        for version, row in speed[key].items():
            folder = speed["folder"].get(version) if key == "small" else None
            rate = f"{folder['photos_per_second']:.1f}" if folder else ""
            yield name, version, *(both_clocks(row, stage) for stage in stages), rate


@table
def photo_products(read: Read) -> Rows:
    """List models and other software on 250x250 photos: size, memory, time and accuracy."""
    models = read("fairness")["models"]
    told = {model["name"]: model["rows"]["fairface"]["value"] for model in models}
    told["INT8"] = told["mobilefacenet"]  # what `predict` uses, and fairness.py measured
    titles = "release", "attributes", "model files, MB", "memory, MB", "ms", "CPU ms"
    yield "", *titles, "`Male` on FairFace"
    for name, row in read("photo")["speed"]["products"].items():
        sizes = str(row["attributes"]), f"{row['megabytes']:.1f}", f"{row['memory_megabytes']:.0f}"
        times = f"{row['wall']:.1f}", f"{row['processor']:.1f}"
        yield name, row["version"], *sizes, *times, f"{told[name]:.3f}" if name in told else ""


@table
def photo_limits(read: Read) -> Rows:
    """List the peak memory of large photos and the speed of a video."""
    measured = read("photo")
    yield "what", "measured"
    for name, row in measured.get("memory", {}).items():
        if name != "of_each_set":
            yield f"peak memory, 48 megapixels, {name}", f"{row['memory_megabytes']:.0f} MB"
    for name in ("table", "table and video"):
        if "video" in measured:
            rate = measured["video"][name]["frames_per_second"]
            yield f"video 640x480 on one core, {name} written", f"{rate:.0f} frames/s"


@table
def photo_recall(read: Read) -> Rows:
    """List the share of images with a detected face."""
    yield "data set", "images", "a face is found"
    recall = dict(read("photo")["recall"])
    fairface = dict(recall.pop("fairface"))
    for name, row in {"fairface": fairface.pop("all"), **recall}.items():
        if name != "of_each_set":
            yield name, f"{row['images']:,}", f"{row['found']:.2%}"
    worst = min(fairface, key=lambda name: fairface[name]["found"])
    row = fairface[worst]
    yield f"fairface, its worst group ({worst})", f"{row['images']:,}", f"{row['found']:.2%}"


@table
def photo_scenes(read: Read) -> Rows:
    """List the share of pasted faces that are detected."""
    yield "photo", "faces", "found"
    for name, row in read("photo")["scenes"].items():
        if name == "of_each_set":
            continue
        if "false_faces" in row:
            yield f"{row['images']:,} images of {name}", "0", f"{row['false_faces']} false faces"
        else:
            yield name, str(row["faces"]), f"{row['found']:.1%}"


@table
def photo_turns(read: Read) -> Rows:
    """List the share of decisions that change with the photo's orientation."""
    yield "data set", "turned by", "photos", "not found", "decisions changed", "Male changed"
    for name, turns in read("photo")["turns"].items():
        if name != "of_each_set":
            for degrees, row in turns.items():
                changed = (f"{row[key]:.1%}" for key in ("decisions_changed", "male_changed"))
                yield name, f"{degrees}°", str(row["photos"]), str(row["not_found"]), *changed


@table
def photo_quality(read: Read) -> Rows:
    """List accuracy by face size and by quality warning."""
    yield "what", "face", "faces", "accuracy"
    quality = read("photo")["quality"]
    sizes = quality["celeba_wild_attributes_by_size"]
    for name in sorted(sizes, key=lambda name: int(name) if name.isdigit() else 10**6):
        label = f"{name} pixels" if name.isdigit() else "as it is"
        row = sizes[name]
        yield "CelebA's attributes", label, str(row["faces"]), f"{row['accuracy']:.1%}"
    for kind in ("flaw", "yaw"):
        for name, row in quality[f"fairface_gender_by_{kind}"].items():
            label = f"warning: {name}" if kind == "flaw" else f"turned by {name} degrees"
            yield "FairFace's gender", label, str(row["faces"]), f"{row['accuracy']:.1%}"


@table
def hostile(read: Read) -> Rows:
    """List what damaged images, kills and a crowd led to."""
    yield "", "times", "read", "refused", "faults", "peak memory, MB"
    measured = read("hostile")

    def faults(row: dict[str, Any]) -> int:
        return sum(row["faults"].values())

    def photos(row: dict[str, Any]) -> Sequence[str]:
        counts = row["read"], row["refused"], faults(row)
        return *(f"{number:,}" for number in (sum(counts), *counts)), str(row["memory_mb"]["peak"])

    for name, row in measured["images"].items():
        if name != "minutes":
            yield f"damaged image, {name}", *photos(row)
    for name, row in measured["kills"].items():
        if name != "minutes":
            yield (
                f"{name} killed and started again",
                str(row["kills"]),
                "",
                "",
                str(faults(row)),
                "",
            )
    yield f"photo to the Space, {measured['space']['users']} users", *photos(measured["space"])


def main() -> None:
    """Fill the tables of the documents given, or of all."""
    parser = command_line(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.md")
    for file in parser.parse_args().files or documents():
        write_whole(file, fill(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(finish(main))
