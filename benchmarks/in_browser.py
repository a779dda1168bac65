"""Measure how long the page on a user's device takes for a face, beside Python on this machine.

    label2label export --web --output spaces_app/on_device/assets
    python benchmarks/in_browser.py --output results/in_browser.json

The page in headless Chromium and Python process a photo in turn, each on one thread; the page
measures its own times. This needs playwright, Chromium, and the face detector of
`label2label predict`.
"""

from __future__ import annotations

import functools
import http.server
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import command_line, finish, launch_chromium, percentiles, write_json
from label2label.errors import UserError
from label2label.faces.alignment import align_face
from label2label.faces.detection import FaceDetector
from label2label.prediction.backends import OnnxBackend
from label2label.prediction.photos import read_photo
from playwright.sync_api import Page, sync_playwright
from tqdm import tqdm

PAGE = Path(__file__).parents[1] / "spaces_app" / "on_device"
STEPS = ("detection", "attributes")
WARM_UP = 3
PATIENCE = 120_000  # milliseconds


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A handler that serves files without a log."""

    def log_message(self, *_: Any) -> None:
        """Discard the message."""


def serve(folder: Path) -> str:
    """Serve a folder from a thread until the process ends, and return the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/index.html?lang=en"


def time_page(page: Page, photo: Path) -> dict[str, float]:
    """Read the milliseconds per step that the page shows for a photo with one face."""
    page.set_input_files("#file", photo)
    page.wait_for_selector("#status:has-text('1 face found')")
    return {
        name: float(page.locator(f"[data-timing={name}]").get_attribute("data-value") or "nan")
        for name in STEPS
    }


def time_python(
    photo: np.ndarray, detector: FaceDetector, backend: OnnxBackend
) -> dict[str, float]:
    """Measure the milliseconds per step in Python, for one photo with one face."""
    start = time.perf_counter()
    faces = detector(photo)
    found = time.perf_counter()
    asked = backend.preprocessing
    crops = [align_face(photo, face, asked.alignment_template, asked.crop_size) for face in faces]
    backend.predict(np.stack(crops))
    end = time.perf_counter()
    return {"detection": 1e3 * (found - start), "attributes": 1e3 * (end - found)}


def measure(folder: Path, photo: Path, repeats: int) -> dict[str, Any]:
    """Time the page of a folder and Python in turn, by step, on a photo with one face."""
    description = folder / "assets" / "page.json"
    if not description.is_file():
        raise UserError(f"{description} does not exist: `label2label export --web` writes it")
    described = json.loads(description.read_text(encoding="utf-8"))
    backend = OnnxBackend(description.parent / described["model"]["file"], threads=1)
    detector, pixels = FaceDetector(), read_photo(photo)
    if len(faces := detector(pixels)) != 1:
        raise UserError(f"{photo} shows {len(faces)} faces: give a photo of one")
    cv2.setNumThreads(1)
    times: dict[str, list[dict[str, float]]] = {"browser": [], "python": []}
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(serve(folder))
        for _ in tqdm(range(WARM_UP + repeats), desc="photo", unit="turn"):
            times["browser"].append(time_page(page, photo))
            times["python"].append(time_python(pixels, detector, backend))
        version = browser.version
        browser.close()
    return {
        **{
            name: {step: percentiles([one[step] for one in values[WARM_UP:]]) for step in STEPS}
            for name, values in times.items()
        },
        "photo": [*reversed(pixels.shape[:2])],
        "repeats": repeats,
        "threads": 1,
        "chromium": version,
        "runtime": f"{described['runtime']['name']} {described['runtime']['version']}",
    }


def main() -> None:
    """Measure and write the results."""
    parser = command_line(__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, metavar="DIR")
    parser.add_argument("--photo", type=Path, default=PAGE / "example.jpg", metavar="FILE")
    parser.add_argument("--repeats", type=int, default=50, metavar="N")
    parser.add_argument("--output", type=Path, default=Path("results/in_browser.json"))
    args = parser.parse_args()
    write_json(args.output, measure(args.page, args.photo, args.repeats))


if __name__ == "__main__":
    sys.exit(finish(main))
