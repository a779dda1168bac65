"""The Space as people use it, in Chromium: a photo, its faces, bars, map, pins, languages."""

import base64
import re
import time

import pytest

from .conftest import ATTRIBUTES, DESKTOP, NAMES, PHONE, upload, upload_and_wait

pytestmark = pytest.mark.slow

WIDTHS = pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])


def status(page, pattern):
    """Wait until the status line says something like it."""
    page.locator("#explorer .status").filter(has_text=re.compile(pattern)).wait_for()


def percent(page, attribute):
    return int(page.inner_text(f"[data-attribute='{attribute}'] .percent").split()[0])


def answer(page, attribute):
    return page.inner_text(f"[data-attribute='{attribute}'] .answer")


def choose_model(page, key):
    """Ask another model about the photo, and wait for its answer."""
    page.select_option("#explorer .model select", key)
    page.wait_for_function(
        "key => document.querySelector('#explorer .groups').dataset.built?.startsWith(key)", arg=key
    )


def wait_for_count(page, selector, count):
    """Wait until the page holds so many elements."""
    page.wait_for_function(
        "([selector, count]) => document.querySelectorAll(selector).length === count",
        arg=[selector, count],
    )


class Brake:
    """Holds a page's requests back; made before the page asks anything."""

    def __init__(self, page):
        self.page, self.held, self.holds = page, [], False
        self.streams, self.due = 0, 0  # of answers, ever begun and still open
        page.route("**/queue/join*", self._take)
        page.on("request", lambda request: self._count(request, 1))
        page.on("requestfinished", lambda request: self._count(request, -1))
        page.on("requestfailed", lambda request: self._count(request, -1))

    def _take(self, route):
        if self.holds:
            self.held.append(route)
        else:
            route.continue_()

    def _count(self, request, change):
        if "/queue/data" in request.url:  # a stream ends when no answer is due any more
            self.streams += max(change, 0)
            self.due += change

    def hold(self):
        """From now on, when what was asked before is answered."""
        self._wait(lambda: not self.due)
        self.holds = True

    def wait_for_one(self):
        """Until a request is held back."""
        self._wait(lambda: self.held)
        assert len(self.held) == 1

    def release(self):
        """Let them go, and wait until all of them are answered and the answers shown."""
        self.holds, before = False, self.streams
        while self.held:
            self.held.pop(0).continue_()
        self._wait(lambda: self.streams > before and not self.due)
        self.page.wait_for_timeout(200)

    def _wait(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "nothing came for a minute"
            self.page.wait_for_timeout(50)


def map_pixels(page):
    """A digest of what the map shows."""
    return page.evaluate("document.querySelector('canvas.map').toDataURL()")


@WIDTHS
def test_a_photo_gets_a_box_and_a_bar_for_each_attribute_that_say_what_the_model_says(
    open_page, photo_files, device
):
    page = open_page(**device)
    upload_and_wait(page, photo_files["portrait.jpg"])
    assert page.locator("#explorer .box").count() == 1
    assert page.locator("#explorer .group button").count() == 41
    assert answer(page, "Wearing_Hat") == "yes"
    assert answer(page, "Blond_Hair") == "no"
    width = page.evaluate(
        "document.querySelector('[data-attribute=Wearing_Hat] .fill').style.width"
    )
    assert float(width.rstrip("%")) == pytest.approx(percent(page, "Wearing_Hat"), abs=0.51)
    assert "Hat" in page.inner_text("#explorer .sentence")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_box_surrounds_the_face(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["portrait.jpg"])
    box = page.locator("#explorer .box").bounding_box()
    frame = page.locator("#explorer .frame img").bounding_box()
    left = (box["x"] - frame["x"]) / frame["width"]
    right = (box["x"] + box["width"] - frame["x"]) / frame["width"]
    assert left < 265 / 512 < right  # between her eyes, in the photo of 512 pixels
    assert 0.1 < right - left < 0.6


def test_a_large_photo_is_sent_as_it_is_and_boxed_alike(open_page, photo_files):
    page = open_page()
    sent = []
    page.on("request", lambda r: sent.append(r.post_data or "") if r.method == "POST" else 0)
    upload_and_wait(page, photo_files["phone.jpg"])
    large = page.locator("#explorer .box").get_attribute("style")
    assert photo_files["phone.jpg"].stat().st_size > 1_000_000
    assert base64.b64encode(photo_files["phone.jpg"].read_bytes()).decode() in max(sent, key=len)
    assert "copy" not in page.inner_text("#explorer .status")
    upload_and_wait(page, photo_files["portrait.jpg"])
    status(page, "1 face")
    small = page.locator("#explorer .box").get_attribute("style")
    for a, b in zip(re.findall(r"[\d.]+", large), re.findall(r"[\d.]+", small), strict=True):
        assert float(a) == pytest.approx(float(b), abs=3)


def test_a_small_face_in_a_large_photo_gets_the_apis_answers(open_page, space_url, photo_files):
    gradio_client = pytest.importorskip("gradio_client")
    photo = photo_files["small_face.jpg"]
    page = open_page()
    upload_and_wait(page, photo)
    file = gradio_client.handle_file(str(photo))
    client = gradio_client.Client(space_url, verbose=False)
    (face,) = client.predict(file, "", {}, False, api_name="/predict")["faces"]
    x0, y0, x1, y1 = face["box"]
    assert x1 - x0 < 100
    style = page.locator("#explorer .box").get_attribute("style")
    left, top, width, height = map(float, re.findall(r"[\d.]+", style))
    assert [left, top] == pytest.approx([x0 / 40, y0 / 30], abs=1e-3)
    assert [width, height] == pytest.approx([(x1 - x0) / 40, (y1 - y0) / 30], abs=1e-3)
    assert len(face["attributes"]) == 41
    for name, told in face["attributes"].items():
        assert percent(page, name) == pytest.approx(100 * told["probability"], abs=0.51), name
        assert answer(page, name) == ("yes" if told["present"] else "no"), name


def test_of_a_photo_above_the_limits_a_copy_is_read_and_the_visitor_told(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["huge.jpg"])  # 56 megapixels; the limit is 50
    assert "a copy of 4276 x 3741 pixels was read" in page.inner_text("#explorer .status")
    assert answer(page, "Wearing_Hat") == "yes"
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.wait_for_function("!document.querySelector('#explorer .status').innerText.match('copy')")


def test_the_last_of_two_photos_is_the_one_shown(open_page, photo_files):
    page = open_page()
    page.evaluate(
        """async ([first, second]) => {
          const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const read = FileReader.prototype.readAsDataURL;
          FileReader.prototype.readAsDataURL = function (file) {
            setTimeout(() => read.call(this, file), file.size > 1e6 ? 2000 : 0);
          };
          for (const bytes of [first, second].map(decode)) {
            const data = new DataTransfer();
            data.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
          }
        }""",
        [
            base64.b64encode(photo_files[name].read_bytes()).decode()
            for name in ("phone.jpg", "portrait.jpg")
        ],
    )
    status(page, "1 face")
    page.wait_for_timeout(3000)
    assert page.evaluate("document.querySelector('#explorer .frame img').naturalWidth") == 512


def test_a_large_photo_has_the_time_that_a_slow_line_takes(open_page, photo_files):
    page = open_page()
    brake = Brake(page)
    brake.hold()
    page.clock.install()
    upload(page, photo_files["phone.jpg"])
    status(page, "Looking")
    page.clock.fast_forward(35_000)  # milliseconds
    assert "did not answer" not in page.inner_text("#explorer .status")
    page.clock.fast_forward(60_000)
    status(page, "did not answer")


def test_each_attribute_has_its_own_map_and_says_where_it_is(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["portrait.jpg"])
    seen = {}
    for attribute in ("Wearing_Hat", "Smiling"):
        page.click(f"[data-attribute={attribute}]")
        seen[attribute] = map_pixels(page)
        label = page.get_attribute("canvas.map", "aria-label")
        assert "of the crop" in label
        assert page.locator("[aria-pressed=true]").get_attribute("data-attribute") == attribute
    assert seen["Wearing_Hat"] != seen["Smiling"]


def test_what_is_known_stays_and_moves_the_others_until_it_is_forgotten(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["portrait.jpg"])
    choose_model(page, "random-tiny")
    before = {name: percent(page, name) for name in NAMES}
    page.click("[data-attribute=Smiling]")
    said = "no" if answer(page, "Smiling") == "yes" else "yes"
    page.check(f".know input[value={said}]", force=True)
    status(page, "Updated")
    assert percent(page, "Smiling") == (100 if said == "yes" else 0)
    assert answer(page, "Smiling") == said
    after = {name: percent(page, name) for name in NAMES if name != "Smiling"}
    assert any(after[name] != before[name] for name in after)
    assert page.inner_text(".known-list .chip").startswith("Smiling")
    page.click(".known-list .chip")
    assert {name: percent(page, name) for name in NAMES} == before


def test_an_answer_to_what_is_no_longer_said_is_not_shown(open_page, photo_files):
    page = open_page()
    brake = Brake(page)
    upload_and_wait(page, photo_files["portrait.jpg"])
    choose_model(page, "random-tiny")
    page.click("[data-attribute=Smiling]")
    said = "no" if answer(page, "Smiling") == "yes" else "yes"
    before = {name: percent(page, name) for name in NAMES}
    brake.hold()
    page.check(f".know input[value={said}]", force=True)
    page.check(".know input[value=unknown]", force=True)
    assert page.locator(".known-list .chip").count() == 0
    brake.release()
    assert {name: percent(page, name) for name in NAMES} == before
    page.check(f".know input[value={said}]", force=True)  # and the page goes on
    status(page, "Updated")
    assert percent(page, "Smiling") == (100 if said == "yes" else 0)


def test_what_was_said_last_of_a_face_is_what_is_shown(open_page, photo_files):
    page = open_page()
    brake = Brake(page)
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.click("[data-attribute=Smiling]")
    brake.hold()
    page.check(".know input[value=yes]", force=True)
    page.check(".know input[value=no]", force=True)
    brake.release()
    status(page, "Updated")
    assert percent(page, "Smiling") == 0
    assert answer(page, "Smiling") == "no"


def test_two_faces_of_which_something_is_known_are_both_read_again(open_page):
    page = open_page()
    brake = Brake(page)
    if not page.locator("[data-example=together]").count():
        pytest.skip("the photo of two faces needs scikit-image")
    page.click("[data-example=together]")
    status(page, "2 faces")
    page.click("[data-attribute=Smiling]")
    brake.hold()
    for face in (0, 1):
        page.locator("#explorer .box").nth(face).click()
        page.check(".know input[value=no]", force=True)
    brake.release()
    status(page, "Updated")
    for face in (1, 0):
        page.locator("#explorer .box").nth(face).click()
        page.wait_for_function(
            "document.querySelector('[data-attribute=Smiling] .percent').innerText.startsWith('0')"
        )
        assert page.inner_text(".known-list .chip").startswith("Smiling")
        assert answer(page, "Smiling") == "no"


def test_while_another_model_is_asked_the_first_ones_answer_can_be_read(open_page, photo_files):
    page = open_page()
    brake = Brake(page)
    upload_and_wait(page, photo_files["portrait.jpg"])
    hat = percent(page, "Wearing_Hat")
    brake.hold()
    page.select_option("#explorer .model select", "random-tiny")
    page.click("[data-attribute=Wearing_Hat]")
    page.locator(".know input[value=no]").dispatch_event("change")  # what the next answer forgets
    page.evaluate("document.dispatchEvent(new Event('label2label-language'))")
    assert page.inner_text("#explorer .detail .title") == "Hat"
    assert (percent(page, "Wearing_Hat"), page.locator("#explorer .group button").count()) == (
        hat,
        41,
    )
    brake.wait_for_one()
    brake.release()
    wait_for_count(page, "#explorer .group button", len(NAMES))
    assert page.locator(".known-list .chip").count() == 0


def test_while_another_model_is_compared_the_first_answer_can_be_sorted(open_page, photo_files):
    page = open_page()
    brake = Brake(page)
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#comparison tbody tr")
    brake.hold()
    page.locator("#comparison .models select").nth(1).select_option("random-tiny")
    page.check("#comparison .sort input")
    differences = page.locator("#comparison td.difference").all_inner_texts()
    sizes = [abs(int(text.replace("−", "-"))) for text in differences]
    assert len(sizes) == len(ATTRIBUTES)
    assert sizes == sorted(sizes, reverse=True)
    brake.release()
    wait_for_count(page, "#comparison tbody tr", len(NAMES))


def test_another_model_is_asked_and_its_cost_is_shown(open_page, photo_files):
    page = open_page()
    facts = page.inner_text("#explorer .facts")
    assert re.search(r"[\d.]+ M parameters · [\d.]+ MB · \d+ ms a face", facts)
    upload_and_wait(page, photo_files["portrait.jpg"])
    choose_model(page, "random-tiny")
    assert page.inner_text("#explorer .facts") != facts
    assert page.locator("#explorer .group button").count() == len(NAMES)


def test_the_language_can_be_switched_with_a_photo_open(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.get_by_label("한국어").check(force=True)
    page.wait_for_function("document.querySelector('#header').innerText.includes('사진은')")
    assert page.evaluate("document.documentElement.lang") == "ko"
    assert page.inner_text("[data-attribute=Wearing_Hat] .name") == "모자"
    assert answer(page, "Wearing_Hat") == "예"
    status = page.inner_text("#explorer .status")
    assert "얼굴 1개" in status
    assert "왕복" in status
    page.get_by_role("tab", name="공정성").wait_for()
    page.get_by_label("English").check(force=True)
    page.wait_for_function("document.querySelector('#header').innerText.includes('never stored')")
    assert answer(page, "Wearing_Hat") == "yes"


def test_a_korean_browser_is_greeted_in_korean(open_page):
    page = open_page(locale="ko-KR")
    page.wait_for_function("document.querySelector('#header').innerText.includes('사진은')")
    assert page.inner_text("#explorer .sources .primary") == "사진 올리기"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_face.png", "No face was found"),
        ("not_an_image.jpg", "not a photo"),
    ],
)
def test_a_bad_photo_gets_a_friendly_sentence_and_the_next_one_works(
    open_page, photo_files, name, text
):
    page = open_page()
    upload(page, photo_files[name])
    page.wait_for_selector("#explorer .status.bad")
    assert text in page.inner_text("#explorer .status")
    assert page.locator("#explorer .group").count() == 0
    upload_and_wait(page, photo_files["portrait.jpg"])
    assert page.locator("#explorer .box").count() == 1


