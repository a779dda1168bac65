"""The Space's tab On device: the page that reads faces in the browser, in its frame."""

import pytest

from .conftest import ATTRIBUTES, CAMERA_SECONDS, started_space

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def device_url(page_folder, tmp_path_factory):
    """Address of a Space with the browser's page."""
    with started_space(tmp_path_factory.mktemp("device"), page=page_folder) as url:
        yield url


@pytest.fixture
def device_page(open_page, device_url):
    """That Space, and the frame of its tab On device, when the model has loaded."""
    page = open_page(device_url, permissions=["camera"])
    page.get_by_role("tab", name="On device").click()
    frame = page.frame_locator("iframe")
    frame.locator("#status").filter(has_text="Ready").wait_for()
    return page, frame


def test_the_device_tab_runs_the_browsers_page_and_keeps_its_answer_in_another_language(
    device_page,
):
    page, frame = device_page
    assert frame.locator("html").get_attribute("lang") == "en"
    assert page.get_attribute("iframe", "title") == "Label2Label on your device"
    frame.get_by_role("button", name="Try an example").press("Enter")
    frame.locator("#status").filter(has_text="1 face found").wait_for()
    assert frame.locator("[data-probability]").count() == len(ATTRIBUTES)
    page.get_by_label("한국어").check(force=True)
    frame.locator("#status").filter(has_text="얼굴 1개를 찾았습니다").wait_for()
    assert page.get_attribute("iframe", "title") == "내 기기에서 실행하는 Label2Label"
    assert "여러분의 브라우저" in page.inner_text("#device p")
    page.wait_for_timeout(2000)
    assert frame.locator("html").get_attribute("lang") == "ko"
    assert frame.locator("[data-probability]").count() == len(ATTRIBUTES)


def test_the_device_tab_greets_a_korean_browser_in_korean(open_page, device_url):
    page = open_page(device_url, locale="ko-KR")
    page.get_by_role("tab", name="내 기기").click()
    frame = page.frame_locator("iframe")
    frame.locator("#status").filter(has_text="준비되었습니다").wait_for()
    assert "여러분의 브라우저" in page.inner_text("#device p")


def test_leaving_the_device_tab_switches_its_camera_off(device_page):
    page, frame = device_page
    frame.get_by_role("button", name="Use camera").first.click()
    frame.locator("#live").wait_for()
    page.get_by_role("tab", name="About").click()
    (inner,) = (other for other in page.frames if "on_device" in other.url)
    page.wait_for_timeout(1000 * CAMERA_SECONDS)
    assert inner.evaluate("document.getElementById('video').srcObject") is None
    page.get_by_role("tab", name="On device").click()
    assert frame.locator("#live").is_hidden()


def test_without_its_files_there_is_no_device_tab(open_page):
    page = open_page()
    page.get_by_role("tab", name="Fairness").wait_for()
    assert page.get_by_role("tab", name="On device").count() == 0
