"""What a run of `label2label label` is about, kept in its output, so that it can be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq

from label2label.checkpoints import find_checkpoint
from label2label.errors import UserError
from label2label.prediction.collection import (
    ImageLocation,
    collection_root,
    list_collection,
    read_locations,
    write_locations,
)
from label2label.prediction.label_shards import TEMPORARY, shard_path, whole_file

DATA = "data"
# A folder that readers of datasets pass over.
STATE = ".label2label"
SETTINGS_FILE = "run.json"
LIST_FILE = "images.jsonl"


@dataclass(frozen=True)
class LabelSettings:
    """What decides the rows.

    Args:
        data: the collection, as absolute path or glob.
        model: digest of the model's files, or its Hub id.
        detector: of faces, `"yunet"` or `"haar"`; None where images are crops.
        shard_size: images whose rows share a file.
    """

    data: str
    model: str
    detector: str | None
    shard_size: int


@dataclass(frozen=True)
class LabelRun:
    """A run and its folder.

    Args:
        folder: of the output.
        settings: what decides the rows.
        images: number of images in the collection.
    """

    folder: Path
    settings: LabelSettings
    images: int

    @property
    def root(self) -> Path:
        """Folder that the images lie in."""
        return collection_root(self.settings.data)

    @property
    def shards(self) -> int:
        """Number of files of labels, finished or not."""
        return -(-self.images // self.settings.shard_size)

    def shard(self, index: int) -> Path:
        """A file of labels, finished or not."""
        return shard_path(self.folder / DATA, index, self.shards)

    def images_in(self, shard: int) -> int:
        """How many images a shard, by its index, is about."""
        return min(self.settings.shard_size, self.images - shard * self.settings.shard_size)

    def read_shards(self) -> Iterator[tuple[int, list[tuple[int, ImageLocation]]]]:
        """The images of each shard: images in the order of the list, so many a shard.

        Yields:
            Index of the shard, and its images with their index in the collection.
        """
        size = self.settings.shard_size
        images = enumerate(read_locations(self.folder / STATE / LIST_FILE))
        for shard, members in groupby(images, key=lambda image: image[0] // size):
            yield shard, list(members)


def open_run(folder: Path, settings: LabelSettings) -> LabelRun:
    """Begin a run, or go on with the one that the folder holds.

    The collection is listed once, when a run begins: it decides which image belongs to which file,
    also where images came or went while the run was interrupted.

    Args:
        folder: of the output; it is made where it does not exist.
        settings: what decides the rows.

    Returns:
        The run.

    Raises:
        UserError: the folder holds something else, or a run of other settings, or there are no
            images.
    """
    state = folder / STATE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: give a folder")
    if state.is_dir():
        for leftover in folder.rglob(f".*{TEMPORARY}"):
            leftover.unlink(missing_ok=True)  # of a process that was killed
    if (state / SETTINGS_FILE).exists():
        return _read_run(folder, settings)
    others = [file.name for file in folder.iterdir()] if folder.exists() else []
    if others not in ([], [STATE]):
        raise UserError(f"--output {folder} holds other files ({min(others)}): give a new folder")
    locations = list_collection(settings.data)
    first = next(locations)  # so that nothing is written for a collection that is none

    def listed() -> Iterator[ImageLocation]:
        yield first
        yield from locations

    state.mkdir(parents=True, exist_ok=True)
    with whole_file(state / LIST_FILE) as temporary:
        images = write_locations(listed(), temporary)
    with whole_file(state / SETTINGS_FILE) as temporary:
        temporary.write_text(json.dumps({**asdict(settings), "images": images}, indent=2))
    return LabelRun(folder, settings, images)


def _read_run(folder: Path, settings: LabelSettings) -> LabelRun:
    try:
        found = json.loads((folder / STATE / SETTINGS_FILE).read_text(encoding="utf-8"))
        run = LabelRun(folder, settings, int(found.pop("images")))
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{folder / STATE / SETTINGS_FILE} is damaged: give a new folder"
        ) from error
    for name, value in asdict(settings).items():
        if found.get(name) != value:
            raise UserError(
                f"--output {folder} holds labels of another run ({name} was {found.get(name)}, "
                f"not {value}): give a new folder, or what that run was given"
            )
    return run


def digest_model(name: str | None) -> str:
    """Tell models apart.

    Args:
        name: folder, ONNX file, Hub id, or None for the model that ships.

    Returns:
        Hexadecimal SHA-256 of the files that decide its predictions, or the Hub id.
    """
    path = Path(find_checkpoint(name))
    suffixes = (".json", ".safetensors", ".onnx")
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
    if not files:
        return str(name)
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def count_labels(run: LabelRun) -> dict[str, int]:
    """Count what is in the files of a finished run, a file at a time.

    Args:
        run: whose shards are all there.

    Returns:
        Number of `images`, `faces`, images `without_face`, and images `unreadable`.
    """
    rows = faces = errors = 0
    for index in range(run.shards):
        table = pq.read_table(run.shard(index), columns=["face", "error"])
        rows += len(table)
        faces += len(table) - table["face"].null_count
        errors += len(table) - table["error"].null_count
    return {
        "images": run.images,
        "faces": faces,
        "without_face": rows - faces - errors,
        "unreadable": errors,
    }