def test_of_an_animation_the_first_frame_is_read_and_the_visitor_told(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["animated.gif"])
    assert "first frame" in page.inner_text("#explorer .status")


def test_of_thirty_faces_the_largest_twenty_can_be_chosen(open_page, photo_files, has_yunet):
    if not has_yunet:
        pytest.skip("no YuNet file: OpenCV's cascade finds another number of faces")
    page = open_page()
    upload_and_wait(page, photo_files["crowd.jpg"])
    assert "30 faces found: here are the 20 largest" in page.inner_text("#explorer .status")
    assert page.locator("#explorer .box").count() == 20
    assert page.locator("#explorer .strip input").count() == 20


def test_a_face_is_chosen_by_a_click_on_its_box_and_by_the_arrow_keys(open_page):
    page = open_page()
    if not page.locator("[data-example=together]").count():
        pytest.skip("the photo of two faces needs scikit-image")
    page.click("[data-example=together]")
    status(page, "2 faces")
    hat = answer(page, "Wearing_Hat")
    page.locator("#explorer .box").nth(1).click()
    assert (hat, answer(page, "Wearing_Hat")) == ("yes", "no")
    page.locator("#explorer .strip input").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    assert answer(page, "Wearing_Hat") == "yes"


def test_a_turned_face_says_so_in_both_languages(open_page, portrait, has_yunet, tmp_path):
    if not has_yunet:
        pytest.skip("no YuNet file: OpenCV's cascade finds upright faces only")
    page = open_page()
    portrait.rotate(-90, expand=True).save(tmp_path / "turned.png")
    upload_and_wait(page, tmp_path / "turned.png")
    said = page.locator("#explorer .strip span")
    assert re.fullmatch(r"turned (8|9)\d° clockwise", said.inner_text())
    page.get_by_text("한국어").click()
    page.locator("#explorer .strip", has_text="시계 방향으로").wait_for()
    upload(page, tmp_path / "turned.png")
    status(page, "얼굴 1개")
    assert answer(page, "Wearing_Hat") == "예"


