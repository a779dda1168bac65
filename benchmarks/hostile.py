"""Damaged images, kills and a crowd: count what goes wrong when users and machines are unkind.

`python benchmarks/hostile.py` runs three parts and writes `results/hostile.json`:

- `images`: 10,000 mutations of images of every format, read as `predict`, the handler of Inference
  Endpoints, a dataset program and training read them, each in a process of its own. A reader may
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
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from common import command_line, describe_machine, finish, peak_memory, sample_photo, write_json
from label2label.checkpoints import default_checkpoint
from label2label.errors import UserError, join_lines
from label2label.files import sha256
from PIL import Image, features
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "datasets_scripts")]  # the tests' Hub, and the preparation

START_SECONDS = 600  # for the imports of a reader
HANG_SECONDS = 60  # for one image; even 50 megapixels take less
MEMORY_BYTES = 2 * 2**30  # that one image may add to a reader
GROWTH_BYTES = 200 * 2**20  # by which a reader, or the Space, may grow from first to last
TOKEN = "token-of-someone"

Read = Callable[[bytes], object]


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


def mutate_image(seeds: list[bytes], seed: int, index: int) -> bytes:
    """Damage one of the seeds: the same damage for the same seed and index."""
    rng = random.Random(seed * 10**9 + index)
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


def preparation_reader() -> tuple[Read, type[Exception]]:
    """Return the dataset programs' reading and framing of an image, and their error."""
    from label2label.data.schema import Sample
    from preparation.framing import ReadImage
    from preparation.sources import BadImageError, Images

    class Given(Images):
        data = b""

        def read(self, name: str) -> bytes:
            return self.data

    images = Given({}, Path())
    framing = ReadImage(images, align=True)
    sample = Sample(key="a.jpg", split="train", source="hostile")

    def read(data: bytes) -> object:
        images.data = data
        return framing(sample)

    return read, BadImageError


def training_reader() -> tuple[Read, type[Exception]]:
    """Return training's reading of a row's image, and its error for a bad one."""
    from label2label.data.loading import crop_with_margin, read_encoded

    def read(data: bytes) -> object:
        return crop_with_margin(read_encoded({"bytes": data, "path": "a.jpg"}), 140, 168)

    return read, UserError


