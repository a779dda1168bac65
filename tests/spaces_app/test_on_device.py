"""The page reads faces as Python does, on the device alone, for everybody who comes to it."""

import json
import re
import shutil
import threading

import numpy as np
import pytest
from label2label.data.vocabulary import VOCABULARIES
from label2label.prediction.predictor import AttributePredictor
from PIL import Image, ImageDraw

pytestmark = pytest.mark.slow

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=60_000)  # a busy machine's WASM is slow


class Visit:
    """A visitor's tab: everything that it asked of the network and that went wrong in it."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(accept_downloads=True, **options)
        self.context.set_default_timeout(60_000)
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

    def show(self, path, said="found"):
        """Give the page a photo, and wait for what it says."""
        self.page.set_input_files("#file", path)
        expect(self.status).to_contain_text(said)

    def probabilities(self):
        """What the page tells of the chosen face, by attribute."""
        rows = self.page.locator("[data-probability]").evaluate_all(
            "rows => rows.map(row => [row.dataset.attribute, Number(row.dataset.probability)])"
        )
        return dict(rows)

    def timing(self, name):
        """One of the measured values under the photo."""
        return float(self.page.locator(f"[data-timing={name}]").get_attribute("data-value"))


@pytest.fixture
def visit(browser, site):
    """Opens the page; at the end nothing has gone wrong in it or left it."""
    visits = []

    def open_page(path="/index.html?lang=en&theme=light", **options):
        visits.append(Visit(browser, site + path, **options))
        return visits[-1]

    yield open_page
    for visit in visits:
        visit.context.close()
        assert visit.faults == []
        assert {url for url in visit.requests if not url.startswith((site, "blob:"))} == set()


@pytest.fixture(scope="module")
def predictor(page_folder):
    """Python's predictor of the same file."""
    return AttributePredictor.from_pretrained(page_folder / "assets" / "model.onnx")


@pytest.fixture(scope="module")
def photos(portrait, tmp_path_factory):
    """Photos that browsers and Python must see alike, by what is particular in them."""
    folder = tmp_path_factory.mktemp("photos")
    portrait.save(folder / "portrait.png")
    portrait.resize((200, 234)).save(folder / "small.png")
    portrait.resize((1600, 1875), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=95)
    portrait.rotate(25, expand=True).save(folder / "tilted.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    portrait.rotate(90, expand=True).save(folder / "turned.jpg", quality=95, exif=exif)
    clear = portrait.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.linspace(255, 90, 512), (600, 1)).astype(np.uint8)))
    clear.save(folder / "clear.png")
    portrait.crop((150, 100, 330, 360)).save(folder / "cut.png")
    two = Image.new("RGB", (1000, 620), "teal")
    two.paste(portrait, (20, 10))
    two.paste(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((384, 450)), (580, 120))
    two.save(folder / "two.png")
    return folder


@pytest.mark.parametrize(
    "name",
    ["portrait.png", "small.png", "large.jpg", "tilted.png", "turned.jpg", "clear.png", "cut.png"],
)
def test_probabilities_are_those_of_python(name, visit, predictor, photos):
    tab = visit()
    tab.show(photos / name, "1 face found")
    (face,) = predictor(photos / name)
    found = tab.probabilities()
    assert list(face["attributes"].keys() - found.keys()) == []
    assert len(found) == 40
    differences = {key: abs(value - found[key]) for key, value in face["attributes"].items()}
    assert max(differences.values()) < 1e-2, differences


def test_jpeg_of_the_field_is_read_as_in_python(visit, predictor):
    cbook = pytest.importorskip("matplotlib.cbook")
    photo = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    tab = visit()
    tab.show(photo, "1 face found")
    (face,) = predictor(photo)
    found = tab.probabilities()
    assert max(abs(value - found[key]) for key, value in face["attributes"].items()) < 1e-2
    assert found["Eyeglasses"] > 0.5


def test_saved_file_is_what_predict_prints(visit, predictor, photos, tmp_path):
    tab = visit()
    tab.show(photos / "two.png", "2 faces found")
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Save as JSON").click()
    assert download.value.suggested_filename == "two.json"
    download.value.save_as(tmp_path / "two.json")
    (entry,) = json.loads((tmp_path / "two.json").read_text())
    assert entry["image"] == "two.png"
    expected = predictor(photos / "two.png")
    assert len(entry["faces"]) == len(expected) == 2
    for face, other in zip(entry["faces"], expected, strict=True):
        assert face.keys() == other.keys()
        assert np.abs(np.subtract(face["box"], other["box"])).max() < 1
        assert abs(face["score"] - other["score"]) < 1e-2
        assert list(face["attributes"]) == list(other["attributes"])
        values = np.subtract(list(face["attributes"].values()), list(other["attributes"].values()))
        assert np.abs(values).max() < 1e-2


