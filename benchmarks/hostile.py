"""Damaged images, kills and a crowd: count what goes wrong when users and machines are unkind.

`python benchmarks/hostile.py` runs three parts and writes `results/hostile.json`:

- `images`: 10,000 mutations of images of every format, read as `predict`, the handler of Inference
  Endpoints, training and the dataset programs read them, each in a process of its own. A reader may
  read or refuse an image; anything else (another error, a crash, a hang, much memory) is a fault.
- `kills`: preparation, training, labelling and push are ended by SIGKILL at random times and
  started again, 20 times each. The result must equal that of an undisturbed run.
- `space`: 20 users send whole and damaged photos to the Space for 60 s.

`--parts kills` runs one part again and keeps the others' figures. The images that a reader failed
on are kept in `runs/hostile/`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import psutil
from common import (
    command_line,
    describe_machine,
    finish,
    peak_memory,
    sample_photo,
    write_json,
)
from label2label.checkpoints import default_checkpoint
from label2label.errors import UserError, join_lines
from label2label.files import sha256
from PIL import Image, features
from space_load import ask, build_request, early_and_late, send_from_many, started_space
from tqdm import tqdm, trange

ROOT = Path(__file__).resolve().parents[1]
PREPARATION = ROOT / "datasets_scripts" / "own_photos.py"

START_SECONDS = 600  # for the imports of a reader
HANG_SECONDS = 60  # for one image; even 50 megapixels take less
MEMORY_BYTES = 2 * 2**30  # that one image may add to a reader
GROWTH_BYTES = 200 * 2**20  # by which a reader, or the Space, may grow from first to last
KEPT = ROOT / "runs" / "hostile"  # images of faults
TOKEN = "token-of-someone"
USERS, SECONDS = 20, 60.0  # of the Space

Read = Callable[[bytes], object]
Build = Callable[[], tuple[Read, type[Exception]]]  # of `READERS`


# Damaged images, and what reads them


def encode_seeds() -> list[bytes]:
    """Encode a photo of a face in every format that this Pillow writes, in several ways each."""
    face = Image.open(sample_photo()).convert("RGB").crop((150, 60, 390, 360)).resize((128, 160))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo"
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("RGB", "JPEG", {"exif": exif}),
        ("RGB", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("RGB", "MPO", {"save_all": True, "append_images": [face]}),
        *((mode, "PNG", {}) for mode in ("RGB", "RGBA", "P", "I;16", "1")),
        ("RGB", "PNG", {"save_all": True, "append_images": [face], "exif": exif}),
        *(("RGB", "WEBP", {"lossless": lossless, "exif": exif}) for lossless in (True, False)),
        ("RGB", "GIF", {"save_all": True, "append_images": [face.rotate(90)]}),
        ("RGB", "BMP", {}),
        ("P", "BMP", {}),
        ("RGB", "PPM", {}),
        *(("RGB", "TIFF", {"compression": c}) for c in ("raw", "tiff_lzw", "jpeg", "packbits")),
        ("F", "TIFF", {}),
        ("1", "TIFF", {"compression": "group4"}),
    ]
    if features.check("jpg_2000"):
        wanted.append(("RGB", "JPEG2000", {}))
    if features.check("avif"):
        wanted.append(("RGB", "AVIF", {"exif": exif}))
    seeds = []
    for mode, kind, options in wanted:
        file = io.BytesIO()
        image = face.convert("L") if mode == "I;16" else face
        image.convert(mode).save(file, kind, **options)
        seeds.append(file.getvalue())
    with contextlib.suppress(ModuleNotFoundError):
        from pillow_heif import from_pillow

        file = io.BytesIO()
        from_pillow(face).save(file)
        seeds.append(file.getvalue())
    return seeds


def mutate_image(seeds: list[bytes], index: int) -> bytes:
    """Damage one of the seeds: the same damage for the same index."""
    rng = random.Random(index)
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        # Every second time near the start, where formats have their headers.
        start = rng.randrange(min(len(data), 400) if rng.random() < 0.5 else len(data))
        length = rng.choice((1, 2, 4, 16, 200))
        match rng.randrange(7):
            case 0:
                data[start] ^= 1 << rng.randrange(8)
            case 1:
                data[start : start + length] = rng.randbytes(length)
            case 2:
                number = rng.choice((0, 1, 255, 32767, 65535, 2**31 - 1, 2**32 - 1))
                order = rng.choice("<>")
                pack = f"{order}{'I' if number > 65535 or rng.random() < 0.5 else 'H'}"
                data[start : start + struct.calcsize(pack)] = struct.pack(pack, number)
            case 3:
                del data[start : start + length]
            case 4:
                data[start:start] = data[start : start + length] * rng.choice((1, 2, 50))
            case 5:
                other = rng.choice(seeds)
                data[start : start + length] = other[start : start + length]
            case _:
                del data[max(start, 20) :]
        if not data:
            break
    return repair_png(bytes(data))


def repair_png(data: bytes) -> bytes:
    """Set the checksums of a PNG's chunks right, so that its decoder gets to read the damage."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, place = bytearray(data), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(fixed)


