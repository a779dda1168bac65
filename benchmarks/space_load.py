"""How long the Space takes to start and to answer, alone and with many visitors, and its memory.

`python benchmarks/space_load.py --output results/space_load.json` starts `spaces_app/app.py` on
this machine and sends it a public-domain portrait as the page does, over HTTP and through its
queue: first from one visitor, then from many at once, each sending the next request as soon as
the response has arrived.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from common import command_line, finish, percentiles, sample_photo, write_json
from label2label.errors import UserError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 300
ANSWER_SECONDS = 60
WARM_UP_REQUESTS = 5
SAMPLE_SECONDS = 1.0


@contextmanager
def started_space() -> Iterator[tuple[str, float, psutil.Process]]:
    """Start the Space and yield its address, the seconds until it responded, and its process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, ROOT / "spaces_app" / "app.py"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                seconds = time.perf_counter() - start
                try:
                    httpx.get(url, timeout=5, trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    if process.poll() is not None or seconds > START_SECONDS:
                        log.seek(0)
                        text = log.read()[-2000:].decode()
                        raise UserError(f"the Space did not start: {text}") from None
                    time.sleep(0.05)
            yield url, time.perf_counter() - start, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)


def build_request(url: str) -> dict[str, Any]:
    """Build the request that the page sends to the queue for a photo, without the session."""
    photo = base64.b64encode(sample_photo().read_bytes()).decode()
    config = httpx.get(f"{url}/config", trust_env=False, timeout=60).raise_for_status().json()
    # The event has no public API name: find it by its component's name for it, `analyse`.
    index = next(
        dependency["id"]
        for dependency in config["dependencies"]
        if any(target[1] == "analyse" for target in dependency["targets"])
    )
    event = {"id": 1, "photo": f"data:image/jpeg;base64,{photo}", "models": [""]}
    return {"data": [], "event_data": event, "fn_index": index, "trigger_id": None}


async def ask(
    client: httpx.AsyncClient, url: str, body: dict[str, Any]
) -> tuple[float, dict[str, Any]]:
    """Send one request through the queue; return the seconds until its answer, and the answer.

    It raises RuntimeError if the request fails or the queue closes, and httpx.HTTPError.
    """
    session = uuid.uuid4().hex
    start = time.perf_counter()
    joined = await client.post(
        f"{url}/gradio_api/queue/join", json={**body, "session_hash": session}
    )
    joined.raise_for_status()
    stream = client.stream("GET", f"{url}/gradio_api/queue/data", params={"session_hash": session})
    async with stream as response:
        async for line in response.aiter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                seconds = time.perf_counter() - start
                if not message["success"]:
                    raise RuntimeError(f"the request fails: {str(message)[:300]}")
                return seconds, message["output"]["data"][0]
    raise RuntimeError("the queue closed without an answer")


async def time_one_face(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> float:
    """Return the response time of `ask` in seconds; an answer must hold exactly one face."""
    seconds, answer = await ask(client, url, body)
    if len(answer.get("faces", [])) != 1:
        raise RuntimeError(f"not one face: {str(answer)[:300]}")
    return seconds


async def measure_single(url: str, body: dict[str, Any], count: int) -> dict[str, Any]:
    """Measure one visitor who sends one request after the other."""
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
        for _ in range(WARM_UP_REQUESTS):
            await time_one_face(client, url, body)
        requests = tqdm(range(count), desc="one visitor", unit="photo")
        seconds = [await time_one_face(client, url, body) for _ in requests]
    return {"requests": len(seconds), **summarize(seconds)}


async def send_from_many(
    users: int,
    duration: float,
    send: Callable[[httpx.AsyncClient], Awaitable[None]],
    watch: Callable[[], None],
) -> None:
    """Send requests from many visitors at once, each after its last answer, for so many seconds.

    Meanwhile `watch` is called every `SAMPLE_SECONDS`.
    """
    deadline = time.perf_counter() + duration

    async def visit(bar: tqdm) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while time.perf_counter() < deadline:
                await send(client)
                bar.update()

    async def watch_often() -> None:
        while time.perf_counter() < deadline:
            watch()
            await asyncio.sleep(SAMPLE_SECONDS)

    with tqdm(desc=f"{users} visitors", unit="photo") as bar:
        await asyncio.gather(watch_often(), *(visit(bar) for _ in range(users)))


async def measure_many(
    url: str, body: dict[str, Any], users: int, duration: float, process: psutil.Process
) -> dict[str, dict[str, Any]]:
    """Measure many visitors at once, who send no new request after `duration` seconds."""
    seconds: list[float] = []
    errors: list[str] = []
    memory: list[float] = []

    async def send(client: httpx.AsyncClient) -> None:
        try:
            seconds.append(await time_one_face(client, url, body))
        except (RuntimeError, httpx.HTTPError) as error:
            errors.append(f"{type(error).__name__}: {error}")

    def watch() -> None:
        memory.append(process.memory_info().rss / 1e6)

    start = time.perf_counter()
    await send_from_many(users, duration, send, watch)
    elapsed = time.perf_counter() - start
    early, late = early_and_late(memory)
    visitors = {
        "users": users,
        "seconds": round(elapsed, 1),
        "answers": len(seconds),
        "answers_per_second": round(len(seconds) / elapsed, 2),
        "errors": len(errors),
        "first_errors": errors[:3],
        **summarize(seconds),
    }
    growth = round(late / early - 1, 4)
    figures = {"early_mb": round(early, 1), "late_mb": round(late, 1), "growth": growth}
    return {"many_visitors": visitors, "memory": figures}


def summarize(seconds: list[float]) -> dict[str, float | None]:
    """Compute the median and 95th percentile in milliseconds, None without responses."""
    if not seconds:
        return {"median_ms": None, "p95_ms": None}
    times = percentiles(seconds)
    return {"median_ms": round(1e3 * times["p50"], 1), "p95_ms": round(1e3 * times["p95"], 1)}


def early_and_late(memory: list[float]) -> tuple[float, float]:
    """Return the median memory early on, after a warm-up of a tenth of the samples, and late."""
    tenth = max(1, len(memory) // 10)
    early = memory[tenth : 2 * tenth] or memory
    return statistics.median(early), statistics.median(memory[-tenth:])


def main() -> None:
    """Measure, print the results, and write them to `--output`."""
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the figures here")
    parser.add_argument("--users", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="default: 60")
    parser.add_argument(
        "--requests", type=int, default=50, metavar="N", help="of the one visitor (default: 50)"
    )
    args = parser.parse_args()
    # Other load slows the Space down, so it is reported.
    figures: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
    }
    with started_space() as (url, start_seconds, process):
        figures["start_seconds"] = round(start_seconds, 2)
        body = build_request(url)
        figures["one_visitor"] = asyncio.run(measure_single(url, body, args.requests))
        figures |= asyncio.run(measure_many(url, body, args.users, args.seconds, process))
    print(json.dumps(figures, indent=1))
    if args.output:
        write_json(args.output, figures)
    if figures["many_visitors"]["errors"]:
        raise UserError(f"requests failed: {figures['many_visitors']['first_errors'][0]}")


if __name__ == "__main__":
    sys.exit(finish(main))