READERS = {
    "predict": predict_reader,
    "handler": handler_reader,
    "preparation": preparation_reader,
    "training": training_reader,
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


def serve_reader(
    build: Callable[[], tuple[Read, type[Exception]]],
    indices: range,
    seed: int,
    memory_bytes: int,
    connection: Connection,
) -> None:
    """Read mutations in this process; send the outcome and the memory after each one.

    Args:
        build: Function of `READERS`.
        indices: The mutations to read.
        seed: Seed of the mutations.
        memory_bytes: What one image may add to the peak; four times as much cannot be had.
        connection: Receives True when the reader is ready, then (outcome, resident bytes, peak
            bytes) for each image.
    """
    import warnings

    import psutil

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
        outcome = judge(read, refusal, mutate_image(seeds, seed, index))
        peak = peak_memory()
        if peak - before > memory_bytes:
            outcome = "much memory"
        connection.send((outcome, process.memory_info().rss, peak))


def run_reader(
    name: str,
    build: Callable[[], tuple[Read, type[Exception]]],
    count: int,
    seed: int,
    kept: Path,
    hang_seconds: float = HANG_SECONDS,
    memory_bytes: int = MEMORY_BYTES,
) -> dict[str, Any]:
    """Let a reader read mutations; start its process anew after a crash or a hang.

    Args:
        name: Name of the reader.
        build: Function of `READERS`.
        count: Number of mutations.
        seed: Seed of the mutations.
        kept: Folder that receives the images of faults.
        hang_seconds: Time for one image after which it counts as a hang.
        memory_bytes: What one image may add to the reader's peak memory.

    Returns:
        Number of images by outcome, faults by kind, and memory first, last and peak.
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
                (kept / f"{name}-{done}").write_bytes(mutate_image(seeds, seed, done))
            done += 1
            bar.update()

        while done < count:
            ours, theirs = context.Pipe(duplex=False)
            arguments = (build, range(done, count), seed, memory_bytes, theirs)
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


def report(outcomes: Counter[str], memory: list[int], peak: int) -> dict[str, Any]:
    """Summarize outcomes and resident bytes over time; growth counts as a fault."""
    faults = {kind: n for kind, n in outcomes.items() if kind not in ("read", "refused")}
    tenth = max(1, len(memory) // 10)
    first, last = (
        statistics.median(part) if part else 0
        for part in (memory[tenth : 2 * tenth], memory[-tenth:])
    )
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
    return {
        name: run_reader(name, build, args.mutations, args.seed, args.scratch)
        for name, build in READERS.items()
    }


# Kills


@dataclass
class Task:
    """A command that is killed and started again.

    Args:
        command: Returns the command that writes to this folder.
        at_work: Whether the command has begun to write to this folder.
        result: Describes what it wrote to this folder, for comparison.
        environment: Variables beside the process's own.
    """

    command: Callable[[Path], list[str]]
    at_work: Callable[[Path], bool]
    result: Callable[[Path], Any]
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, output: Path) -> subprocess.Popen[str]:
        """Start the command with a folder of its own for temporary files."""
        temporary = output.parent / f"{output.name}-temporary"
        temporary.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
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

    def wait_for_work(self, process: subprocess.Popen[str], output: Path) -> None:
        """Wait until the command writes, or ends."""
        while process.poll() is None and not self.at_work(output):
            time.sleep(0.005)

    def leftovers(self, output: Path) -> list[str]:
        """Return the names beside the output that a finished command should have removed."""
        temporary = output.parent / f"{output.name}-temporary"
        beside = {path.name for path in output.parent.iterdir()} - {output.name, temporary.name}
        return sorted(beside | {path.name for path in temporary.glob("label2label-*")})


def run_task(name: str, task: Task, kills: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Kill a command at random times, start it again, and compare the result each time.

    Returns:
        Number of kills and faults by kind.
    """
    whole = scratch / "whole" / "out"
    process = task.start(whole)
    task.wait_for_work(process, whole)
    start = time.monotonic()
    errors = process.communicate()[1]
    if process.returncode != 0:
        raise UserError(f"{name} fails without a kill: {errors.strip()[-300:]}")
    duration, expected = time.monotonic() - start, task.result(whole)
    rng = random.Random(seed)
    faults: Counter[str] = Counter()
    done = 0
    with tqdm(total=kills, desc=f"kills: {name}", unit="kill") as bar:
        for attempt in itertools.count():
            if done == kills:
                break
            if attempt == 5 * kills:
                raise UserError(f"{name} ends before it can be killed")
            output = scratch / str(attempt) / "out"
            process = task.start(output)
            task.wait_for_work(process, output)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, duration))
            process.kill()
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                continue  # it was done before
            done += 1
            bar.update()
            again = task.start(output)
            errors = again.communicate()[1]
            if again.returncode != 0:
                faults[f"fails when started again: {errors.strip()[-200:]}"] += 1
            elif (found := task.result(output)) != expected:
                faults[f"another result than undisturbed: {first_difference(found, expected)}"] += 1
            elif left := task.leftovers(output):
                faults[f"leaves {left[0]}"] += 1
    return {"kills": done, "faults": dict(faults)}


