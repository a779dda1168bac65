"""What the Hub keeps: users, repositories, their commits and refs, and LFS objects."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatch

LFS_PATTERNS = (
    *("*.safetensors", "*.onnx", "*.parquet", "*.bin", "*.pt", "*.pth", "*.zip", "*.npz"),
    *("*.png", "*.jpg", "*.jpeg", "*.webp", "*.wasm", "*.tflite"),
)
GITATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS
).encode()


class ApiError(Exception):
    """An error response; `code` is the Hub's own name of it, in the header `X-Error-Code`."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class User:
    """Whoever holds a token: a name, what the token may do, and organisations."""

    name: str
    role: str = "write"
    organisations: tuple[str, ...] = ()

    def may_write_to(self, namespace: str) -> bool:
        """Whether a repository under this name is theirs to write."""
        return self.role == "write" and namespace in (self.name, *self.organisations)


@dataclass(frozen=True)
class Blob:
    """A file at one commit. `sha256` is of files in LFS, whose bytes the storage has."""

    size: int
    content: bytes | None = None
    sha256: str | None = None

    @property
    def git_oid(self) -> str:
        """Digest of git's blob: of the content, or of the pointer that stands for it."""
        content = self.content if self.sha256 is None else self.pointer
        assert content is not None
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git holds in place of a file in LFS."""
        head = "version https://git-lfs.github.com/spec/v1"
        return f"{head}\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def upload_oid(self) -> str:
        """The digest by which the client knows that a file has not changed."""
        return self.sha256 or self.git_oid


@dataclass(frozen=True)
class Commit:
    """A whole tree, by path, and where it came from."""

    oid: str
    parent: str | None
    message: str
    files: dict[str, Blob]


@dataclass
class Repository:
    """A repository: commits by digest, refs by name, pull requests by number."""

    kind: str
    repo_id: str
    private: bool
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pull_requests: int = 0

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, a pull request's ref or a digest (5 digits are enough)."""
        oid = self.refs.get(revision)
        if oid is None and re.fullmatch(r"[0-9a-f]{5,40}", revision):
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        if oid is None:
            raise ApiError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def add_commit(self, ref: str, message: str, files: dict[str, Blob]) -> Commit:
        """Put a tree on top of a ref."""
        parent = self.refs.get(ref)
        tree = {path: blob.git_oid for path, blob in sorted(files.items())}
        oid = hashlib.sha1(json.dumps([self.repo_id, parent, message, tree]).encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, message, files)
        self.refs[ref] = oid
        return self.commits[oid]

    def history(self, revision: str = "main") -> list[Commit]:
        """Commits from the newest to the first."""
        found, oid = [], self.resolve(revision).oid
        while oid is not None:
            found.append(self.commits[oid])
            oid = self.commits[oid].parent
        return found


class HubState:
    """Everything that the server knows; `lock` guards it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}  # LFS, by SHA-256
        self.parts: dict[str, dict[int, bytes]] = {}  # of files that are on their way

    def user(self, token: str | None) -> User | None:
        """Who holds a token; None without one."""
        if token is None:
            return None
        if token not in self.users:
            raise ApiError(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def create(self, user: User, kind: str, repo_id: str, private: bool, sdk: str | None) -> None:
        """Make a repository, with the commit that the Hub itself makes."""
        namespace = repo_id.partition("/")[0]
        if not user.may_write_to(namespace):
            raise ApiError(
                403,
                f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"',
            )
        if (kind, repo_id) in self.repositories:
            raise ApiError(409, f"You already created this {kind} repo")
        repository = Repository(kind, repo_id, private, sdk)
        blob = Blob(len(GITATTRIBUTES), GITATTRIBUTES)
        repository.add_commit("main", "initial commit", {".gitattributes": blob})
        self.repositories[kind, repo_id] = repository

    def find(self, user: User | None, kind: str, repo_id: str, write: bool = False) -> Repository:
        """A repository that somebody may see, or write to."""
        repository = self.repositories.get((kind, repo_id))
        namespace = repo_id.partition("/")[0]
        may_write = user is not None and user.may_write_to(namespace)
        may_read = user is not None and namespace in (user.name, *user.organisations)
        if repository is None or (repository.private and not (may_read or may_write)):
            # As if it were not there, so that names of private repositories do not leak.
            raise ApiError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not may_write:
            raise ApiError(403, f"Forbidden: pass `create_pr=1` to open a PR on {repo_id}")
        return repository

    def is_lfs(self, path: str, size: int, sample: bytes) -> bool:
        """Whether the Hub wants a file in LFS: by its name, its size, or not being text."""
        try:
            sample.decode()
        except UnicodeDecodeError as error:
            # A character that the end of the sample cuts is no sign.
            if error.start < len(sample) - 4:
                return True
        return size > 10_000_000 or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)

    def apply(self, repository: Repository, ref: str, lines: list[dict]) -> Commit:
        """Commit lines of JSON, all of them or none."""
        header = next(line["value"] for line in lines if line["key"] == "header")
        head = repository.resolve(ref)
        if header.get("parentCommit") not in (None, head.oid):
            raise ApiError(412, "The branch has moved since the parent commit")
        files = dict(head.files)
        for line in lines:
            self._apply_line(files, line["key"], line["value"])
        return repository.add_commit(ref, header["summary"], files)

    def _apply_line(self, files: dict[str, Blob], key: str, value: dict) -> None:
        if key == "file":
            content = base64.b64decode(value["content"])
            files[value["path"]] = Blob(len(content), content)
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise ApiError(400, f"LFS pointer pointed to a file that does not exist: {value}")
            files[value["path"]] = Blob(len(self.objects[value["oid"]]), sha256=value["oid"])
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise ApiError(404, "A file with this name doesn't exist", "EntryNotFound")
        elif key == "deletedFolder":
            for path in [path for path in files if path.startswith(value["path"])]:
                del files[path]
        elif key != "header":
            raise ApiError(400, f"Unknown key {key}")

    def bytes_of(self, blob: Blob) -> bytes:
        """A file's content, from git or from LFS."""
        if blob.sha256 is not None:
            return self.objects[blob.sha256]
        assert blob.content is not None
        return blob.content
