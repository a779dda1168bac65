"""The Space, served for real, and a browser that uses it as people do."""

import base64
import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from label2label.cli import main
from label2label.data.vocabulary import VOCABULARIES
from label2label.export import web
from label2label.faces import detection
from PIL import Image

from ..conftest import save_tiny_model

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces_app"
PAGE = SPACE / "on_device"
sys.path.insert(0, str(SPACE))  # the Space's modules import each other as top-level modules

START_SECONDS = 300
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A fake webcam with a test picture, and no permission prompt.
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
ATTRIBUTES = set(VOCABULARIES["celeba-41"].attributes)  # of the shipped models
NAMES = ("Smiling", "Male", "Wearing_Hat", "No_Beard", "Young", "Eyeglasses")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """Return the folder of a tiny random model of six attributes; its name contains "tiny"."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "random-tiny", NAMES)


@pytest.fixture(scope="session")
def encode():
    """Return a function from a PIL image to a file's bytes."""

    def to_bytes(image, kind="PNG", **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return to_bytes


@pytest.fixture(scope="session")
def photo_files(tmp_path_factory, portrait, encode):
    """Write valid and invalid photos as people upload them; return them by name."""
    folder = tmp_path_factory.mktemp("photos")
    gray = Image.new("RGB", (400, 300), "gray")
    crowd = Image.new("RGB", (6 * 200, 5 * 200))
    face = portrait.crop((130, 30, 410, 310)).resize((200, 200))
    group = Image.new("RGB", (4000, 3000), (90, 110, 120))
    group.paste(Image.open(PAGE / "example.jpg"), (1500, 1000))
    huge = Image.new("RGB", (8000, 7000), "teal")
    huge.paste(portrait.resize((2560, 3000)), (4000, 2000))
    for index in range(30):
        crowd.paste(face, (index % 6 * 200, index // 6 * 200))
    contents = {
        "portrait.jpg": encode(portrait, "JPEG", quality=95),
        "phone.jpg": encode(portrait.resize((2560, 3000)), "JPEG", quality=95),
        "small_face.jpg": encode(group, "JPEG", quality=95),
        "huge.jpg": encode(huge, "JPEG", quality=90),
        "no_face.png": encode(gray),
        "not_an_image.jpg": b"these are words, not pixels",
        "hundred_megapixels.png": encode(Image.new("1", (10_000, 10_000))),
        "animated.gif": encode(portrait, "GIF", save_all=True, append_images=[gray]),
        "crowd.jpg": encode(crowd, "JPEG", quality=95),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def find_detector():
    """Return YuNet's file, or None if this machine lacks it and the cascade is used instead."""
    shared = Path(os.environ.get("LABEL2LABEL_SHARED", ROOT.parent / "shared"))
    path = shared / "weights" / detection.DETECTOR_FILE
    return os.environ.get(detection.DETECTOR_VARIABLE) or (str(path) if path.is_file() else None)


@pytest.fixture(scope="session")
def detector_file():
    """Return YuNet's ONNX file."""
    path = find_detector()
    if path is None:
        pytest.skip(f"set {detection.DETECTOR_VARIABLE} to {detection.DETECTOR_FILE}")
    return path


@pytest.fixture(scope="session")
def page_folder(detector_file, tmp_path_factory):
    """Copy the page that runs in the browser, with the files that the export puts beside it."""
    folder = tmp_path_factory.mktemp("site") / "on_device"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("assets"))
    assets = folder / "assets"
    assets.mkdir()
    if web.has_runtime(PAGE / "assets"):
        for name in web.RUNTIME_SHA256:
            shutil.copyfile(PAGE / "assets" / name, assets / name)
    elif shutil.which("npm") is None:
        pytest.skip("no npm, which fetches onnxruntime-web (Debian: apt install npm)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(detection.DETECTOR_VARIABLE, detector_file)
        assert main(["export", "--web", "--output", str(assets)]) == 0
    return folder


@pytest.fixture(scope="session")
def has_yunet():
    """Return whether the Space uses YuNet; the cascade misses faces in a crowd."""
    return find_detector() is not None


@pytest.fixture(scope="session")
def uploads(tmp_path_factory):
    """Return the folder in which the Space's Gradio would keep files."""
    return tmp_path_factory.mktemp("uploads")


@contextlib.contextmanager
def started_space(*arguments, **options):
    """Start a copy of the Space by `space_process`, and yield its address."""
    with space_process(*arguments, **options) as (url, _):
        yield url


@contextlib.contextmanager
def space_process(scratch, models="", uploads=None, page=None):
    """Start a copy of the Space's files in git, and yield its address and its process.

    `models` sets LABEL2LABEL_SPACE_MODELS, and `page` is the folder of the page in the tab On
    device.
    """
    space = scratch / "spaces_app"
    shutil.copytree(SPACE, space, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (scratch / "results").symlink_to(ROOT / "results")
    if page:
        shutil.copytree(page, space / "on_device", dirs_exist_ok=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(uploads or scratch / "uploads"),
        "LABEL2LABEL_SPACE_MODELS": models,
        "HF_HUB_OFFLINE": "1",
        "no_proxy": "127.0.0.1,localhost",
    }
    detector = find_detector()
    if detector:
        environment["LABEL2LABEL_FACE_DETECTOR"] = detector
    log = scratch / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(space / "app.py")],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}/"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                opener.open(url, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the Space did not start: {log.read_text()[-2000:]}")
                time.sleep(0.2)
        yield url, process
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def space_url(tmp_path_factory, tiny_folder, uploads):
    """Start the Space as on the Hub, with one more model, and yield its address."""
    pytest.importorskip("gradio")
    with started_space(tmp_path_factory.mktemp("space"), str(tiny_folder), uploads) as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    """Start headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[*BROWSER_ARGUMENTS])
        yield chromium
        chromium.close()


DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
CAMERA_SECONDS = 2.5  # long enough for a camera to start


@pytest.fixture
def open_page(browser, space_url):
    """Return a function that opens this or another Space, by default on a desktop.

    Errors of the page's scripts, and requests to anywhere else, fail the test.
    """
    contexts, faults = [], []

    def open_space(url=space_url, **options):
        context = browser.new_context(**{"locale": "en-US", **DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: (
                faults.append(f"asks {request.url}")
                if not request.url.startswith((url, "data:", "blob:"))
                and "cdnjs.cloudflare.com" not in request.url  # Gradio's own, for iframes
                else None
            ),
        )
        page.set_default_timeout(60_000)
        page.goto(url)
        page.wait_for_selector("#explorer .photo")
        return page

    yield open_space
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def data_url(encode):
    """Return a function from a PIL image to a data URL, as the page sends photos."""
    return lambda image: "data:image/png;base64," + base64.b64encode(encode(image)).decode()


def upload(page, path):
    page.locator("#explorer input[type=file]").set_input_files(str(path))


def upload_and_wait(page, path):
    upload(page, path)
    page.wait_for_selector("#explorer .status.good")
