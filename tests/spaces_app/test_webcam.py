"""The Space's webcam: one at a time, and off when nobody sees that it is on."""

import pytest

from .conftest import CAMERA_SECONDS, upload_and_wait

pytestmark = pytest.mark.slow

# The cameras that the page was given; each comes late, as where the visitor is asked first.
SLOW_CAMERA = """() => {
  const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.tracks = [];
  navigator.mediaDevices.getUserMedia = async (options) => {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const stream = await given(options);
    window.tracks.push(...stream.getTracks());
    return stream;
  };
}"""
TRACKS = "window.tracks.map((track) => track.readyState)"


def test_the_webcam_takes_a_photo_and_is_switched_off(open_page):
    page = open_page(permissions=["camera"])
    page.get_by_role("button", name="Webcam").first.click()
    page.wait_for_function("document.querySelector('#explorer video').videoWidth > 0")
    page.click("#explorer .camera .primary")
    page.wait_for_selector("#explorer .status.bad")  # the test picture shows no face
    assert "No face" in page.inner_text("#explorer .status")
    assert page.evaluate("document.querySelector('#explorer .camera').hidden")


def test_two_clicks_open_one_webcam_and_closing_it_switches_it_off(open_page):
    page = open_page(permissions=["camera"])
    page.evaluate(SLOW_CAMERA)
    page.get_by_role("button", name="Webcam").first.dblclick()
    page.wait_for_timeout(1000 * CAMERA_SECONDS)
    assert page.locator("#explorer .camera").is_visible()
    assert page.evaluate(TRACKS).count("live") == 1
    page.get_by_role("button", name="Close the webcam").first.click()
    assert page.evaluate(TRACKS).count("live") == 0


def test_a_photo_chosen_while_the_webcam_starts_is_what_is_shown(open_page, photo_files):
    page = open_page(permissions=["camera"])
    page.evaluate(SLOW_CAMERA)
    page.get_by_role("button", name="Webcam").first.click()
    upload_and_wait(page, photo_files["portrait.jpg"])
    page.wait_for_timeout(1000 * CAMERA_SECONDS)
    assert page.evaluate(TRACKS) == ["ended"]
    assert page.locator("#explorer .camera").is_hidden()
    assert page.locator("#explorer .box").is_visible()


@pytest.mark.parametrize("patience", [0, CAMERA_SECONDS], ids=["starting", "on"])
def test_leaving_the_tab_switches_the_webcam_off(open_page, patience):
    page = open_page(permissions=["camera"])
    page.evaluate(SLOW_CAMERA)
    page.get_by_role("button", name="Webcam").first.click()
    page.wait_for_timeout(1000 * patience)
    page.get_by_role("tab", name="About").click()
    page.wait_for_timeout(1000 * CAMERA_SECONDS)
    assert page.evaluate(TRACKS) == ["ended"]
    page.get_by_role("tab", name="Photo").click()
    assert page.locator("#explorer .camera").is_hidden()
    assert page.locator("#explorer .placeholder").is_visible()