def test_keyboard_chooses_the_face_that_is_shown(visit, photos):
    tab = visit()
    tab.show(photos / "two.png", "2 faces found")
    choices = tab.page.get_by_role("radio")
    expect(choices).to_have_count(2)
    expect(tab.page.get_by_role("radio", name="Face 1")).to_be_checked()  # the larger one
    first = tab.probabilities()
    choices.first.focus()
    tab.page.keyboard.press("ArrowRight")
    expect(tab.page.get_by_role("radio", name="Face 2")).to_be_checked()
    second = tab.probabilities()
    assert max(abs(second[key] - first[key]) for key in first) > 1e-3


def test_attributes_present_are_those_above_their_thresholds(visit, photos, page_folder):
    description = json.loads((page_folder / "assets" / "page.json").read_text())
    thresholds = dict(zip(description["attributes"], description["thresholds"], strict=True))
    tab = visit()
    tab.show(photos / "portrait.png")
    present = {name for name, p in tab.probabilities().items() if p >= thresholds[name]}
    marked = tab.page.locator(".row.yes").evaluate_all("rows => rows.map(r => r.dataset.attribute)")
    assert set(marked) == present
    impressions = set(description["groups"]["person"])
    assert tab.page.locator("#chips li").count() == len(present - impressions)


def test_time_per_face_is_measured_and_shown(visit, photos):
    tab = visit()
    tab.show(photos / "portrait.png")
    assert 0 < tab.timing("attributes") < 10_000
    assert 0 < tab.timing("detection") < 30_000
    expect(tab.page.locator("#timings")).to_contain_text(re.compile(r"Attributes, per face\s*[\d.]+ ms"))


def test_photo_without_a_face_says_so(visit, tmp_path):
    drawn = Image.new("RGB", (640, 480), "steelblue")
    ImageDraw.Draw(drawn).rectangle((100, 200, 500, 300), fill="wheat")
    drawn.save(tmp_path / "boat.png")
    tab = visit()
    tab.show(tmp_path / "boat.png", "No face found")
    assert tab.probabilities() == {}
    expect(tab.page.get_by_role("button", name="Save as JSON")).to_be_hidden()


def test_file_that_is_no_image_says_so_and_the_next_photo_works(visit, photos, tmp_path):
    (tmp_path / "notes.jpg").write_text("no image at all")
    tab = visit()
    tab.show(tmp_path / "notes.jpg", "notes.jpg is not an image")
    (tmp_path / "cut.jpg").write_bytes((photos / "large.jpg").read_bytes()[:300])
    tab.show(tmp_path / "cut.jpg", "cut.jpg is not an image")
    tab.show(photos / "portrait.png", "1 face found")
    assert len(tab.probabilities()) == 40


def test_image_too_small_for_a_face_says_so(visit, tmp_path):
    Image.new("RGB", (12, 40)).save(tmp_path / "dot.png")
    visit().show(tmp_path / "dot.png", "12×40 pixels are too few")


def test_example_is_one_click_away(visit):
    tab = visit()
    tab.page.get_by_role("button", name="Try an example").click()
    expect(tab.status).to_contain_text("1 face found")
    assert tab.probabilities()["Smiling"] > 0.5


def test_photo_can_be_dropped(visit, photos):
    tab = visit()
    content = list((photos / "small.png").read_bytes())
    transfer = tab.page.evaluate_handle(
        """content => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], "a.png", {type: "image/png"}));
            return transfer;
        }""",
        content,
    )
    tab.page.dispatch_event("#frame", "drop", {"dataTransfer": transfer})
    expect(tab.status).to_contain_text("1 face found")


def test_camera_shows_attributes_live_and_stops(visit):
    tab = visit()
    expect(tab.status).to_contain_text("Ready")
    tab.page.get_by_role("button", name="Use camera").first.click()
    expect(tab.status).to_contain_text("1 face found")
    expect(tab.page.locator("#live")).to_be_visible()
    expect(tab.page.locator("[data-timing=rate]")).to_be_visible()
    assert tab.timing("rate") > 0
    assert tab.probabilities()["Eyeglasses"] > 0.5
    tab.page.get_by_role("button", name="Stop camera").click()
    expect(tab.page.locator("#live")).to_be_hidden()
    expect(tab.page.locator("#video")).to_be_hidden()
    assert tab.page.evaluate("document.getElementById('video').srcObject") is None
    expect(tab.page.get_by_role("button", name="Use camera")).to_be_visible()
    assert len(tab.probabilities()) == 40  # the last frame's


def test_photo_ends_the_camera(visit, photos):
    tab = visit()
    tab.page.get_by_role("button", name="Use camera").first.click()
    expect(tab.page.locator("#live")).to_be_visible()
    tab.show(photos / "portrait.png", "1 face found")
    expect(tab.page.locator("#live")).to_be_hidden()
    expect(tab.page.locator("#photo")).to_be_visible()


def test_camera_without_a_face_in_view_does_not_crash(launch, site):
    browser = launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    tab = Visit(browser, f"{site}/index.html?lang=en")
    tab.page.get_by_role("button", name="Use camera").first.click()
    expect(tab.status).to_contain_text("No face in view")
    tab.page.get_by_role("button", name="Stop camera").click()
    expect(tab.page.locator("#photo")).to_be_visible()
    assert tab.faults == []
    browser.close()


