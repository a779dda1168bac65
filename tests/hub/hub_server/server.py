"""The HTTP side: requests, the API's and the storage's routes, and the faults that tests set."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .card_rules import card_errors
from .state import ApiError, Blob, Commit, HubState, Repository, User

DATE = "2026-01-01T00:00:00.000Z"
REPO = r"(?P<id>[\w.\-]+/[\w.\-]+)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
FILES = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
REVISION, PATH, OID = r"(?P<revision>[^/]+)", r"(?P<path>.+)", r"(?P<oid>[0-9a-f]{64})"


class Response:
    """An answer: JSON, or bytes as they are."""

    def __init__(self, content: Any = b"", status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = content if isinstance(content, bytes) else json.dumps(content).encode()
        if not isinstance(content, bytes):
            self.headers.setdefault("Content-Type", "application/json")


class Request:
    """A request with its body, and the user that its token belongs to."""

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

    @property
    def user(self) -> User | None:
        header = self.headers.get("Authorization")
        return self.state.user(header.removeprefix("Bearer ") if header else None)

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def repository(self, kind: str, id: str, write: bool = False) -> Repository:
        return self.state.find(self.user, kind or "model", id, write)


Answer = Callable[..., Response]
API_ROUTES: list[tuple[str, str, Answer]] = []
STORAGE_ROUTES: list[tuple[str, str, Answer]] = []


def route(method: str, *patterns: str, routes: list = API_ROUTES) -> Callable[[Answer], Answer]:
    """Register a function that answers requests; it receives the pattern's named groups."""

    def register(answer: Answer) -> Answer:
        routes.extend((method, pattern, answer) for pattern in patterns)
        return answer

    return register


def dispatch(request: Request, routes: list[tuple[str, str, Answer]]) -> Response:
    """Answer a request by the first route that matches."""
    method = "GET" if request.method == "HEAD" else request.method
    for route_method, pattern, answer in routes:
        match = re.fullmatch(pattern, request.path)
        if match and route_method == method:
            named = {name: unquote(value or "") for name, value in match.groupdict().items()}
            with request.state.lock:
                return answer(request, **named)
    raise ApiError(404, f"Sorry, there is no {request.method} {request.path}")


@route("GET", "/api/whoami-v2")
def whoami(request: Request) -> Response:
    user = request.user
    if user is None:
        raise ApiError(401, "Invalid username or password.")
    organisations = [{"type": "org", "name": name} for name in user.organisations]
    token = {"displayName": "test", "role": user.role}
    auth = {"type": "access_token", "accessToken": token}
    return Response({"type": "user", "name": user.name, "orgs": organisations, "auth": auth})


@route("POST", "/api/repos/create")
def create(request: Request) -> Response:
    wanted, user = request.json, request.user
    if user is None:
        raise ApiError(401, "Invalid username or password.")
    kind = wanted.get("type") or "model"
    repo_id = f"{wanted.get('organization') or user.name}/{wanted['name']}"
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    request.state.create(user, kind, repo_id, private, wanted.get("sdk"))
    prefix = "" if kind == "model" else f"{kind}s/"
    return Response({"url": f"{request.hub.endpoint}/{prefix}{repo_id}", "name": repo_id})


@route("POST", "/api/validate-yaml")
def validate_yaml(request: Request) -> Response:
    """The client asks this about a card before it uploads."""
    errors = card_errors(request.json["content"], request.json.get("repoType", "model"))
    found = [{"message": message} for message in errors]
    return Response({"errors": found, "warnings": []}, 400 if found else 200)


@route("GET", API, rf"{API}/revision/{REVISION}")
def info(request: Request, kind: str, id: str, revision: str = "main") -> Response:
    repository = request.repository(kind, id)
    commit = repository.resolve(revision)
    state = {"private": repository.private, "gated": False, "disabled": False, "tags": []}
    state |= {"downloads": 0, "likes": 0, "lastModified": DATE, "createdAt": DATE}
    state |= {"sdk": repository.sdk} if kind == "space" else {}
    files = [{"rfilename": path} for path in sorted(commit.files)]
    name = {"_id": hashlib.sha1(id.encode()).hexdigest()[:24], "id": id, "sha": commit.oid}
    return Response({**name, "author": id.partition("/")[0], **state, "siblings": files})