def test_the_page_shows_the_servers_decisions(open_page, photo_files):
    page = open_page()

    def decide(route):
        answered = route.fetch()
        body = re.sub(r'"present": ?\[[^]]*\]', f'"present":{[0] * 41}', answered.text())
        route.fulfill(response=answered, body=body)

    page.route("**/queue/data*", decide)
    upload_and_wait(page, photo_files["portrait.jpg"])
    assert percent(page, "Wearing_Hat") > 90
    assert answer(page, "Wearing_Hat") == "no"
    assert page.locator("#explorer .group button.yes").count() == 0
    assert "none of" in page.inner_text("#explorer .sentence")
    page.click("[data-attribute=Wearing_Hat]")
    assert "excludes it" in page.inner_text("#explorer .verdict")


def test_everything_can_be_done_by_keyboard(open_page):
    page = open_page()
    page.locator("[data-example=hopper]").focus()
    page.keyboard.press("Enter")
    status(page, "1 face")
    page.locator("[data-attribute=Smiling]").focus()
    page.keyboard.press("Space")
    assert page.inner_text("#explorer .detail .title") == "Smiling"
    page.locator(".know input[value=unknown]").focus()
    page.keyboard.press("ArrowRight")
    status(page, "Updated")
    assert answer(page, "Smiling") == "yes"
    assert page.evaluate("document.activeElement.value") == "yes"  # the focus is not lost


