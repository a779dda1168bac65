"""An image collection, listed once: a folder, what a glob finds, or a prepared dataset."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from label2label.errors import UserError
from label2label.prediction.photos import iter_photos

BATCH = 64  # images of a Parquet file in memory at once


class ImageLocation(NamedTuple):
    """Where an image of a collection lies.

    Args:
        name: its path from the collection's root, or its name in a dataset.
        split: of the dataset; None for a file.
        shard: Parquet file of the dataset, as path from the root.
        row_group: index of its row group in the shard.
        row: index of its row in the row group.
    """

    name: str
    split: str | None = None
    shard: str = ""
    row_group: int = 0
    row: int = 0


def list_collection(data: str) -> Iterator[ImageLocation]:
    """List the images of a collection, in an order that depends on their names alone.

    Args:
        data: a folder of photos, searched recursively; a folder with `data/*.parquet`, as a script
            of `datasets_scripts/` writes; or a glob, `**` included, of photos, folders of them, or
            Parquet files. A folder that matches is searched, whatever matches in it.

    Yields:
        The images; names of files as they are, without opening them.

    Raises:
        UserError: there is no image, or a Parquet file has no column of images.
    """
    folder, root = Path(data), collection_root(data)
    shards = sorted(folder.glob("data/*.parquet"))
    if shards:
        found = _list_shards(shards, root)
    elif folder.is_dir():
        found = _list_files([folder], root)
    else:
        matches = sorted(map(Path, glob.iglob(data, recursive=True)))
        if matches and all(match.suffix == ".parquet" for match in matches):
            found = _list_shards(matches, root)
        else:
            found = _list_files(_without_contents(matches), root)
    first = next(found, None)
    if first is None:
        raise UserError(f"--data {data}: no images there; it takes a folder, a glob or a dataset")
    yield first
    yield from found


def collection_root(data: str) -> Path:
    """The folder that a collection lies in, from which its images are named.

    Args:
        data: a folder, or a glob.

    Returns:
        The folder, or what the glob says before its first pattern.
    """
    if Path(data).is_dir():
        return Path(data)
    parents = [folder for folder in Path(data).parents if not glob.has_magic(str(folder))]
    return parents[0]


def _without_contents(matches: list[Path]) -> list[Path]:
    """Matches of a glob but those in a folder that matches too, which is searched for itself."""
    folders = {match for match in matches if os.path.isdir(match)}
    return [match for match in matches if folders.isdisjoint(match.parents)]


def _list_files(paths: Iterable[Path], root: Path) -> Iterator[ImageLocation]:
    for path in iter_photos(paths):
        if not os.path.isdir(path):  # a folder without photos
            yield ImageLocation(str(path.relative_to(root)))


def _list_shards(shards: Iterable[Path], root: Path) -> Iterator[ImageLocation]:
    for path in shards:
        split = re.match(r"(.+?)(-\d|$)", path.stem)
        with _open_shard(path) as shard:
            for group in range(shard.num_row_groups):
                # The names alone: images are read when their turn comes.
                rows = shard.read_row_group(group, columns=["image.path"])["image"].to_pylist()
                for row, image in enumerate(rows):
                    name = (image or {}).get("path") or f"{path.name}/{group}/{row}"
                    file = str(path.relative_to(root))
                    yield ImageLocation(name, split and split[1], file, group, row)


def _open_shard(path: Path) -> pq.ParquetFile:
    try:
        shard = pq.ParquetFile(path, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from error
    columns = {column.path for column in shard.schema}
    if not {"image.bytes", "image.path"} <= columns:
        shard.close()
        raise UserError(f"{path} has no column `image` of encoded images")
    return shard


def write_locations(locations: Iterable[ImageLocation], path: Path) -> int:
    """Write a list of images, an image a line; names keep bytes that are no text.

    Args:
        locations: the images.
        path: file to write.

    Returns:
        How many there are.
    """
    number = 0
    with open(path, "w", encoding="ascii") as file:
        for location in locations:
            print(json.dumps(location if location.shard else location[:1]), file=file)
            number += 1
    return number


def read_locations(path: Path) -> Iterator[ImageLocation]:
    """Read what `write_locations` wrote, a line at a time."""
    with open(path, encoding="ascii") as file:
        for line in file:
            yield ImageLocation(*json.loads(line))


def read_images(root: Path, locations: Iterable[ImageLocation]) -> Iterator[Path | bytes]:
    """What `AttributePredictor.predict_photos` takes for images of a collection.

    Args:
        root: of the collection.
        locations: images, in the order of the list.

    Yields:
        Path of each file, or content of each image of a dataset, empty where it is null; a few of
        them are in memory.

    Raises:
        UserError: a Parquet file is gone, damaged or another one than when it was listed.
    """
    for (shard, group), run in groupby(locations, key=lambda where: (where.shard, where.row_group)):
        if not shard:
            yield from (root / where.name for where in run)
            continue
        with _open_shard(root / shard) as file:
            try:
                yield from _read_rows(file, group, [where.row for where in run])
            except (OSError, IndexError, pa.ArrowException) as error:
                raise UserError(f"{shard} changed or is damaged: {error}") from error


def _read_rows(file: pq.ParquetFile, group: int, rows: list[int]) -> Iterator[bytes]:
    wanted = iter(rows)
    row, start = next(wanted, None), 0
    for batch in file.iter_batches(BATCH, row_groups=[group], columns=["image.bytes"]):
        images = batch.column(0)
        while row is not None and row < start + len(images):
            yield (images[row - start].as_py() or {}).get("bytes") or b""
            row = next(wanted, None)
        if row is None:
            return
        start += len(images)
    raise IndexError(f"row group {group} has {start} rows")
