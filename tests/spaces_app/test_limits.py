"""What strangers send is bounded before it is read, and no file of theirs outlives the process."""

import asyncio
import io
import signal
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from limits import RequestLimits

from .conftest import space_process


async def read_all(scope, receive, send):
    """An application that reads a body and answers with its length, as Gradio does."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message["body"])
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(limits, chunks, path="/queue/join", declared=None):
    """Send a body in chunks; returns the status and the text of the answer."""
    headers = [(b"content-length", str(declared).encode())] if declared is not None else []
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    coming = [{"body": chunk, "more_body": True} for chunk in chunks] + [{"body": b""}]
    sent = []

    async def receive():
        return {"type": "http.request", **coming.pop(0)}

    async def send(message):
        sent.append(message)

    # In a thread of its own: other tests leave Playwright's event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, limits(scope, receive, send)).result()
    return sent[0]["status"], sent[1]["body"].decode()


def test_a_body_below_the_limit_passes_and_one_above_is_refused(tmp_path):
    limits = RequestLimits(read_all, tmp_path, most=100)
    assert ask(limits, [b"x" * 50, b"x" * 50], declared=100) == (200, "100")
    assert ask(limits, [], declared=101)[0] == 413


def test_a_body_without_a_length_is_refused_at_the_limit(tmp_path):
    limits = RequestLimits(read_all, tmp_path, most=100)
    status, text = ask(limits, [b"x" * 60] * 1000)
    assert status == 413
    assert text == "The request is too large: the limit is 20 MB per photo."


def test_an_application_that_hides_the_error_does_not_hide_the_refusal(tmp_path):
    async def hide(scope, receive, send):
        try:
            await read_all(scope, receive, send)
        except Exception:
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"error parsing the body"})

    assert ask(RequestLimits(hide, tmp_path, most=100), [b"x" * 60] * 3)[0] == 413


def test_uploads_wait_in_no_more_room_than_the_quota(tmp_path):
    limits = RequestLimits(read_all, tmp_path, most=100, quota=250)
    (tmp_path / "waiting.jpg").write_bytes(b"x" * 200)
    assert ask(limits, [b"x" * 50], "/gradio_api/upload", 50) == (200, "50")
    assert ask(limits, [b"x" * 51], "/gradio_api/upload", 51)[0] == 503
    assert ask(limits, [b"x" * 51], "/queue/join", 51)[0] == 200
    (tmp_path / "waiting.jpg").unlink()
    assert ask(limits, [b"x" * 51], "/gradio_api/upload", 51) == (200, "51")


def test_an_upload_leaves_the_disk_some_room(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5_000_040}))
    limits = RequestLimits(read_all, tmp_path)
    assert ask(limits, [b"x" * 40], "/gradio_api/upload", 40) == (200, "40")
    assert ask(limits, [b"x" * 41], "/gradio_api/upload", 41)[0] == 503


def upload_photo(url, content):
    """Upload a file as programs do."""
    boundary = uuid.uuid4().hex
    body = io.BytesIO()
    body.write(f"--{boundary}\r\nContent-Disposition: form-data; ".encode())
    body.write(b'name="files"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n')
    body.write(content + f"\r\n--{boundary}--\r\n".encode())
    request = urllib.request.Request(f"{url}gradio_api/upload", body.getvalue())
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=30)


def photos(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.slow
def test_uploads_go_with_the_process_and_those_of_a_killed_one_with_the_next(tmp_path):
    pytest.importorskip("gradio")
    uploads = tmp_path / "uploads"
    with space_process(tmp_path / "first", uploads=uploads) as (url, process):
        assert upload_photo(url, b"a photo").status == 200
        assert len(photos(uploads)) == 1
        # Refused with 413, for which a client that is still sending sees the connection close.
        with pytest.raises(urllib.error.URLError, match=r"413|pipe|reset"):
            upload_photo(url, b"x" * 30_000_000)
        assert len(photos(uploads)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    with space_process(tmp_path / "second", uploads=uploads) as (url, process):
        assert photos(uploads) == []
        assert upload_photo(url, b"a photo").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert list(uploads.iterdir()) == []
