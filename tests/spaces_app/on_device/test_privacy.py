"""Nothing leaves the device, and the browser sees to it."""

import pytest

from ..conftest import ATTRIBUTES

pytestmark = pytest.mark.slow


def test_page_asks_its_own_folder_alone(visit, photos, site, page_folder):
    tab = visit()
    tab.show(photos / "portrait.png", "1 face found")
    tab.page.get_by_role("button", name="Use camera").click()
    tab.wait_for("No face in view")
    asked = {url.removeprefix(site).split("?")[0] for url in tab.requests if "blob:" not in url}
    files = {f"/{path.relative_to(page_folder)}" for path in page_folder.rglob("*")}
    assert asked <= files
    assert {"/worker.js", "/assets/model.onnx", "/assets/face_detector.onnx"} <= asked


def test_browser_forbids_page_and_worker_to_ask_another_host(visit, serve, tmp_path):
    (tmp_path / "spy.txt").write_text("asked")
    other = serve(tmp_path)
    tab = visit()
    tab.wait_for("Ready")
    (worker,) = tab.page.workers
    ask = "url => fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'refused')"
    for scope in (tab.page, worker):
        assert scope.evaluate(ask, f"{other}/spy.txt") == "refused"
        assert scope.evaluate(ask, tab.page.url) == "sent"
    assert tab.faults  # the browser's own report
    tab.faults.clear()
    tab.requests[:] = [url for url in tab.requests if not url.startswith(other)]


def test_page_works_without_a_network_once_it_has_loaded(visit, photos):
    tab = visit()
    tab.wait_for("Ready")
    tab.context.set_offline(True)
    tab.show(photos / "portrait.png", "1 face found")
    assert tab.probabilities().keys() == ATTRIBUTES
