"""The two listeners, of the API and of the storage, and the faults that tests ask for."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .api import API_ROUTES
from .messages import Request, Response, Route
from .state import ApiError, HubState, Repository, User
from .storage import STORAGE_ROUTES


@dataclass
class Fault:
    """An answer to give in place of the right one; status 0 closes the connection."""

    method: str
    pattern: str
    status: int
    message: str
    times: int


class HubServer:
    """A Hub at `endpoint`, running in threads between `with` and its end.

    Args:
        page_size: entries of one page of a tree.
        part_size: bytes from which a file in LFS is put in parts, of this size.
        delay: seconds before each answer.
    """

    def __init__(
        self, page_size: int = 1000, part_size: int = 5_000_000, delay: float = 0.0
    ) -> None:
        self.state = HubState()
        self.page_size, self.part_size, self.delay = page_size, part_size, delay
        self.requests: list[tuple[str, str, int]] = []  # method, path, status
        self._faults: list[Fault] = []
        self._listeners = [
            ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self, routes))
            for routes in (API_ROUTES, STORAGE_ROUTES)
        ]
        ports = [listener.server_address[1] for listener in self._listeners]
        self.endpoint, self.storage = (f"http://127.0.0.1:{port}" for port in ports)

    def __enter__(self) -> HubServer:
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def add_user(
        self, name: str, token: str, role: str = "write", organisations: tuple[str, ...] = ()
    ) -> None:
        """Let a token in; `role` is `write` or `read`."""
        self.state.users[token] = User(name, role, organisations)

    def fail(
        self, method: str, pattern: str, status: int, message: str = "", times: int = 1
    ) -> None:
        """Make the next `times` requests fail whose path has the pattern; status 0 hangs up."""
        self._faults.append(Fault(method, pattern, status, message, times))

    def repository(self, kind: str, repo_id: str) -> Repository:
        """A repository, to look into."""
        return self.state.repositories[kind, repo_id]

    def content(self, kind: str, repo_id: str, path: str, revision: str = "main") -> bytes:
        """The bytes of a file."""
        blob = self.repository(kind, repo_id).resolve(revision).files[path]
        return self.state.bytes_of(blob)

    def count(self, method: str, pattern: str) -> int:
        """How many such requests succeeded."""
        return sum(
            m == method and bool(re.search(pattern, path)) and status < 400
            for m, path, status in self.requests
        )

    def fault_of(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, which is then used up."""
        with self.state.lock:
            for fault in self._faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


def handler_of(hub: HubServer, routes: list[Route]) -> type[BaseHTTPRequestHandler]:
    """The handler class of one listener."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            request = Request(hub, self)
            time.sleep(hub.delay)
            fault = hub.fault_of(self.command, self.path)
            if fault and fault.status == 0:
                self.close_connection = True
                hub.requests.append((self.command, self.path, 0))
                return
            try:
                if fault:
                    raise ApiError(fault.status, fault.message)
                response = request.dispatch(routes)
            except ApiError as error:
                response = Response(error.status, {"error": error.message})
                response.headers["X-Error-Message"] = error.message
                if error.code:
                    response.headers["X-Error-Code"] = error.code
            hub.requests.append((self.command, self.path, response.status))
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            body = response.body
            self.send_header("Content-Length", str(response.length or len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = answer

    return Handler
