"""Whoever comes with whatever file, by any means and in any language, is served."""

import re
import shutil

import pytest
from PIL import Image, ImageDraw

from ..conftest import ATTRIBUTES

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

pytestmark = pytest.mark.slow


def test_photo_without_a_face_says_so(tab, tmp_path):
    drawn = Image.new("RGB", (640, 480), "steelblue")
    ImageDraw.Draw(drawn).rectangle((100, 200, 500, 300), fill="wheat")
    drawn.save(tmp_path / "boat.png")
    tab.show(tmp_path / "boat.png", "No face found")
    assert tab.probabilities() == {}
    expect(tab.page.get_by_role("button", name="Save as JSON")).to_be_hidden()


def test_file_that_is_no_image_says_so_and_the_next_photo_works(tab, photos, tmp_path):
    (tmp_path / "notes.jpg").write_text("no image at all")
    tab.show(tmp_path / "notes.jpg", "notes.jpg is not an image")
    (tmp_path / "cut.jpg").write_bytes((photos / "large.jpg").read_bytes()[:300])
    tab.show(tmp_path / "cut.jpg", "cut.jpg is not an image")
    (tmp_path / "empty.png").touch()
    tab.show(tmp_path / "empty.png", "empty.png is not an image")
    tab.show(photos / "portrait.png", "1 face found")
    assert tab.probabilities().keys() == ATTRIBUTES


def test_image_too_small_for_a_face_says_so(tab, tmp_path):
    Image.new("RGB", (12, 40)).save(tmp_path / "dot.png")
    tab.show(tmp_path / "dot.png", "12×40 pixels are too few")


def test_photo_larger_than_a_canvas_is_read(tab, portrait, tmp_path):
    wide = Image.new("RGB", (6000, 4000), "teal")
    wide.paste(portrait.resize((1536, 1800)), (2000, 1000))
    wide.save(tmp_path / "wide.jpg", quality=90)
    tab.show(tmp_path / "wide.jpg", "1 face found")
    assert tab.probabilities()["Eyeglasses"] > 0.5


def test_last_of_two_photos_is_the_one_shown(tab, photos):
    tab.page.set_input_files("#file", photos / "two.png")
    tab.show(photos / "portrait.png", "1 face found")
    tab.page.wait_for_timeout(1000)
    expect(tab.status).to_have_text("1 face found")
    expect(tab.page.get_by_role("radio")).to_have_count(1)


