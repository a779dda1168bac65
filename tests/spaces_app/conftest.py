"""The page that runs on a user's device, laid out and served, and a browser to drive it."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from label2label.cli import main
from label2label.export import web
from label2label.faces import detection
from PIL import Image

PAGE = Path(__file__).parents[2] / "spaces_app" / "on_device"
BROWSER_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def detector_file():
    """YuNet's ONNX file: the environment's, else the one among the real images and weights."""
    root = PAGE.parents[1].parent
    shared = Path(os.environ.get("LABEL2LABEL_SHARED", root / "shared"))
    given = os.environ.get(detection.DETECTOR_VARIABLE)
    path = Path(given) if given else shared / "weights" / detection.DETECTOR_FILE
    if not path.is_file():
        pytest.skip(f"no {path}: set {detection.DETECTOR_VARIABLE} to {detection.DETECTOR_FILE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(detection.DETECTOR_VARIABLE, str(path))
        yield path


@pytest.fixture(scope="session")
def page_folder(detector_file, tmp_path_factory):
    """A copy of the page with the shipped model beside it, as the command lays it out."""
    folder = tmp_path_factory.mktemp("site") / "on_device"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("assets"))
    assets = folder / "assets"
    assets.mkdir()
    if web.has_runtime(PAGE / "assets"):
        for name in web.RUNTIME_SHA256:
            shutil.copyfile(PAGE / "assets" / name, assets / name)
    elif shutil.which("npm") is None:
        pytest.skip("no npm: it fetches onnxruntime-web (Debian: apt install npm)")
    assert main(["export", "--web", "--output", str(assets)]) == 0
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def serve():
    """Serves a folder on a port of its own; returns the address."""
    servers = []

    def start(folder):
        handler = functools.partial(QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="session")
def site(page_folder, serve):
    """Address of the page."""
    return serve(page_folder)


@pytest.fixture(scope="session")
def portrait():
    """A public-domain portrait with one face, 512x600."""
    cbook = pytest.importorskip("matplotlib.cbook")
    return Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")


@pytest.fixture(scope="session")
def launch():
    """Launches Chromium with flags of a test's own."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the path (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(
            executable_path=chromium, args=[*BROWSER_FLAGS, *flags]
        )


@pytest.fixture(scope="session")
def film(portrait, tmp_path_factory):
    """What the fake camera sees: half a minute of the portrait, 640x480, moving a little."""
    path = tmp_path_factory.mktemp("film") / "camera.mjpeg"
    backdrop = np.full((480, 640, 3), 90, np.uint8)
    with path.open("wb") as file:
        for i in range(20):
            frame = Image.fromarray(backdrop)
            frame.paste(portrait.resize((410, 480)), (110 + i % 10, 0))
            frame.save(file, "JPEG", quality=92)
    return path


@pytest.fixture(scope="session")
def browser(launch, film):
    """A browser whose camera shows the film."""
    browser = launch(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    yield browser
    browser.close()