@route("POST", rf"{API}/preupload/{REVISION}")
def preupload(request: Request, kind: str, id: str, revision: str) -> Response:
    """Which files go to LFS, and the digests of those that are there already."""
    repository = request.repository(kind, id, write=request.query.get("create_pr") != "1")
    held = repository.resolve(revision).files
    files = []
    for file in request.json["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        is_lfs = request.state.is_lfs(path, file["size"], sample)
        mode = "lfs" if is_lfs else "regular"
        known = {"oid": held[path].upload_oid} if path in held else {}
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return Response({"files": files})


@route("POST", rf"{FILES}\.git/info/lfs/objects/batch")
def lfs_batch(request: Request, kind: str, id: str) -> Response:
    """Where to put each object, in one piece or in parts; nothing for one that is there."""
    request.repository(kind, id)
    hub, state = request.hub, request.state
    objects = []
    for wanted in request.json["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in state.objects:
            upload: dict[str, Any] = {"href": f"{hub.storage}/objects/{oid}?Signature=test"}
            if size > hub.part_size:
                numbers = range(1, -(-size // hub.part_size) + 1)
                parts = {str(n): f"{hub.storage}/parts/{oid}/{n}" for n in numbers}
                header = {"chunk_size": str(hub.part_size), **parts}
                upload = {"href": f"{hub.endpoint}/complete/{oid}", "header": header}
            verify = {"href": f"{hub.endpoint}/verify/{oid}"}
            entry["actions"] = {"upload": upload, "verify": verify}
        objects.append(entry)
    return Response({"transfer": "basic", "objects": objects})


@route("POST", rf"/complete/{OID}")
def complete(request: Request, oid: str) -> Response:
    """The end of an upload in parts."""
    parts = request.state.parts.pop(oid, {})
    told = {part["partNumber"]: part["etag"].strip('"') for part in request.json["parts"]}
    if told != {number: hashlib.md5(part).hexdigest() for number, part in parts.items()}:
        raise ApiError(400, "parts do not match their etags")
    return keep_object(request, oid, b"".join(parts[number] for number in sorted(parts)))


@route("POST", rf"/verify/{OID}")
def verify(request: Request, oid: str) -> Response:
    if len(request.state.objects.get(oid, b"")) != request.json["size"]:
        raise ApiError(404, "no such object")
    return Response({"message": "ok"})


@route("POST", rf"{API}/commit/{REVISION}")
def commit(request: Request, kind: str, id: str, revision: str) -> Response:
    """One commit from lines of JSON, to a branch, a pull request or a new one."""
    creates_pr = request.query.get("create_pr") == "1"
    repository = request.repository(kind, id, write=not creates_pr)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    answer: dict[str, Any] = {"success": True, "hookOutput": ""}
    if creates_pr:
        base = repository.resolve(revision)
        repository.pull_requests += 1
        number = repository.pull_requests + 1  # the first discussion is not a pull request
        revision = f"refs/pr/{number}"
        repository.refs[revision] = base.oid
        answer["pullRequestUrl"] = f"{request.hub.endpoint}/{id}/discussions/{number}"
    made = request.state.apply(repository, revision, lines)
    answer |= {"commitUrl": f"{request.hub.endpoint}/{id}/commit/{made.oid}", "commitOid": made.oid}
    return Response(answer)


@route("POST", rf"{API}/branch/(?P<name>[^/]+)")
def branch(request: Request, kind: str, id: str, name: str) -> Response:
    repository = request.repository(kind, id, write=True)
    if name in repository.refs:
        raise ApiError(409, f"Reference already exists: refs/heads/{name}")
    repository.refs[name] = repository.resolve(request.json.get("startingPoint") or "main").oid
    return Response({})


def describe_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
    if blob.sha256:
        size = len(blob.pointer)
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": size}
    return entry


def list_entries(found: Commit, folder: str, recursive: bool, expand: bool) -> list[dict[str, Any]]:
    """Files below a folder, and the folders between, in order."""
    entries: dict[str, dict[str, Any]] = {}
    start = f"{folder}/" if folder else ""
    for path, blob in found.files.items():
        if not path.startswith(start):
            continue
        names = path[len(start) :].split("/")
        for depth in range(1, len(names)):
            place = start + "/".join(names[:depth])
            oid = hashlib.sha1(place.encode()).hexdigest()
            if recursive or depth == 1:
                entries[place] = {"type": "directory", "path": place, "size": 0, "oid": oid}
        if recursive or len(names) == 1:
            entries[path] = describe_entry(path, blob)
    last = {"lastCommit": {"id": found.oid, "title": found.message, "date": DATE}}
    return [entries[path] | (last if expand else {}) for path in sorted(entries)]


@route("GET", rf"{API}/tree/{REVISION}", rf"{API}/tree/{REVISION}/{PATH}")
def tree(request: Request, kind: str, id: str, revision: str, path: str = "") -> Response:
    found = request.repository(kind, id).resolve(revision)
    recursive, expand = (
        request.query.get(x, "").lower() == "true" for x in ("recursive", "expand")
    )
    entries = list_entries(found, path.strip("/"), recursive, expand)
    if path and not entries:
        raise ApiError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    return Response(entries)


@route("POST", rf"{API}/paths-info/{REVISION}")
def paths_info(request: Request, kind: str, id: str, revision: str) -> Response:
    found = request.repository(kind, id).resolve(revision)
    answer = []
    for path in parse_qs(request.body.decode()).get("paths", []):
        if path in found.files:
            answer.append(describe_entry(path, found.files[path]))
        elif list_entries(found, path, recursive=False, expand=False):
            answer.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
    last = {"id": found.oid, "title": found.message, "date": DATE}
    return Response([entry | {"lastCommit": last} for entry in answer])


@route("GET", rf"{API}/refs")
def refs(request: Request, kind: str, id: str) -> Response:
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
        for name, oid in request.repository(kind, id).refs.items()
        if not name.startswith("refs/")
    ]
    return Response({"branches": branches, "tags": [], "converts": [], "pullRequests": []})


@route("GET", rf"{FILES}/resolve/{REVISION}/{PATH}")
def resolve(request: Request, kind: str, id: str, revision: str, path: str) -> Response:
    """A file, or for one in LFS where it is."""
    found = request.repository(kind, id).resolve(revision)
    headers = {"X-Repo-Commit": found.oid}
    blob = found.files.get(path)
    if blob is None:
        return Response({"error": "Not found"}, 404, **headers, X_Error_Code="EntryNotFound")
    headers |= {"ETag": f'"{blob.upload_oid}"', "X-Linked-Size": str(blob.size)}
    if blob.sha256 is None:
        return Response(request.state.bytes_of(blob), **headers)
    headers["X-Linked-Etag"] = f'"{blob.sha256}"'
    headers["Location"] = f"{request.hub.storage}/objects/{blob.sha256}?Signature=test"
    return Response(status=302, **headers)


def keep_object(request: Request, oid: str, content: bytes) -> Response:
    if hashlib.sha256(content).hexdigest() != oid:
        raise ApiError(400, "the content does not match its SHA-256")
    request.state.objects[oid] = content
    return Response(ETag=f'"{oid}"')


def refuse_token(request: Request) -> None:
    if "Authorization" in request.headers:
        raise ApiError(400, "only one authentication mechanism is allowed: the address is signed")


@route("PUT", rf"/objects/{OID}", routes=STORAGE_ROUTES)
def put_object(request: Request, oid: str) -> Response:
    refuse_token(request)
    return keep_object(request, oid, request.body)


@route("PUT", rf"/parts/{OID}/(?P<number>\d+)", routes=STORAGE_ROUTES)
def put_part(request: Request, oid: str, number: str) -> Response:
    refuse_token(request)
    request.state.parts.setdefault(oid, {})[int(number)] = request.body
    return Response(ETag=f'"{hashlib.md5(request.body).hexdigest()}"')


@route("GET", rf"/objects/{OID}", routes=STORAGE_ROUTES)
def get_object(request: Request, oid: str) -> Response:
    """An object, or the range of it that datasets' file system reads."""
    refuse_token(request)
    if oid not in request.state.objects:
        raise ApiError(404, "no such object")
    content = request.state.objects[oid]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not asked:
        return Response(content, ETag=f'"{oid}"', Accept_Ranges="bytes")
    start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    span = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], 206, ETag=f'"{oid}"', Content_Range=span)


@dataclass
class Fault:
    """A failure in place of an answer; status 0 closes the connection."""

    method: str
    pattern: str
    status: int
    message: str
    times: int


class HubServer:
    """A Hub at `endpoint`, served from threads inside a `with` block.

    Args:
        part_size: Bytes from which a file in LFS is uploaded in parts, of this size.
        delay: Seconds before each answer.
    """

    def __init__(self, part_size: int = 5_000_000, delay: float = 0.0) -> None:
        self.state = HubState()
        self.part_size, self.delay = part_size, delay
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
        """Accept a token; `role` is `write` or `read`."""
        self.state.users[token] = User(name, role, organisations)

    def fail(
        self, method: str, pattern: str, status: int, message: str = "", times: int = 1
    ) -> None:
        """Make the next `times` such requests fail; status 0 closes the connection."""
        self._faults.append(Fault(method, pattern, status, message, times))

    def repository(self, kind: str, repo_id: str) -> Repository:
        return self.state.repositories[kind, repo_id]

    def content(self, kind: str, repo_id: str, path: str, revision: str = "main") -> bytes:
        blob = self.repository(kind, repo_id).resolve(revision).files[path]
        return self.state.bytes_of(blob)

    def count(self, method: str, pattern: str) -> int:
        """How many such requests succeeded."""
        return sum(
            m == method and bool(re.search(pattern, path)) and status < 400
            for m, path, status in self.requests
        )

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.state.lock:
            for fault in self._faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


def handler_of(hub: HubServer, routes: list) -> type[BaseHTTPRequestHandler]:
    """The handler class of one listener."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            request = Request(hub, self)
            time.sleep(hub.delay)
            fault = hub.next_fault(self.command, self.path)
            if fault and fault.status == 0:
                self.close_connection = True
                hub.requests.append((self.command, self.path, 0))
                return
            try:
                if fault:
                    raise ApiError(fault.status, fault.message)
                response = dispatch(request, routes)
            except ApiError as error:
                response = Response({"error": error.message}, error.status)
                response.headers["X-Error-Message"] = error.message
                if error.code:
                    response.headers["X-Error-Code"] = error.code
            hub.requests.append((self.command, self.path, response.status))
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.body)

        do_GET = do_HEAD = do_POST = do_PUT = answer

    return Handler
