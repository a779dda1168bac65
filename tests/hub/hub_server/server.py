"""The two listeners: the Hub's API, and the storage that it sends clients to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .card_rules import card_errors, card_warnings
from .state import ApiError, Blob, Commit, HubState, Repository, User

DATE = "2026-01-01T00:00:00.000Z"
REPO = r"(?P<id>[\w.\-]+/[\w.\-]+)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
FILES = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"


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
    """

    def __init__(self, page_size: int = 1000, part_size: int = 5_000_000) -> None:
        self.state = HubState()
        self.page_size, self.part_size = page_size, part_size
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


def whoami(request: Request) -> Response:
    user = request.user
    if user is None:
        raise ApiError(401, "Invalid username or password.")
    return Response(
        content={
            "type": "user",
            "name": user.name,
            "orgs": [{"type": "org", "name": name} for name in user.organisations],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": user.role},
            },
        }
    )


def create(request: Request) -> Response:
    wanted, user = request.json, request.user
    if user is None:
        raise ApiError(401, "Invalid username or password.")
    kind = wanted.get("type") or "model"
    repo_id = f"{wanted.get('organization') or user.name}/{wanted['name']}"
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    request.state.create(user, kind, repo_id, private, wanted.get("sdk"))
    prefix = "" if kind == "model" else f"{kind}s/"
    return Response(content={"url": f"{request.hub.endpoint}/{prefix}{repo_id}", "name": repo_id})


def validate_yaml(request: Request) -> Response:
    content, kind = request.json["content"], request.json.get("repoType", "model")
    errors = [{"message": message} for message in card_errors(content, kind)]
    warned = [{"message": message} for message in card_warnings(content)]
    return Response(400 if errors else 200, {"errors": errors, "warnings": warned})


def info(request: Request, kind: str, id: str, revision: str = "main") -> Response:
    repository = request.repository(kind, id)
    commit = repository.resolve(revision)
    return Response(
        content={
            "_id": hashlib.sha1(id.encode()).hexdigest()[:24],
            "id": id,
            "author": id.partition("/")[0],
            "sha": commit.oid,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": DATE,
            "createdAt": DATE,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            **({"sdk": repository.sdk} if kind == "space" else {}),
        }
    )


def preupload(request: Request, kind: str, id: str, revision: str) -> Response:
    creates_pr = request.query.get("create_pr") == "1"
    repository = request.repository(kind, id, write=not creates_pr)
    held = repository.resolve(revision).files
    files = []
    for file in request.json["files"]:
        path, size, sample = file["path"], file["size"], base64.b64decode(file["sample"])
        is_lfs = request.state.is_lfs(path, size, sample)
        answer = {
            "path": path,
            "uploadMode": "lfs" if is_lfs else "regular",
            "shouldIgnore": False,
        }
        if path in held:
            answer["oid"] = held[path].upload_oid
        files.append(answer)
    return Response(content={"files": files})