def predict_reader() -> tuple[Read, type[Exception]]:
    """Return `AttributePredictor`'s reading of a photo, and its error for a bad one."""
    from label2label import AttributePredictor

    predictor = AttributePredictor.from_pretrained()

    def read(data: bytes) -> None:
        for face in predictor(data):
            json.dumps(face, allow_nan=False)

    return read, UserError


def handler_reader() -> tuple[Read, type[Exception]]:
    """Return the endpoint handler's answer to a request, and its error for a bad one."""
    import label2label  # noqa: F401 - registers the model classes
    from label2label.hub.handler import EndpointHandler

    handler = EndpointHandler(default_checkpoint())

    def read(data: bytes) -> None:
        json.dumps(handler({"inputs": base64.b64encode(data).decode()}), allow_nan=False)

    return read, ValueError


def training_reader() -> tuple[Read, type[Exception]]:
    """Return training's reading of a row's image, and its error for a bad one."""
    from label2label.data.loading import crop_with_margin, read_encoded

    def read(data: bytes) -> object:
        return crop_with_margin(read_encoded({"bytes": data, "path": "a.jpg"}), 140, 168)

    return read, UserError


def preparation_reader() -> tuple[Read, type[Exception]]:
    """Return a dataset program's reading and framing of an image, and its error for a bad one."""
    sys.path.insert(0, str(PREPARATION.parent))
    from label2label.data.schema import Sample
    from preparation.framing import ReadImage
    from preparation.sources import BadImageError

    images: Any = SimpleNamespace()
    frame = ReadImage(images, align=True)

    def read(data: bytes) -> object:
        images.read = lambda key: data
        return frame(Sample(key="a.jpg", split="train"))

    return read, BadImageError


READERS = {
    "predict": predict_reader,
    "handler": handler_reader,
    "training": training_reader,
    "preparation": preparation_reader,
}


def judge(read: Read, refusal: type[Exception], data: bytes) -> str:
    """Read an image; return "read", "refused", or the kind of the fault."""
    try:
        read(data)
    except refusal as error:
        return "refused" if "\n" not in str(error) else "a message of several lines"
    except Exception as error:
        return f"{type(error).__name__}: {join_lines(error)[:80]}"
    return "read"


def serve_reader(build: Build, indices: range, memory_bytes: int, connection: Connection) -> None:
    """Read mutations in this process; send the outcome and the memory after each one.

    `connection` receives True when the reader is ready, then (outcome, resident bytes, peak bytes)
    for each image. One image may add `memory_bytes` to the peak; four times as much cannot be had.
    """
    warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders in C print to it
    seeds, process = encode_seeds(), psutil.Process()
    read, refusal = build()
    read(seeds[0])  # loads what a first image loads
    limit = process.memory_info().vms + 4 * memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send(True)
    for index in indices:
        before = peak_memory()
        outcome = judge(read, refusal, mutate_image(seeds, index))
        peak = peak_memory()
        if peak - before > memory_bytes:
            outcome = "much memory"
        connection.send((outcome, process.memory_info().rss, peak))


