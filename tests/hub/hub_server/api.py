"""The Hub's API: repositories, commits, trees and files."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs

from .card_rules import card_errors, card_warnings
from .messages import OID, Request, Response, Route
from .state import ApiError, Blob, Commit
from .storage import keep_object

DATE = "2026-01-01T00:00:00.000Z"
REPO = r"(?P<id>[\w.\-]+/[\w.\-]+)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
FILES = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
REVISION, PATH = r"(?P<revision>[^/]+)", r"(?P<path>.+)"


def whoami(request: Request) -> Response:
    """Whose token it is: `HfApi.whoami`."""
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
    """A new repository: `HfApi.create_repo`."""
    wanted, user = request.json, request.user
    if user is None:
        raise ApiError(401, "Invalid username or password.")
    kind = wanted.get("type") or "model"
    repo_id = f"{wanted.get('organization') or user.name}/{wanted['name']}"
    private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
    prefix = "" if kind == "model" else f"{kind}s/"
    content = {"url": f"{request.hub.endpoint}/{prefix}{repo_id}", "name": repo_id}
    try:
        request.state.create(user, kind, repo_id, private, wanted.get("sdk"))
    except ApiError as error:
        if error.status != 409:
            raise
        # The client's `exist_ok` reads the address of what is there already.
        return Response(409, {**content, "error": error.message})
    return Response(content=content)


def validate_yaml(request: Request) -> Response:
    """The metadata of a card: `HfApi.create_commit` asks before it uploads."""
    content, kind = request.json["content"], request.json.get("repoType", "model")
    errors = [{"message": message} for message in card_errors(content, kind)]
    warned = [{"message": message} for message in card_warnings(content)]
    return Response(400 if errors else 200, {"errors": errors, "warnings": warned})


def info(request: Request, kind: str, id: str, revision: str = "main") -> Response:
    """Head, visibility and files: `HfApi.repo_info`."""
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
    """Which files go to LFS, and the digests of those that are there already."""
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
    """Where to put each object, of git-lfs's batch API; nothing where it is there."""
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
    """The end of an upload in parts."""
    parts = request.state.parts.pop(oid, {})
    told = {part["partNumber"]: part["etag"].strip('"') for part in request.json["parts"]}
    if told != {number: hashlib.md5(part).hexdigest() for number, part in parts.items()}:
        raise ApiError(400, "parts do not match their etags")
    return keep_object(request, oid, b"".join(parts[number] for number in sorted(parts)))


def verify(request: Request, oid: str) -> Response:
    """Whether an object arrived whole."""
    found = request.state.objects.get(oid)
    if found is None or len(found) != request.json["size"]:
        raise ApiError(404, "no such object")
    return Response(content={"message": "ok"})


def commit(request: Request, kind: str, id: str, revision: str) -> Response:
    """Lines of JSON as one commit, to a branch, a pull request or a new one."""
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
    """A branch, from main or where it is told to start."""
    repository = request.repository(kind, id, write=True)
    if name in repository.refs:
        raise ApiError(409, f"Reference already exists: refs/heads/{name}")
    repository.refs[name] = repository.resolve(request.json.get("startingPoint") or "main").oid
    return Response(content={})


def entry_of(path: str, blob: Blob) -> dict[str, Any]:
    """A file as `tree` and `paths-info` tell it."""
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
    """Entries with the commit that changed them last, where they are asked for so."""
    last = {"id": found.oid, "title": found.message, "date": DATE}
    return [entry | {"lastCommit": last} if expand else entry for entry in entries]


def tree(request: Request, kind: str, id: str, revision: str, path: str = "") -> Response:
    """The files below a folder, a page at a time."""
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
    """Files and folders by path: `HfApi.get_paths_info`."""
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
    """Branches: `HfApi.list_repo_refs`."""
    repository = request.repository(kind, id)
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
        for name, oid in repository.refs.items()
        if not name.startswith("refs/")
    ]
    return Response(content={"branches": branches, "tags": [], "converts": [], "pullRequests": []})


def resolve(request: Request, kind: str, id: str, revision: str, path: str) -> Response:
    """A file, or where it is: what `hf_hub_download` asks for."""
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