def lfs_batch(request: Request, kind: str, id: str) -> Response:
    request.repository(kind, id)
    hub, state = request.hub, request.state
    room = None if state.quota is None else state.quota - sum(map(len, state.objects.values()))
    objects = []
    for wanted in request.json["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        if oid in state.objects:
            pass  # without actions: nothing to do
        elif room is not None and size > room:
            message = "Private repository storage limit reached, please upgrade your plan"
            entry["error"] = {"code": 403, "message": message}
        else:
            upload: dict[str, Any] = {"href": f"{hub.storage}/objects/{oid}?Signature=test"}
            if size > hub.part_size:
                count = -(-size // hub.part_size)
                parts = {str(n): f"{hub.storage}/parts/{oid}/{n}" for n in range(1, count + 1)}
                upload = {
                    "href": f"{hub.endpoint}/complete/{oid}",
                    "header": {"chunk_size": str(hub.part_size), **parts},
                }
            entry["actions"] = {
                "upload": upload,
                "verify": {"href": f"{hub.endpoint}/verify/{oid}"},
            }
        objects.append(entry)
    return Response(content={"transfer": "basic", "objects": objects})


def complete(request: Request, oid: str) -> Response:
    parts = request.state.parts.pop(oid, {})
    told = {part["partNumber"]: part["etag"].strip('"') for part in request.json["parts"]}
    if told != {number: hashlib.md5(part).hexdigest() for number, part in parts.items()}:
        raise ApiError(400, "parts do not match their etags")
    return keep_object(request, oid, b"".join(parts[number] for number in sorted(parts)))


def keep_object(request: Request, oid: str, content: bytes) -> Response:
    if hashlib.sha256(content).hexdigest() != oid:
        raise ApiError(400, "the content does not match its SHA-256")
    request.state.objects[oid] = content
    return Response(ETag=f'"{oid}"')


def verify(request: Request, oid: str) -> Response:
    found = request.state.objects.get(oid)
    if found is None or len(found) != request.json["size"]:
        raise ApiError(404, "no such object")
    return Response(content={"message": "ok"})


def commit(request: Request, kind: str, id: str, revision: str) -> Response:
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
    return Response(content=answer)


def branch(request: Request, kind: str, id: str, name: str) -> Response:
    repository = request.repository(kind, id, write=True)
    if name in repository.refs:
        raise ApiError(409, f"Reference already exists: refs/heads/{name}")
    repository.refs[name] = repository.resolve(request.json.get("startingPoint") or "main").oid
    return Response(content={})


def entry_of(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
    if blob.sha256:
        size = len(blob.pointer)
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": size}
    return entry


def entries_of(found: Commit, folder: str, recursive: bool) -> list[dict[str, Any]]:
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
            entries[path] = entry_of(path, blob)
    return [entries[path] for path in sorted(entries)]


def with_commit(found: Commit, entries: list[dict[str, Any]], expand: bool) -> list[dict[str, Any]]:
    last = {"id": found.oid, "title": found.message, "date": DATE}
    return [entry | {"lastCommit": last} if expand else entry for entry in entries]


def tree(request: Request, kind: str, id: str, revision: str, path: str = "") -> Response:
    found = request.repository(kind, id).resolve(revision)
    recursive, expand = (
        request.query.get(x, "").lower() == "true" for x in ("recursive", "expand")
    )
    entries = entries_of(found, path.strip("/"), recursive)
    if path and not entries:
        raise ApiError(404, f"{path} does not exist on {revision}", "EntryNotFound")
    start = int(request.query.get("cursor", 0))
    end = start + request.hub.page_size
    page = with_commit(found, entries[start:end], expand)
    response = Response(content=page)
    if end < len(entries):
        query = f"recursive={recursive}&expand={expand}&cursor={end}"
        response.headers["Link"] = f'<{request.hub.endpoint}{request.path}?{query}>; rel="next"'
    return response


def paths_info(request: Request, kind: str, id: str, revision: str) -> Response:
    found = request.repository(kind, id).resolve(revision)
    form = parse_qs(request.body.decode())
    answer = []
    for path in form.get("paths", []):
        if path in found.files:
            answer.append(entry_of(path, found.files[path]))
        elif entries_of(found, path, recursive=False):
            answer.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
    expand = form.get("expand", [""])[0].lower() == "true"
    return Response(content=with_commit(found, answer, expand))


def refs(request: Request, kind: str, id: str) -> Response:
    repository = request.repository(kind, id)
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
        for name, oid in repository.refs.items()
        if not name.startswith("refs/")
    ]
    return Response(content={"branches": branches, "tags": [], "converts": [], "pullRequests": []})


def resolve(request: Request, kind: str, id: str, revision: str, path: str) -> Response:
    found = request.repository(kind, id).resolve(revision)
    headers = {"X-Repo-Commit": found.oid, "Accept-Ranges": "bytes"}
    blob = found.files.get(path)
    if blob is None:
        response = Response(404, {"error": "Entry not found"}, **headers)
        response.headers["X-Error-Code"] = "EntryNotFound"
        return response
    headers |= {"ETag": f'"{blob.upload_oid}"', "X-Linked-Size": str(blob.size)}
    if blob.sha256:
        headers["X-Linked-Etag"] = f'"{blob.sha256}"'
        headers["Location"] = f"{request.hub.storage}/objects/{blob.sha256}?Signature=test"
        return Response(302, **headers)
    if "resolve-cache" not in request.path:
        # The Hub answers small files from a cache of its own, by a redirect without a host.
        headers["Location"] = f"/api/resolve-cache/{kind or 'model'}s/{id}/{found.oid}/{path}"
        return Response(307, **headers)
    response = Response(200, request.state.bytes_of(blob), **headers)
    return response


def refuse_token(request: Request) -> None:
    if "Authorization" in request.headers:
        raise ApiError(400, "only one authentication mechanism is allowed: the address is signed")


def put_object(request: Request, oid: str) -> Response:
    refuse_token(request)
    return keep_object(request, oid, request.body)


def put_part(request: Request, oid: str, number: str) -> Response:
    refuse_token(request)
    request.state.parts.setdefault(oid, {})[int(number)] = request.body
    return Response(ETag=f'"{hashlib.md5(request.body).hexdigest()}"')


def get_object(request: Request, oid: str) -> Response:
    refuse_token(request)
    if oid not in request.state.objects:
        raise ApiError(404, "no such object")
    content = request.state.objects[oid]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
    if not asked:
        return Response(200, content, ETag=f'"{oid}"', Accept_Ranges="bytes")
    start, end = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if start >= len(content):
        raise ApiError(416, "the range is behind the end")
    span = f"bytes {start}-{end}/{len(content)}"
    return Response(206, content[start : end + 1], ETag=f'"{oid}"', Content_Range=span)


Route = tuple[str, str, Callable[..., Response]]
REVISION, PATH, OID = r"(?P<revision>[^/]+)", r"(?P<path>.+)", r"(?P<oid>[0-9a-f]{64})"

API_ROUTES: list[Route] = [
    ("GET", "/api/whoami-v2", whoami),
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("GET", API, info),
    ("GET", rf"{API}/revision/{REVISION}", info),
    ("POST", rf"{API}/preupload/{REVISION}", preupload),
    ("POST", rf"{API}/commit/{REVISION}", commit),
    ("POST", rf"{API}/branch/(?P<name>[^/]+)", branch),
    ("GET", rf"{API}/tree/{REVISION}", tree),
    ("GET", rf"{API}/tree/{REVISION}/{PATH}", tree),
    ("POST", rf"{API}/paths-info/{REVISION}", paths_info),
    ("GET", rf"{API}/refs", refs),
    ("POST", rf"{FILES}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"/complete/{OID}", complete),
    ("POST", rf"/verify/{OID}", verify),
    (
        "GET",
        rf"/api/resolve-cache/(?P<kind>model|dataset|space)s/{REPO}/{REVISION}/{PATH}",
        resolve,
    ),
    ("GET", rf"{FILES}/resolve/{REVISION}/{PATH}", resolve),
]
STORAGE_ROUTES: list[Route] = [
    ("PUT", rf"/objects/{OID}", put_object),
    ("GET", rf"/objects/{OID}", get_object),
    ("PUT", rf"/parts/{OID}/(?P<number>\d+)", put_part),
]
