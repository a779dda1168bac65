"""What one push puts into one Hub repository."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from label2label.errors import UserError
from label2label.hub.refusals import Content

Kind = Literal["model", "dataset", "space"]

_LEFT_OUT_FILES = ("*.part", "*.pyc", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class Repository:
    """A repository as it should be after the push.

    Args:
        kind: model, dataset or Space.
        repo_id: `owner/name`.
        files: what it holds, by path in the repository.
        owned: patterns of the paths that a push replaces as a whole: a file there that is not in
            `files` is of an earlier push, and goes.
        mark: a path by which an earlier push is known; another repository of this name is not
            written to.
        message: of the commit.
        sdk: of a Space.
    """

    kind: Kind
    repo_id: str
    files: Mapping[str, Content]
    owned: tuple[str, ...]
    mark: str
    message: str
    sdk: str | None = None

    def size(self, path: str) -> int:
        """Bytes of one file."""
        content = self.files[path]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def stale(self, paths: Iterable[str]) -> list[str]:
        """Of the paths that the repository holds, those that this push removes."""
        return sorted(
            path
            for path in paths
            if path not in self.files and any(fnmatch(path, pattern) for pattern in self.owned)
        )


def check_repo_id(repo_id: str) -> str:
    """Check that a repository's name is one.

    Args:
        repo_id: as the user gave it.

    Returns:
        It.

    Raises:
        UserError: it is not `owner/name`, or holds characters that the Hub does not allow.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{repo_id!r} is no name of a repository: {reason}") from error
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} has no owner: give OWNER/NAME, such as your-name/{repo_id}")
    return repo_id


def list_folder(folder: Path) -> dict[str, Content]:
    """The files of a folder, without hidden folders, caches and drafts.

    Args:
        folder: to list.

    Returns:
        Each file by its path below the folder, sorted.
    """
    files: dict[str, Content] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(x for x in folders if x != "__pycache__" and not x.startswith("."))
        for name in sorted(names):
            if not any(fnmatch(name, pattern) for pattern in _LEFT_OUT_FILES):
                path = Path(place, name)
                files[path.relative_to(folder).as_posix()] = path
    return dict(sorted(files.items()))
