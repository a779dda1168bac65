"""Limits on what a request may send, and a place for files that no visit outlives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from photos import MAX_BYTES

# A photo in base64, which adds a third to its size, and the rest of the request.
MAX_BODY_BYTES = MAX_BYTES * 4 // 3 + 1_000_000
MAX_UPLOADED_BYTES = 25 * MAX_BYTES  # of all files waiting to be read
SPARE_BYTES = 5_000_000  # kept free on the disk or in the memory that holds them
MEMORY = Path("/dev/shm")

TOO_LARGE = (413, f"The request is too large: the limit is {MAX_BYTES // 1_000_000} MB per photo.")
BUSY = (503, "Too many photos are waiting: please try again in a minute.")


def uploads_parent() -> Path | None:
    """Choose the parent of the upload folder: the user's, memory, or None for the system's own."""
    if given := os.environ.get("GRADIO_TEMP_DIR"):
        Path(given).mkdir(parents=True, exist_ok=True)
        return Path(given)
    return MEMORY if MEMORY.is_dir() else None


class RequestLimits:
    """ASGI middleware that rejects bodies above a limit, and uploads that exceed the free space.

    Bodies are counted as they arrive, whatever their header says, so that none fills the memory.
    `most` are the bytes of one request's body, `quota` those of all files in the folder of uploads.
    """

    def __init__(
        self,
        app: Any,
        uploads: Path,
        most: int = MAX_BODY_BYTES,
        quota: int = MAX_UPLOADED_BYTES,
    ) -> None:
        self.app = app
        self.uploads = uploads
        self.most = most
        self.quota = quota
        self.arriving = 0  # bytes that uploads in progress may still send

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        declared = int(length) if length.isdigit() else 0
        if declared > self.most:
            await refuse(send, *TOO_LARGE)
            return
        expected = 0
        if scope["method"] == "POST" and scope["path"].endswith("/upload"):
            expected = declared or self.most
            if not self._has_room(expected):
                await refuse(send, *BUSY)
                return
        received = 0
        refused = False

        async def count() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                raise BodyTooLargeError
            return message

        async def answer(message: Any) -> None:
            # The application may handle the error as its own.
            nonlocal refused
            if received <= self.most:
                await send(message)
            elif not refused:
                refused = True
                await refuse(send, *TOO_LARGE)

        self.arriving += expected
        try:
            await self.app(scope, count, answer)
        except BodyTooLargeError:
            if not refused:
                await refuse(send, *TOO_LARGE)
        finally:
            self.arriving -= expected

    def _has_room(self, expected: int) -> bool:
        files = [path for path in self.uploads.rglob("*") if path.is_file()]
        waiting = sum(path.stat().st_size for path in files if path.exists()) + self.arriving
        free = shutil.disk_usage(self.uploads).free - self.arriving
        return waiting + expected <= self.quota and expected + SPARE_BYTES <= free


class BodyTooLargeError(Exception):
    """A request body above the limit."""


async def refuse(send: Any, status: int, text: str) -> None:
    """Reject a request with an HTTP status and one line of text."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