def run_reader(
    name: str,
    build: Build,
    count: int,
    kept: Path,
    hang_seconds: float = HANG_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> dict[str, Any]:
    """Let a reader read mutations; start its process anew after a crash or a hang.

    Return the number of images by outcome, faults by kind, whose images are written to `kept`, and
    memory first, last and peak.
    """
    context = multiprocessing.get_context("spawn")
    outcomes: Counter[str] = Counter()
    memory: list[int] = []
    peak = done = 0
    seeds = encode_seeds()
    with tqdm(total=count, desc=f"images: {name}", unit="image") as bar:

        def note(outcome: str) -> None:
            nonlocal done
            outcomes[outcome] += 1
            if outcome not in ("read", "refused"):
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{name}-{done}").write_bytes(mutate_image(seeds, done))
            done += 1
            bar.update()

        while done < count:
            ours, theirs = context.Pipe(duplex=False)
            arguments = (build, range(done, count), memory_bytes, theirs)
            process = context.Process(target=serve_reader, args=arguments, daemon=True)
            process.start()
            theirs.close()
            try:
                ready = ours.poll(START_SECONDS) and ours.recv()
            except EOFError:
                ready = False
            if not ready:
                process.kill()
                raise UserError(f"the reader {name} does not start")
            try:
                outcome = ""
                while done < count and outcome != "hang":
                    outcome = "hang"
                    if ours.poll(hang_seconds):
                        outcome, resident, peak_now = ours.recv()
                        memory.append(resident)
                        peak = max(peak, peak_now)
                    note(outcome)
            except EOFError:
                process.join()
                note(f"crash: exit code {process.exitcode}")
            finally:
                process.kill()
                process.join()
    return report(outcomes, memory, peak)


def report(outcomes: Counter[str], memory: list[int], peak: float) -> dict[str, Any]:
    """Summarize outcomes and resident bytes over time; growth counts as a fault."""
    faults = {kind: n for kind, n in outcomes.items() if kind not in ("read", "refused")}
    first, last = early_and_late(memory) if memory else (0, 0)
    if last - first > GROWTH_BYTES:
        faults["memory grows"] = 1
    megabytes = {"first": first, "last": last, "peak": max([peak, *memory])}
    return {
        "read": outcomes["read"],
        "refused": outcomes["refused"],
        "faults": faults,
        "memory_mb": {name: round(value / 2**20) for name, value in megabytes.items()},
    }


def run_images(args: argparse.Namespace) -> dict[str, Any]:
    """Run the part `images`."""
    return {name: run_reader(name, READERS[name], args.mutations, KEPT) for name in READERS}


# Kills


@dataclass
class Task:
    """A command that is killed and started again."""

    command: Callable[[Path], list[str]]  # that writes to this folder
    # It has begun to write to this folder, and has not yet moved what it wrote to its place, after
    # which it refuses to start again.
    at_work: Callable[[Path], bool]
    result: Callable[[Path], Any]  # describes what it wrote to this folder, for comparison
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, output: Path) -> subprocess.Popen[str]:
        """Start the command; return when it writes, or has ended."""
        temporary = temporary_folder(output)
        temporary.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            self.command(output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "TMPDIR": str(temporary),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                **self.environment,
            },
        )
        while process.poll() is None and not self.at_work(output):
            time.sleep(0.005)
        return process


def temporary_folder(output: Path) -> Path:
    """Return the folder for temporary files of the command that writes to `output`."""
    return output.parent / f"{output.name}-temporary"


def leftovers(output: Path) -> list[str]:
    """Return the names beside the output that a finished command should have removed."""
    temporary = temporary_folder(output)
    beside = {path.name for path in output.parent.iterdir()} - {output.name, temporary.name}
    return sorted(beside | {path.name for path in temporary.glob("label2label-*")})


def run_task(name: str, task: Task, kills: int, scratch: Path) -> dict[str, Any]:
    """Kill a command at random times and start it again; count faults of its results by kind."""
    whole = scratch / "whole" / "out"
    process, start = task.start(whole), time.monotonic()
    errors = process.communicate()[1]
    if process.returncode != 0:
        raise UserError(f"{name} fails without a kill: {errors.strip()[-300:]}")
    duration, expected = time.monotonic() - start, task.result(whole)
    rng = random.Random(0)
    faults: Counter[str] = Counter()
    attempts = itertools.count()
    for _ in trange(kills, desc=f"kills: {name}", unit="kill"):
        returncode = 0
        while returncode != -signal.SIGKILL:  # until it is killed before it is done
            if (attempt := next(attempts)) == 5 * kills:
                raise UserError(f"{name} ends before it can be killed")
            output = scratch / str(attempt) / "out"
            process = task.start(output)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, duration))
            process.kill()
            process.communicate()
            returncode = process.returncode if task.at_work(output) else 0
        again = task.start(output)
        errors = again.communicate()[1]
        if again.returncode != 0:
            faults[f"fails when started again: {errors.strip()[-200:]}"] += 1
        elif task.result(output) != expected:
            faults["another result than undisturbed"] += 1
        elif left := leftovers(output):
            faults[f"leaves {left[0]}"] += 1
    return {"kills": kills, "faults": dict(faults)}