def test_bad_file_while_the_model_loads_leaves_no_earlier_photo_waiting(visit, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    tab, held = visit(), []
    tab.page.route("**/model.onnx", lambda route: held.append(route))
    tab.page.reload()
    tab.page.set_input_files("#file", photos / "portrait.png")
    expect(tab.page.locator("#photo")).to_be_visible()
    tab.show(tmp_path / "broken.png", "broken.png is not an image")
    held[0].continue_()
    tab.wait_for("Ready")


def test_keyboard_chooses_the_face_that_is_shown(tab, photos):
    tab.show(photos / "two.png", "2 faces found")
    expect(tab.page.get_by_role("radio", name="Face 1")).to_be_checked()  # the larger one
    first = tab.probabilities()
    tab.page.get_by_role("radio").first.focus()
    tab.page.keyboard.press("ArrowRight")
    expect(tab.page.get_by_role("radio", name="Face 2")).to_be_checked()
    second = tab.probabilities()
    assert max(abs(second[key] - first[key]) for key in first) > 1e-3
    tab.page.locator("#boxes rect").first.click()
    expect(tab.page.get_by_role("radio", name="Face 1")).to_be_checked()
    assert tab.probabilities() == first


def test_photo_can_be_dropped(tab, photos):
    transfer = tab.page.evaluate_handle(
        """content => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], "a.png", {type: "image/png"}));
            return transfer;
        }""",
        list((photos / "small.png").read_bytes()),
    )
    tab.page.dispatch_event("#frame", "drop", {"dataTransfer": transfer})
    tab.wait_for("1 face found")


def test_example_is_one_key_away_before_the_model_has_loaded(visit):
    tab = visit()
    tab.page.get_by_role("button", name="Try an example").press("Enter")
    tab.wait_for("1 face found")
    assert tab.probabilities()["Smiling"] > 0.5


@pytest.mark.parametrize("language", ["en", "ko"])
def test_nothing_is_wider_than_the_screen(language, visit, photos):
    tab = visit(f"/index.html?lang={language}")
    expect(tab.page.locator("#progress")).to_be_hidden()
    for photo in (None, photos / "two.png"):
        if photo:
            tab.show(photo, "2")
        for width in (320, 390, 768, 1280):
            tab.page.set_viewport_size({"width": width, "height": 844})
            size = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            content, screen = tab.page.evaluate(size)
            assert content <= screen == width
            buttons = tab.page.locator("button:visible, label.button:visible, select:visible")
            heights = buttons.evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
            assert min(heights) >= 44  # a finger's


@pytest.mark.parametrize("language", ["en", "ko"])
def test_no_serious_violation_of_accessibility(language, visit, photos):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = visit(f"/index.html?lang={language}", reduced_motion="reduce")
    expect(tab.page.locator("#progress")).to_be_hidden()

    def violations():
        found = axe.run(tab.page).response["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] != "minor"]

    assert violations() == []
    tab.show(photos / "two.png", "2")
    tab.page.locator("summary").click()
    assert violations() == []
    tab.page.emulate_media(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert tab.page.evaluate(ground) == "rgb(17, 19, 24)"
    assert violations() == []


def test_language_is_switched_and_the_face_stays(visit, photos):
    tab = visit("/index.html", locale="en-GB")
    tab.show(photos / "portrait.png", "1 face found")
    tab.page.get_by_label("Language").select_option("ko")
    expect(tab.status).to_have_text("얼굴 1개를 찾았습니다")
    expect(tab.page.locator("[data-attribute=Male] span").first).to_have_text("남성 (인지된)")
    assert tab.probabilities().keys() == ATTRIBUTES


def test_browser_set_to_korean_gets_korean(visit):
    tab = visit("/index.html", locale="ko-KR")
    expect(tab.page.locator("h1")).to_have_text("내 기기에서 보는 얼굴 속성")


def test_both_languages_say_everything(tab):
    languages = tab.page.evaluate(
        """async () => {
            const { LANGUAGES, Words } = await import("./strings.js");
            return Object.keys(LANGUAGES).map((key) => new Words(key).strings);
        }"""
    )
    english, korean = languages
    assert english.keys() == korean.keys()
    assert english["groups"].keys() == korean["groups"].keys()
    assert english["flaws"].keys() == korean["flaws"].keys()
    used = tab.page.locator("[data-text]").evaluate_all("all => all.map(e => e.dataset.text)")
    assert set(used) <= english.keys()
    for key in english.keys() - {"groups", "found", "flaws"}:
        places = [set(re.findall(r"{\w+}", text[key])) for text in languages]
        assert places[0] == places[1], key


def test_page_around_it_switches_the_language_and_the_photo_stays(visit, photos):
    tab = visit()
    tab.show(photos / "portrait.png", "1 face found")
    tab.page.evaluate("postMessage({ language: 'ko' }, location.origin)")
    expect(tab.status).to_have_text("얼굴 1개를 찾았습니다")
    expect(tab.page.locator("#language")).to_have_value("ko")
    assert tab.probabilities().keys() == ATTRIBUTES


def test_example_that_cannot_be_fetched_says_so(visit, page_folder, serve, tmp_path):
    shutil.copytree(page_folder, tmp_path / "page", ignore=shutil.ignore_patterns("example.jpg"))
    host = serve(tmp_path / "page")
    tab = visit(host=host)
    tab.wait_for("Ready")
    tab.page.get_by_role("button", name="Try an example").click()
    tab.wait_for("could not be read: example.jpg: 404")
    tab.faults.clear()  # the browser's own report of the missing file
    tab.requests[:] = [url for url in tab.requests if not url.startswith(host)]


def test_missing_model_says_so_before_and_after_a_photo(
    visit, page_folder, serve, tmp_path, photos
):
    shutil.copytree(page_folder, tmp_path / "page", ignore=shutil.ignore_patterns("model.onnx"))
    host = serve(tmp_path / "page")
    tab = visit(host=host)
    tab.wait_for("could not be loaded: model.onnx: 404")
    expect(tab.page.locator("#progress")).to_be_hidden()
    tab.page.set_input_files("#file", photos / "portrait.png")
    expect(tab.page.locator("#photo")).to_be_visible()
    tab.wait_for("could not be loaded: model.onnx: 404")
    tab.page.get_by_role("button", name="Use camera").click()
    tab.wait_for("could not be loaded: model.onnx: 404")
    expect(tab.page.locator("#live")).to_be_hidden()
    tab.faults.clear()  # the browser's own report of the missing file
    tab.requests[:] = [url for url in tab.requests if not url.startswith(host)]
