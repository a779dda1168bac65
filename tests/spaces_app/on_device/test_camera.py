"""Attributes live from the camera, and what happens where there is none."""

import re

import numpy as np
import pytest
from PIL import Image

from ..conftest import ATTRIBUTES

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def film(portrait, tmp_path_factory):
    """What a fake camera sees: the portrait, 640x480, moving a little."""
    path = tmp_path_factory.mktemp("film") / "camera.mjpeg"
    backdrop = np.full((480, 640, 3), 90, np.uint8)
    with path.open("wb") as file:
        for i in range(20):
            frame = Image.fromarray(backdrop)
            frame.paste(portrait.resize((410, 480)), (110 + i % 10, 0))
            frame.save(file, "JPEG", quality=92)
    return path


@pytest.fixture(scope="module")
def filmed(launch, film):
    """A browser whose camera shows the film."""
    return launch(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )


def test_camera_shows_attributes_live_and_stops(visit, filmed):
    tab = visit(by=filmed)
    tab.page.get_by_role("button", name="Use camera").first.click()
    tab.wait_for("1 face found")
    expect(tab.page.locator("#live")).to_be_visible()
    assert tab.timing("rate") > 0
    assert tab.probabilities()["Eyeglasses"] > 0.5
    expect(tab.page.get_by_role("button", name="Stop camera")).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#live")).to_be_hidden()
    expect(tab.page.locator("#video")).to_be_hidden()
    assert tab.page.evaluate("document.getElementById('video').srcObject") is None
    assert tab.probabilities().keys() == ATTRIBUTES  # the last frame's


@pytest.mark.parametrize("delay", [0, 1000], ids=["watching", "counting-cameras"])
def test_photo_ends_the_camera(visit, filmed, photos, delay):
    tab = visit(by=filmed)
    tab.page.evaluate(
        """delay => {
            const { mediaDevices } = navigator;
            const given = mediaDevices.enumerateDevices.bind(mediaDevices);
            mediaDevices.enumerateDevices = async () => {
                await new Promise((resolve) => setTimeout(resolve, delay));
                document.body.dataset.counted = true;
                return given();
            };
        }""",
        delay,
    )
    tab.page.get_by_role("button", name="Use camera").first.click()
    expect(tab.page.locator("#live")).to_be_visible()
    tab.show(photos / "two.png", "2 faces found")
    tab.page.locator("body[data-counted]").wait_for()
    expect(tab.page.locator("#live")).to_be_hidden()
    expect(tab.page.locator("#photo")).to_be_visible()
    assert tab.page.evaluate("document.getElementById('video').srcObject") is None


def test_camera_without_a_face_in_view_says_so(visit):
    tab = visit()
    tab.page.get_by_role("button", name="Use camera").first.click()
    tab.wait_for("No face in view")
    assert tab.probabilities() == {}
    tab.page.get_by_role("button", name="Stop camera").click()
    expect(tab.page.locator("#photo")).to_be_visible()


def test_other_camera_that_does_not_start_leaves_the_last_frame_and_the_first_camera(visit, filmed):
    tab = visit(by=filmed)
    tab.page.evaluate(
        """() => {
            const { mediaDevices } = navigator;
            const given = mediaDevices.getUserMedia.bind(mediaDevices);
            window.asked = [];
            mediaDevices.getUserMedia = async (options) => {
                asked.push(options.video.facingMode);
                if (asked.length === 2) throw new DOMException("It is busy", "NotReadableError");
                return given(options);
            };
            mediaDevices.enumerateDevices = async () => Array(2).fill({ kind: "videoinput" });
        }"""
    )
    tab.page.get_by_role("button", name="Use camera").first.click()
    tab.wait_for("1 face found")
    tab.page.get_by_role("button", name="Other camera").click()
    tab.wait_for("could not be started: It is busy")
    expect(tab.page.locator("#live")).to_be_hidden()
    expect(tab.page.locator("#video")).to_be_hidden()
    expect(tab.page.locator("#flip")).to_be_hidden()
    expect(tab.page.locator("#photo")).to_be_visible()
    assert tab.page.evaluate("[photo.width, photo.height]") == [640, 480]
    assert tab.probabilities().keys() == ATTRIBUTES  # the last frame's
    tab.page.get_by_role("button", name="Use camera").click()
    tab.wait_for("1 face found")
    expect(tab.page.get_by_role("button", name="Stop camera")).to_be_visible()
    assert tab.page.evaluate("asked") == ["user", "environment", "user"]


def test_camera_that_is_missing_or_denied_says_so(visit, launch):
    tab = visit(by=launch())
    tab.page.get_by_role("button", name="Use camera").first.click()
    expect(tab.status).to_have_text(re.compile("camera may not be used|No camera was found"))
    expect(tab.page.get_by_role("button", name="Use camera").first).to_be_enabled()