def python(*arguments: object) -> list[str]:
    """Return a command of this interpreter."""
    return [sys.executable, *map(str, arguments)]


def draw_photos(folder: Path, count: int) -> Path:
    """Draw photos of random patches, and a table with two attributes of them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["image,split,identity,Male,Smiling"]
    for index in range(count):
        patches = rng.integers(0, 256, (10, 8, 3), np.uint8)
        image = Image.fromarray(patches).resize((178, 218), Image.Resampling.BICUBIC)
        image.save(folder / f"{index:03}.jpg", quality=90)
        split = "validation" if index % 5 == 0 else "train"
        rows.append(f"{index:03}.jpg,{split},{index},{index % 2},{index // 2 % 2}")
    (folder.parent / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def digests(*folders: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below the folders, by path."""
    return {
        f"{folder.name}/{path.relative_to(folder)}": sha256(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def preparation_task(photos: Path) -> Task:
    """Return the preparation of the drawn photos."""
    arguments = ("--source", photos, "--labels", photos.parent / "labels.csv", "--workers", 1)
    return Task(
        lambda output: python(PREPARATION, *arguments, "--output", output),
        at_work=lambda output: (output.parent / f".{output.name}.part/data").is_dir(),
        result=digests,
    )


def training_task(dataset: Path) -> Task:
    """Return a short training of a tiny model on the prepared photos."""
    recipe = dataset.parent / "recipe.yaml"
    stages = "[[2, 8, 1, 2], [2, 16, 1, 2]]"
    recipe.write_text(
        f"data: {dataset}\nvocabulary: columns\nepochs: 4\nbatch_size: 16\nworkers: 0\nema: 0.9\n"
        "checkpoint_every: 2\n"
        "model: {hidden_size: 16, intermediate_size: 16, num_attention_heads: 2}\n"
        "backbone_config: {model_type: mobilefacenet, stem_channels: 8, feature_channels: 16, "
        f"stages: {stages}}}\n"
    )

    def command(output: Path) -> list[str]:
        arguments = ["-m", "label2label", "train", "--recipe", recipe, "--output", output]
        return python(*arguments, *(["--resume"] if list(output.glob("state/step-*")) else []))

    return Task(
        command,
        at_work=lambda output: (output / "history.json").exists() or (output / "state").exists(),
        result=lambda output: digests(output / "best", output / "last"),
    )


def labelling_task(photos: Path) -> Task:
    """Return the labelling of the drawn photos in small shards."""
    arguments = ("--data", photos, "--no-align", "--shard-size", 4, "--batch-size", 4)

    def result(output: Path) -> Any:
        return {k: v for k, v in digests(output).items() if "/.label2label/" not in k}

    return Task(
        lambda output: python("-m", "label2label", "label", *arguments, "--output", output),
        at_work=lambda output: (output / "data").is_dir(),
        result=result,
    )


def push_task(dataset: Path, hub: str, log: Path) -> Task:
    """Return the push of a model and a dataset to a Hub on this machine, which logs its requests.

    Each output has repositories of its own there.
    """

    def repositories(output: Path) -> dict[str, str]:
        return {kind: f"someone/{kind}-{output.parent.name}" for kind in ("model", "dataset")}

    def command(output: Path) -> list[str]:
        names = repositories(output)
        return python(
            *("-m", "label2label", "push", "--repo-id", names["model"], "--dataset", dataset),
            *("--dataset-id", names["dataset"], "--i-have-the-right-to-redistribute"),
        )

    def result(output: Path) -> Any:
        output.mkdir(exist_ok=True)
        found = {}
        for kind, name in repositories(output).items():
            url = f"{hub}/api/{kind}s/{name}/tree/main?recursive=true"
            headers = {"Authorization": f"Bearer {TOKEN}"}
            tree = httpx.get(url, headers=headers, trust_env=False).raise_for_status().json()
            found[kind] = {entry["path"]: entry["oid"] for entry in tree}
            found[kind].pop("README.md")  # names the repository
            committed = re.compile(rf"POST /api/{kind}s/{name}/commit/\S* 200")
            found[f"{kind}, commits"] = len(committed.findall(log.read_text()))
        return found

    return Task(
        command,
        at_work=lambda output: f"{repositories(output)['model']}/" in log.read_text(),
        result=result,
        environment={
            "HF_ENDPOINT": hub,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        },
    )


@contextlib.contextmanager
def started_hub(log: Path) -> Iterator[str]:
    """Start the tests' Hub; yield its address. It writes its requests to a file."""
    with log.open("w") as file:
        process = subprocess.Popen(
            python("-m", "tests.hub.hub_server", TOKEN), stdout=file, cwd=ROOT
        )
    try:
        while not log.read_text().endswith("\n"):
            if process.poll() is not None:
                raise UserError("the Hub does not start")
            time.sleep(0.05)
        yield log.read_text().splitlines()[0]
    finally:
        process.kill()
        process.wait()


def run_kills(args: argparse.Namespace) -> dict[str, Any]:
    """Run the part `kills`."""
    with tempfile.TemporaryDirectory() as folder:
        return kill_commands(Path(folder), 100, args.kills)


def kill_commands(scratch: Path, photos: int, kills: int) -> dict[str, Any]:
    """Kill each command so many times, on this many drawn photos; return faults by command."""
    source, log = draw_photos(scratch / "photos", photos), scratch / "requests"
    dataset = scratch / "preparation/whole/out"  # written when the first command has run
    with started_hub(log) as hub:
        tasks: dict[str, Callable[[], Task]] = {
            "preparation": lambda: preparation_task(source),
            "training": lambda: training_task(dataset),
            "labelling": lambda: labelling_task(source),
            "push": lambda: push_task(dataset, hub, log),
        }
        return {
            name: run_task(name, build(), kills, scratch / name) for name, build in tasks.items()
        }


# Many users of the Space


def run_space(_: argparse.Namespace) -> dict[str, Any]:
    """Run the part `space`: every second photo is damaged."""
    seeds, numbers = encode_seeds(), itertools.count()
    outcomes: Counter[str] = Counter()
    resident: list[int] = []
    with started_space() as (url, _, process):
        whole = build_request(url)

        async def send(client: httpx.AsyncClient) -> None:
            number, body = next(numbers), whole
            if number % 2:
                photo = base64.b64encode(mutate_image(seeds, number)).decode()
                event = whole["event_data"] | {"photo": f"data:image/jpeg;base64,{photo}"}
                body = whole | {"event_data": event}
            try:
                answer = (await ask(client, url, body))[1]
                outcomes[judge_answer(answer, damaged=body is not whole)] += 1
            except (RuntimeError, httpx.HTTPError) as error:
                outcomes[f"{type(error).__name__}: {join_lines(error)[:80]}"] += 1

        def watch() -> None:
            resident.append(process.memory_info().rss)

        asyncio.run(send_from_many(USERS, SECONDS, send, watch))
    return {"users": USERS, "seconds": SECONDS, **report(outcomes, resident, 0)}


def judge_answer(answer: Mapping[str, Any], damaged: bool) -> str:
    """Return "read", "refused", or the kind of the fault, for the Space's answer to a photo."""
    if answer.get("faces"):
        return "read"
    code = (answer.get("error") or {}).get("code", "no answer")
    return "refused" if damaged and code not in ("failed", "no answer") else f"answer: {code}"


PARTS = {"images": run_images, "kills": run_kills, "space": run_space}


def count_faults(value: Any) -> int:
    """Add up all `faults` of nested figures."""
    if not isinstance(value, dict):
        return 0
    return sum(
        sum(entry.values()) if key == "faults" else count_faults(entry)
        for key, entry in value.items()
    )


def main() -> None:
    """Run the parts and write the figures after each, so that a later call can go on."""
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--mutations", type=int, default=10_000, metavar="N", help="of images")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each command")
    parser.add_argument("--output", type=Path, default=ROOT / "results/hostile.json")
    args = parser.parse_args()
    figures = json.loads(args.output.read_text()) if args.output.is_file() else {}
    for name in args.parts:
        start = time.monotonic()
        part = PARTS[name](args)
        figures[name] = {**part, "minutes": round((time.monotonic() - start) / 60, 1)}
        figures["machine"] = describe_machine()
        write_json(args.output, figures)
        print(f"{name}: {count_faults(part)} faults", flush=True)


if __name__ == "__main__":
    sys.exit(finish(main))
