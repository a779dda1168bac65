"""The page that runs on a user's device, laid out and served, and visitors who use it."""

import contextlib
import functools
import http.server
import shutil
import threading

import numpy as np
import pytest
from label2label.faces import detection
from label2label.prediction.predictor import AttributePredictor
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api")

PATIENCE = 90_000  # milliseconds: WASM is slow on a busy machine
sync_api.expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def predictor(page_folder, detector_file):
    """Return Python's predictor with the page's model and detector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(detection.DETECTOR_VARIABLE, str(detector_file))
        return AttributePredictor.from_pretrained(page_folder / "assets" / "model.onnx")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A handler that serves files without a log."""

    def log_message(self, *_):
        """Discard the message."""

    def copyfile(self, source, outputfile):
        """Send a file; a tab that closes meanwhile is not an error."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)


@pytest.fixture(scope="session")
def serve():
    """Serve a folder on a new port and return the address."""
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
    """Return the page's address."""
    return serve(page_folder)


@pytest.fixture(scope="session")
def launch(browser):
    """Launch a second browser with a test's own flags."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    launched = []

    def start(*flags):
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *flags]
        launched.append(browser.browser_type.launch(executable_path=path, args=arguments))
        return launched[-1]

    yield start
    for other in launched:
        other.close()


class Visit:
    """A visitor's tab that records its network requests and errors."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.requests, self.faults = [], []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(address)
        self.status = self.page.locator("#status")

    def _hear(self, message):
        if message.type == "error":
            self.faults.append(message.text)

    def wait_for(self, said):
        """Wait until the page shows the text `said`."""
        sync_api.expect(self.status).to_contain_text(said)

    def show(self, path, said):
        """Give the page a photo, and wait until it shows the text `said`."""
        self.page.set_input_files("#file", path)
        self.wait_for(said)

    def probabilities(self):
        """Read the page's probabilities of the selected face, by attribute."""
        rows = self.page.locator("[data-probability]").evaluate_all(
            "rows => rows.map(row => [row.dataset.attribute, Number(row.dataset.probability)])"
        )
        return dict(rows)

    def timing(self, name):
        """Read one of the measured values below the photo."""
        return float(self.page.locator(f"[data-timing={name}]").get_attribute("data-value"))


@pytest.fixture
def visit(browser, site):
    """Open the page, by default in English; fail on errors and external requests."""
    visits = []

    def open_page(path="/index.html?lang=en", host=None, by=browser, **options):
        visits.append(Visit(by, (host or site) + path, **options))
        return visits[-1]

    yield open_page
    for visit in visits:
        visit.context.close()
        assert visit.faults == []
        hosts = (site, "blob:")
        assert [url for url in visit.requests if not url.startswith(hosts)] == []


@pytest.fixture(scope="session")
def one_tab(browser, site):
    """Open one tab for many photos, because loading takes longest."""
    tab = Visit(browser, f"{site}/index.html?lang=en")
    yield tab
    tab.context.close()


@pytest.fixture
def tab(one_tab):
    """Return the shared tab, and fail the test on errors in it."""
    yield one_tab
    assert one_tab.faults == []


@pytest.fixture(scope="session")
def photos(portrait, tmp_path_factory):
    """Write photos that browsers and Python must read alike, by their special property."""
    folder = tmp_path_factory.mktemp("photos")
    portrait.save(folder / "portrait.png")
    portrait.resize((200, 234)).save(folder / "small.png")
    portrait.resize((1600, 1875), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=95)
    portrait.rotate(25, expand=True).save(folder / "tilted.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    portrait.rotate(90, expand=True).save(folder / "turned.jpg", quality=95, exif=exif)
    clear = portrait.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.linspace(255, 90, 512), (600, 1)).astype(np.uint8)))
    clear.save(folder / "clear.png")
    portrait.crop((150, 100, 330, 360)).save(folder / "cut.png")
    portrait.convert("L").save(folder / "gray.png")
    portrait.rotate(-90, expand=True).save(folder / "sideways.png")
    portrait.rotate(180).save(folder / "upside_down.png")
    tiny = Image.new("RGB", (3000, 2000), "gray")
    tiny.paste(portrait.resize((205, 240)), (2200, 1300))
    tiny.save(folder / "tiny.jpg", quality=95)
    turns = Image.new("RGB", (700, 500), "gray")
    turns.paste(portrait, (-240, -50))  # one eye at the edge
    tilted = portrait.rotate(-45, fillcolor="gray").crop((70, 20, 470, 420))
    turns.paste(tilted.resize((300, 300)), (380, 100))
    turns.save(folder / "turns.png")
    two = Image.new("RGB", (1000, 620), "teal")
    two.paste(portrait, (20, 10))
    two.paste(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((384, 450)), (580, 120))
    two.save(folder / "two.png")
    return folder
