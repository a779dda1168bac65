"""How long the Space takes to start and to answer, alone and with many visitors, and its memory.

`python benchmarks/space_load.py --output results/space_load.json` starts `spaces_app/app.py` on
this machine and sends it a public-domain portrait as the page does, over HTTP and through its
queue: first from one visitor, then from many at once, each sending the next request as soon as
the response has arrived.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from label2label.files import write_whole
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 300
ANSWER_SECONDS = 60
WARM_UP_REQUESTS = 5
SAMPLE_SECONDS = 1.0


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the figures here")
    parser.add_argument("--users", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="default: 60")
    parser.add_argument(
        "--requests", type=int, default=50, metavar="N", help="of the one visitor (default: 50)"
    )
    parser.add_argument(
        "--url", help="measure a Space that runs already: neither its start nor its memory is known"
    )
    return parser.parse_args()


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
                        sys.exit(f"error: the Space did not start: {log.read()[-2000:].decode()}")
                    time.sleep(0.05)
            yield url, time.perf_counter() - start, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=30)


def build_request(url: str) -> dict[str, Any]:
    """Build the request that the page sends for a photo with one face.

    Args:
        url: Address of the Space.

    Returns:
        The body of a request to its queue, without the session.
    """
    from matplotlib import get_data_path

    file = Path(get_data_path(), "sample_data", "grace_hopper.jpg")
    photo = base64.b64encode(file.read_bytes()).decode()
    config = httpx.get(f"{url}/config", trust_env=False, timeout=60).raise_for_status().json()
    # The event has no public API name: find it by its component's name for it, `analyse`.
    (index,) = (
        dependency["id"]
        for dependency in config["dependencies"]
        if any(target[1] == "analyse" for target in dependency["targets"])
    )
    event = {"id": 1, "photo": f"data:image/jpeg;base64,{photo}", "model": ""}
    return {"data": [], "event_data": event, "fn_index": index, "trigger_id": None}


async def ask(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> float:
    """Send one request through the queue and wait for the response.

    Args:
        client: The visitor's client.
        url: Address of the Space.
        body: As `build_request` returns it.

    Returns:
        The response time in seconds.

    Raises:
        RuntimeError: The response is an error, or does not hold exactly one face.
        httpx.HTTPError: There is no response.
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
                answer = message["output"]["data"][0] if message["success"] else {}
                if len(answer.get("faces", [])) != 1:
                    raise RuntimeError(f"not one face: {str(message)[:300]}")
                return seconds
    raise RuntimeError("the queue closed without an answer")


async def measure_single(url: str, body: dict[str, Any], count: int) -> dict[str, Any]:
    """Measure one visitor who sends one request after the other."""
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
        for _ in range(WARM_UP_REQUESTS):
            await ask(client, url, body)
        requests = tqdm(range(count), desc="one visitor", unit="photo")
        seconds = [await ask(client, url, body) for _ in requests]
    return {"requests": len(seconds), **summarize(seconds)}


async def measure_many(
    url: str, body: dict[str, Any], users: int, duration: float, process: psutil.Process | None
) -> tuple[dict[str, Any], list[float]]:
    """Measure many visitors at once.

    Args:
        url: Address of the Space.
        body: As `build_request` returns it.
        users: Number of visitors.
        duration: Seconds after which no new request is sent.
        process: Process of the Space, or None.

    Returns:
        Response times and errors, and the memory of the process in megabytes, every second.
    """
    seconds: list[float] = []
    errors: list[str] = []
    memory: list[float] = []
    deadline = time.perf_counter() + duration

    async def visit(bar: tqdm) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while time.perf_counter() < deadline:
                try:
                    seconds.append(await ask(client, url, body))
                    bar.update()
                except (RuntimeError, httpx.HTTPError) as error:
                    errors.append(f"{type(error).__name__}: {error}")

    async def watch() -> None:
        while process and time.perf_counter() < deadline:
            memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(SAMPLE_SECONDS)

    start = time.perf_counter()
    with tqdm(desc=f"{users} visitors", unit="photo") as bar:
        await asyncio.gather(watch(), *(visit(bar) for _ in range(users)))
    elapsed = time.perf_counter() - start
    return {
        "users": users,
        "seconds": round(elapsed, 1),
        "answers": len(seconds),
        "answers_per_second": round(len(seconds) / elapsed, 2),
        "errors": len(errors),
        "first_errors": errors[:3],
        **summarize(seconds),
    }, memory


def summarize(seconds: list[float]) -> dict[str, float | None]:
    """Compute the median and 95th percentile in milliseconds, None without responses."""
    if len(seconds) < 2:
        return {"median_ms": None, "p95_ms": None}
    return {
        "median_ms": round(1e3 * statistics.median(seconds), 1),
        "p95_ms": round(1e3 * statistics.quantiles(seconds, n=20)[-1], 1),
    }


def summarize_memory(memory: list[float]) -> dict[str, float] | None:
    """Compute the megabytes at the start and end, after a warm-up of a tenth of the samples."""
    tenth = len(memory) // 10
    if not tenth:
        return None
    early = statistics.median(memory[tenth : 2 * tenth])
    late = statistics.median(memory[-tenth:])
    return {
        "early_mb": round(early, 1),
        "late_mb": round(late, 1),
        "growth": round(late / early - 1, 4),
    }


def measure(args: argparse.Namespace, url: str, process: psutil.Process | None) -> dict[str, Any]:
    """Measure a running Space."""
    body = build_request(url)
    single = asyncio.run(measure_single(url, body, args.requests))
    many, memory = asyncio.run(measure_many(url, body, args.users, args.seconds, process))
    return {"one_visitor": single, "many_visitors": many, "memory": summarize_memory(memory)}


def main() -> int:
    """Measure, print the results, and write them to `--output` if given.

    Returns:
        The exit code: 0, or 1 if a request failed.
    """
    args = parse_arguments()
    # Other load slows the Space down, so it is reported.
    machine = {"cpus": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
    if args.url:
        url = args.url.rstrip("/")
        figures = measure(args, url, None)
    else:
        with started_space() as (url, start_seconds, process):
            figures = measure(args, url, process)
            figures = {"start_seconds": round(start_seconds, 2), **figures}
    text = json.dumps({"machine": machine, **figures}, indent=1)
    print(text)
    if args.output:
        write_whole(args.output, text + "\n")
    return int(figures["many_visitors"]["errors"] > 0)


if __name__ == "__main__":
    sys.exit(main())