def test_camera_that_is_missing_or_denied_says_so(launch, site):
    browser = launch()
    tab = Visit(browser, f"{site}/index.html?lang=en")
    tab.page.get_by_role("button", name="Use camera").first.click()
    expect(tab.status).to_have_text(re.compile("camera may not be used|No camera was found"))
    assert tab.faults == []
    browser.close()


@pytest.fixture
def other_host(serve, tmp_path):
    """Another server and the list of what was asked of it."""
    (tmp_path / "spy.txt").write_text("asked")
    return serve(tmp_path)


def test_browser_forbids_page_and_worker_to_reach_another_host(browser, site, other_host):
    tab = Visit(browser, f"{site}/index.html?lang=en")
    expect(tab.status).to_contain_text("Ready")
    (worker,) = tab.page.workers
    ask = "url => fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'refused')"
    for scope in (tab.page, worker):
        assert scope.evaluate(ask, f"{other_host}/spy.txt") == "refused"
        assert scope.evaluate(ask, f"{site}/style.css") == "sent"
    tab.context.close()


def test_page_works_without_a_network_once_it_has_loaded(visit, photos):
    tab = visit()
    expect(tab.status).to_contain_text("Ready")
    tab.context.set_offline(True)
    tab.show(photos / "portrait.png", "1 face found")
    assert len(tab.probabilities()) == 40


def test_photo_that_comes_before_the_model_is_read_once_it_is_there(visit, photos):
    tab = visit()
    gate = threading.Event()
    tab.page.route("**/model.onnx", lambda route: (gate.wait(0.5), route.continue_()))
    tab.page.reload()
    tab.show(photos / "portrait.png", "1 face found")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_nothing_is_wider_than_the_screen(width, language, visit, photos):
    tab = visit(f"/index.html?lang={language}", viewport={"width": width, "height": 844})
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    expect(tab.page.locator("#progress")).to_be_hidden()
    assert not tab.page.evaluate(wide)
    tab.show(photos / "two.png", "2")
    expect(tab.page.locator("#chips li").first).to_be_visible()
    assert not tab.page.evaluate(wide)
    buttons = tab.page.locator("button:visible, label.button:visible, select:visible")
    for box in (button.bounding_box() for button in buttons.all()):
        assert box["height"] >= 44  # a finger's


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_no_serious_violation_of_accessibility(theme, language, visit, photos):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = visit(f"/index.html?lang={language}&theme={theme}", reduced_motion="reduce")
    expect(tab.page.locator("#progress")).to_be_hidden()

    def violations():
        found = axe.run(tab.page).response["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] != "minor"]

    assert violations() == []
    tab.show(photos / "two.png", "2")
    tab.page.locator("summary").click()
    assert violations() == []


def test_language_and_colours_are_kept_for_the_next_visit(visit, photos):
    tab = visit("/index.html", locale="en-GB", color_scheme="light")
    tab.show(photos / "portrait.png", "1 face found")
    tab.page.get_by_label("Language").select_option("ko")
    expect(tab.status).to_have_text("얼굴 1개를 찾았습니다")
    expect(tab.page.locator("html")).to_have_attribute("lang", "ko")
    expect(tab.page.locator("[data-attribute=Eyeglasses] span").first).to_have_text("안경")
    tab.page.get_by_role("button", name="어두운 색").click()
    tab.page.reload()
    expect(tab.page.locator("html")).to_have_attribute("lang", "ko")
    expect(tab.page.locator("html")).to_have_attribute("data-theme", "dark")
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 19, 24)"


def test_browser_set_to_korean_gets_korean(visit):
    tab = visit("/index.html", locale="ko-KR")
    expect(tab.page.locator("h1")).to_have_text("내 기기에서 보는 얼굴 속성")


def test_both_languages_say_everything(visit):
    tab = visit()
    languages = tab.page.evaluate(
        """async () => {
            const { LANGUAGES, Words } = await import("./strings.js");
            return Object.keys(LANGUAGES).map((key) => new Words(key).strings);
        }"""
    )
    english, korean = languages
    assert english.keys() == korean.keys()
    assert english["groups"].keys() == korean["groups"].keys()
    names = {name for vocabulary in VOCABULARIES.values() for name in vocabulary.attributes}
    assert korean["names"].keys() == names
    assert english["names"].keys() <= names
    used = set(tab.page.locator("[data-text]").evaluate_all("all => all.map(e => e.dataset.text)"))
    assert used <= english.keys()
    for key in english.keys() - {"groups", "names", "found"}:
        places = [set(re.findall(r"{\w+}", text[key])) for text in languages]
        assert places[0] == places[1], key


def test_missing_model_says_so(browser, page_folder, serve, tmp_path):
    shutil.copytree(page_folder, tmp_path / "page", ignore=shutil.ignore_patterns("model.onnx"))
    tab = Visit(browser, f"{serve(tmp_path / 'page')}/index.html?lang=en")
    expect(tab.status).to_contain_text("could not be loaded: model.onnx: 404")
    expect(tab.page.locator("#progress")).to_be_hidden()
    tab.context.close()