def first_difference(found: Any, expected: Any) -> str:
    """Name the first key in which two nested dictionaries differ."""
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return "its value"
    key = next(k for k in {**expected, **found} if found.get(k) != expected.get(k))
    inner = first_difference(found.get(key), expected.get(key))
    return key if inner == "its value" else f"{key} {inner}"


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
    program = ROOT / "datasets_scripts/own_photos.py"
    labels = photos.parent / "labels.csv"

    def command(output: Path) -> list[str]:
        arguments = ("--source", photos, "--labels", labels, "--output", output, "--workers", 1)
        return python(program, *arguments)

    return Task(
        command,
        at_work=lambda output: (output.parent / f".{output.name}.partial/data").is_dir(),
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
        arguments = ["-m", "label2label", "train", "--config", recipe, "--output", output]
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


def push_task(dataset: Path, hub: Any) -> Task:
    """Return the push of a model and a dataset to a Hub on this machine.

    Args:
        dataset: Prepared dataset.
        hub: The tests' server; each output has repositories of its own there.
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
            repository = hub.repository(kind, name)
            files = repository.resolve("main").files
            found[kind] = {path: blob.upload_oid for path, blob in files.items()}
            found[kind].pop("README.md")  # names the repository
            found[f"{kind}, commits"] = len(repository.history())
        return found

    return Task(
        command,
        at_work=lambda output: any(
            repositories(output)["model"] in path for _, path, _ in list(hub.requests)
        ),
        result=result,
        environment={
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        },
    )


def build_tasks(photos: Path, scratch: Path, hub: Any) -> Iterator[tuple[str, Task]]:
    """Yield the commands to kill, by name; later ones read what preparation wrote undisturbed."""
    dataset = scratch / "preparation/whole/out"
    yield "preparation", preparation_task(photos)
    yield "training", training_task(dataset)
    yield "labelling", labelling_task(photos)
    yield "push", push_task(dataset, hub)


def run_kills(args: argparse.Namespace) -> dict[str, Any]:
    """Run the part `kills`."""
    from tests.hub.hub_server import HubServer

    with (
        tempfile.TemporaryDirectory() as folder,
        HubServer(part_size=500_000, delay=0.02) as hub,  # as slow as a network
    ):
        hub.add_user("someone", token=TOKEN)
        scratch = Path(folder)
        photos = draw_photos(scratch / "photos", 100)
        return {
            name: run_task(name, task, args.kills, args.seed, scratch / name)
            for name, task in build_tasks(photos, scratch, hub)
        }


# Many users of the Space


def run_space(args: argparse.Namespace) -> dict[str, Any]:
    """Run the part `space`."""
    from space_load import started_space

    with started_space() as (url, _, process):
        return asyncio.run(
            visit_space(url, args.users, args.seconds, args.seed, lambda: process.memory_info().rss)
        )


async def visit_space(
    url: str, users: int, seconds: float, seed: int, memory: Callable[[], int]
) -> dict[str, Any]:
    """Send whole and damaged photos from many users at once, each after its last answer.

    Args:
        url: Address of the Space.
        users: Number of users.
        seconds: Time after which no new photo is sent.
        seed: Seed of the damage.
        memory: Returns the resident bytes of the Space.
    """
    import httpx
    from space_load import ANSWER_SECONDS, ask, build_request

    whole, seeds = build_request(url), encode_seeds()
    outcomes: Counter[str] = Counter()
    resident: list[int] = []
    numbers = itertools.count()
    deadline = time.monotonic() + seconds

    async def visit(bar: tqdm) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while time.monotonic() < deadline:
                number = next(numbers)
                body = whole
                if number % 2:
                    photo = base64.b64encode(mutate_image(seeds, seed, number)).decode()
                    event = whole["event_data"] | {"photo": f"data:image/jpeg;base64,{photo}"}
                    body = whole | {"event_data": event}
                try:
                    answer = (await ask(client, url, body))[1]
                    outcomes[judge_answer(answer, damaged=body is not whole)] += 1
                except (RuntimeError, httpx.HTTPError) as error:
                    outcomes[f"{type(error).__name__}: {join_lines(error)[:80]}"] += 1
                bar.update()

    async def watch() -> None:
        while time.monotonic() < deadline:
            resident.append(memory())
            await asyncio.sleep(0.2)

    with tqdm(desc=f"space: {users} users", unit="photo") as bar:
        await asyncio.gather(watch(), *(visit(bar) for _ in range(users)))
    return {"users": users, "seconds": seconds, **report(outcomes, resident, 0)}


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


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--mutations", type=int, default=10_000, metavar="N", help="of images")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each command")
    parser.add_argument("--users", type=int, default=20, metavar="N", help="of the Space")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="on the Space")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs/hostile", help="kept images")
    parser.add_argument("--output", type=Path, default=ROOT / "results/hostile.json")
    return parser.parse_args()


def main() -> None:
    """Run the parts and write the figures after each, so that a later call can go on."""
    args = parse_arguments()
    figures = json.loads(args.output.read_text()) if args.output.is_file() else {}
    for name in args.parts:
        start = time.monotonic()
        part = PARTS[name](args)
        figures[name] = {**part, "minutes": round((time.monotonic() - start) / 60, 1)}
        figures["machine"] = describe_machine()
        write_json(args.output, figures)
        print(f"{name}: {count_faults(part)} faults")


if __name__ == "__main__":
    sys.exit(finish(main))