def test_a_photo_can_be_pasted(open_page, photo_files):
    page = open_page()
    page.evaluate(
        """async bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "photo.jpg", { type: "image/jpeg" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        list(photo_files["portrait.jpg"].read_bytes()),
    )
    status(page, "1 face")


def test_two_models_are_compared_on_the_first_tabs_photo(open_page, photo_files):
    page = open_page()
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector("#comparison tbody tr")
    # At first the default and the tiny model; then one that knows few attributes.
    assert page.locator("#comparison tbody tr").count() == len(ATTRIBUTES)
    page.locator("#comparison .models select").nth(1).select_option("random-tiny")
    wait_for_count(page, "#comparison tbody tr", len(NAMES))
    row = page.locator("#comparison tr[data-attribute=Wearing_Hat]")
    first, second = (int(cell.split()[0]) for cell in row.locator(".percent").all_inner_texts())
    difference = int(row.locator(".difference").inner_text().replace("−", "-"))
    assert difference == pytest.approx(second - first, abs=1)
    page.check("#comparison .sort input")
    differences = page.locator("#comparison td.difference").all_inner_texts()
    sizes = [abs(int(text.replace("−", "-"))) for text in differences]
    assert sizes == sorted(sizes, reverse=True)
    page.get_by_role("tab", name="Photo").click()
    assert percent(page, "Wearing_Hat") == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
@WIDTHS
def test_no_serious_accessibility_fault_on_any_tab(open_page, photo_files, device, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(**device, color_scheme=scheme)

    def check(name):
        faults = [
            f"{name}: {v['id']}: {node['html'][:200]}"
            for v in axe.run(page).response["violations"]
            if v["impact"] in ("serious", "critical")
            for node in v["nodes"]
        ]
        assert faults == []

    check("start")
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.check(".know input[value=no]", force=True)
    status(page, "Updated")
    page.wait_for_timeout(500)  # until the bars stand still
    check("result")
    for name in ("Compare", "Fairness", "About"):
        tab = page.get_by_role("tab", name=name)
        if not tab.is_visible():  # on a phone the last ones are in a menu
            page.locator(".overflow-menu > button").click()
            tab = page.locator(".overflow-dropdown").get_by_text(name)
        tab.click()
        page.wait_for_timeout(500)
        check(name)


def test_photos_of_the_page_are_never_written_to_a_file(open_page, photo_files, uploads):
    known = set(uploads.rglob("*"))
    page = open_page()
    upload_and_wait(page, photo_files["phone.jpg"])
    page.check(".know input[value=no]", force=True)
    status(page, "Updated")
    assert set(uploads.rglob("*")) <= known
