"""A request as it arrived, an answer as it leaves, and how one leads to the other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from .state import ApiError, Repository, User

if TYPE_CHECKING:
    from .server import HubServer


class Response:
    """What is sent back: JSON, or bytes as they are."""

    def __init__(self, status: int = 200, content: Any = b"", **headers: str) -> None:
        self.status, self.length = status, 0
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(content, bytes):
            self.body = content
        else:
            self.body = json.dumps(content).encode()
            self.headers.setdefault("Content-Type", "application/json")


class Request:
    """A request, read whole, and the user behind its token."""

    def __init__(self, hub: HubServer, handler: BaseHTTPRequestHandler) -> None:
        self.hub, self.state = hub, hub.state
        self.method, self.headers = handler.command, handler.headers
        parts = urlsplit(handler.path)
        self.path = parts.path
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.body = self._read(handler)

    @staticmethod
    def _read(handler: BaseHTTPRequestHandler) -> bytes:
        if handler.headers.get("Transfer-Encoding") != "chunked":
            return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        body = b""
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body

    def dispatch(self, routes: list[Route]) -> Response:
        """Answer by the first route that fits."""
        method = "GET" if self.method == "HEAD" else self.method
        for route_method, pattern, answer in routes:
            match = re.fullmatch(pattern, self.path)
            if match and route_method == method:
                named = {name: unquote(value or "") for name, value in match.groupdict().items()}
                with self.state.lock:
                    return answer(self, **named)
        raise ApiError(404, f"Sorry, there is no {self.method} {self.path}")

    @property
    def user(self) -> User | None:
        """Who sent it; None without a token."""
        header = self.headers.get("Authorization")
        return self.state.user(header.removeprefix("Bearer ") if header else None)

    @property
    def json(self) -> dict[str, Any]:
        """Its body."""
        return json.loads(self.body or b"{}")

    def repository(self, kind: str, id: str, write: bool = False) -> Repository:
        """The repository that it is for."""
        return self.state.find(self.user, kind or "model", id, write)


# Method, pattern of the path, and the function that answers with the pattern's named parts.
Route = tuple[str, str, Callable[..., Response]]
OID = r"(?P<oid>[0-9a-f]{64})"  # SHA-256 of an object in LFS
