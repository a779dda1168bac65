"""Label image collections, by `label2label label` on one machine or a callable for clusters.

The command lists a collection once and labels it shard by shard to Parquet; started again, it
resumes. `BatchLabeller` labels columns of encoded images, for `datasets.map` and Ray Data.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from label2label import __version__
from label2label.errors import UserError, join_lines, printable
from label2label.files import DRAFT_SUFFIX, hold_lock, replace_file, sha256, write_whole
from label2label.prediction.backends import OnnxBackend, fetch_model
from label2label.prediction.photos import find_photos
from label2label.prediction.predictor import AttributePredictor

ROW_GROUP = 1000  # rows of labels in memory at once
READ_ROWS = 64  # images of a Parquet file in memory at once
STATE = ".label2label"  # hidden, so that readers of datasets ignore it
# The first line of the list holds the run's settings.
LIST_FILE, LOCK_FILE = "images.jsonl", "lock"

CARD = """---
configs:
- config_name: default
  data_files: data/*.parquet
tags: [facial-attributes, label2label]
---
# Facial attributes of {images} images

Predicted by label2label {version}, not annotated: {how}. One row per face, {faces} in all. An image
without a face ({without_face}) and one that could not be read ({unreadable}) have one row each.

| column | content |
| :--- | :--- |
| `index` | index of the image in the collection, from 0 |
| `image` | path of the image, or its name in a dataset |
| `split` | split of the dataset; null for files |
| `face` | index of the face, left to right, from 0; null if none was found |
| `box` | x0, y0, x1, y1, in pixels of the upright image |
| `score` | confidence of the face detector, 0 to 1 |
| `error` | reason why the image could not be read; else null |
| `present` | present attributes, the most probable first; no two contradict each other |
| {names} | probability, 0 to 1 |
"""


class ImageLocation(NamedTuple):
    """The location of an image in a collection."""

    name: str  # path from the collection's root, or name in a dataset
    split: str | None = None  # of the dataset; None for a file
    shard: str = ""  # the dataset's Parquet file, as path from the root; empty for a file
    row_group: int = 0  # in the shard
    row: int = 0  # in the row group


class LabelRun:
    """A labelling run, started or resumed in its folder, whose state folder is locked.

    The collection is listed once, at the start. This list assigns images to output files even if
    images are added or removed while the run is interrupted.

    Args:
        folder: Output folder.
        data: The collection, as absolute path or glob.
        shard_size: Images per output file.
        settings: Further settings that determine the labels.

    Raises:
        UserError: The folder has a run with other settings, or there are no images.
    """

    def __init__(self, folder: Path, data: str, shard_size: int, **settings: Any) -> None:
        self.folder, self.data, self.shard_size = folder, data, shard_size
        self._list = folder / STATE / LIST_FILE
        settings |= {"data": data, "shard_size": shard_size}
        for leftover in folder.rglob(f".*{DRAFT_SUFFIX}"):
            leftover.unlink(missing_ok=True)  # of a killed process
        (folder / "data").mkdir(exist_ok=True)
        if not self._list.exists():
            with replace_file(self._list) as draft, open(draft, "w") as lines:
                print(json.dumps(settings), file=lines)
                for location in list_collection(data):
                    # JSON in ASCII preserves names with bytes that are not valid text.
                    print(json.dumps(location if location.shard else location[:1]), file=lines)
        try:
            with open(self._list, encoding="ascii") as lines:
                found = dict(json.loads(next(lines)))
                self.images = sum(1 for _ in lines)
        except (ValueError, TypeError, StopIteration) as error:
            raise UserError(f"{self._list} is damaged: give a new folder") from error
        for name, value in settings.items():
            if found.get(name) != value:
                raise UserError(
                    f"--output {folder} contains labels of another run ({name} was "
                    f"{found.get(name)}, not {value}): give a new folder, or that run's arguments"
                )
        number = -(-self.images // shard_size)
        names = (f"labels-{index:05d}-of-{number:05d}.parquet" for index in range(number))
        self.shards = [folder / "data" / name for name in names]

    def read_shards(self) -> Iterator[list[tuple[int, ImageLocation]]]:
        """Yield the images of each shard, with their index in the collection."""
        with open(self._list, encoding="ascii") as file:
            next(file)  # the settings
            images = ((i, ImageLocation(*json.loads(line))) for i, line in enumerate(file))
            for _, members in groupby(images, key=lambda x: x[0] // self.shard_size):
                yield list(members)


class BatchLabeller:
    """Callable that labels images in `datasets.map(batched=True)` and Ray Data's `map_batches`.

        from label2label.prediction.labelling import BatchLabeller

        dataset.map(BatchLabeller(), batched=True, remove_columns=dataset.column_names)
        ray_dataset.map_batches(BatchLabeller, concurrency=2, batch_size=64)

    The model is loaded at the first batch, so that a labeller can be sent to other processes.

    Args:
        image_column: Column of images: bytes, paths, dictionaries of both as in `datasets`, PIL
            images or uint8 RGB arrays.
        options: Arguments of `AttributePredictor.from_pretrained`.
    """

    def __init__(self, image_column: str = "image", **options: Any) -> None:
        self.image_column = image_column
        self.options = options
        self._predictor: AttributePredictor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_predictor": None}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> pa.Table:
        """Label a batch.

        Args:
            batch: Values by column.

        Returns:
            One row per face, and one with null `face` for an image without faces or one that
            cannot be read: the other columns, repeated, then those of `label_schema`.

        Raises:
            UserError: The model cannot be loaded, or the batch lacks the image column.
        """
        if self.image_column not in batch:
            raise UserError(f"no column {self.image_column}: there are {', '.join(batch)}")
        if self._predictor is None:
            self._predictor = AttributePredictor.from_pretrained(**self.options)
        images = [_encoded(value) for value in batch[self.image_column]]
        rows: list[dict[str, Any]] = []
        sources: list[int] = []
        for index, entry in enumerate(self._predictor.predict_photos(images)):
            found = list(label_rows(entry))
            rows += found
            sources += [index] * len(found)
        schema = label_schema(self._predictor.backend.preprocessing.attributes)
        labels = pa.Table.from_pylist(rows, schema)
        others = [name for name in batch if name not in (self.image_column, *schema.names)]
        for place, name in enumerate(others):
            values = pa.array([batch[name][index] for index in sources])
            labels = labels.add_column(place, name, values)
        return labels


def label_command(args: argparse.Namespace) -> int:
    """Run `label2label label`, or resume an interrupted run; return 0."""
    if not args.data:
        raise UserError("--data is empty: give a folder or a glob")
    predictor = AttributePredictor.from_pretrained(
        args.model, args.backend, align=args.align, batch_size=args.batch_size
    )
    output, data = Path(args.output), os.path.abspath(os.path.expanduser(args.data))
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder")
    others = [file.name for file in output.iterdir()] if output.exists() else []
    if others and STATE not in others:
        raise UserError(
            f"--output {output} contains other files ({min(others)}): give a new folder"
        )
    if not (output / STATE / LIST_FILE).exists():
        next(list_collection(data))  # raises before anything is written
    (output / STATE).mkdir(parents=True, exist_ok=True)
    busy = f"another `label2label label` is writing {output}: wait for it, or give another folder"
    with hold_lock(output / STATE / LOCK_FILE, busy):
        detector = predictor.detector.name if predictor.detector else None
        model = digest_model(args.model)
        # Of a folder with both, ONNX Runtime may run INT8 weights and PyTorch float ones.
        backend = "onnx" if isinstance(predictor.backend, OnnxBackend) else "torch"
        settings = {"model": model, "backend": backend, "detector": detector}
        run = LabelRun(output, data, args.shard_size, **settings)
        label_missing(run, predictor)
        finish(run, predictor.backend.preprocessing.attributes, detector)
    return 0


def label_missing(run: LabelRun, predictor: AttributePredictor) -> None:
    """Write the missing shards of a run, and print the rate."""
    schema = label_schema(predictor.backend.preprocessing.attributes, within=True)
    root, labelled, start = collection_root(run.data), 0, time.perf_counter()
    # `disable=None` hides the bar unless the output is a terminal.
    with tqdm(total=run.images, unit="image", desc="label", disable=None) as bar:
        for path, images in zip(run.shards, run.read_shards(), strict=True):
            if path.exists():
                bar.update(len(images))
            else:
                write_shard(path, schema, _predict_rows(root, images, predictor, bar))
                labelled += len(images)
    if labelled:
        seconds = time.perf_counter() - start
        print(f"labelled {labelled} images in {seconds:.1f} s, {labelled / seconds:.1f} images/s")


def _predict_rows(
    root: Path,
    images: list[tuple[int, ImageLocation]],
    predictor: AttributePredictor,
    bar: tqdm,
) -> Iterator[dict[str, Any]]:
    entries = predictor.predict_photos(read_images(root, (where for _, where in images)))
    for (index, location), entry in zip(images, entries, strict=True):
        # A file name may contain bytes that are not valid text.
        name = location.name.encode("utf-8", "backslashreplace").decode()
        for row in label_rows(entry):
            yield {"index": index, "image": name, "split": location.split, **row}
        bar.update()


def label_schema(attributes: Sequence[str], within: bool = False) -> pa.Schema:
    """Return the columns of the labels, which `CARD` describes, all nullable.

    Args:
        attributes: Names of the model's attributes.
        within: Whether to add the image's place in its collection: `index`, `image`, `split`.
    """
    place = [("index", pa.int64()), ("image", pa.string()), ("split", pa.string())]
    return pa.schema(
        [
            *(place if within else ()),
            ("face", pa.int32()),
            ("box", pa.list_(pa.float32())),  # of fixed size, pyarrow below 26 cannot write null
            ("score", pa.float32()),
            ("error", pa.string()),
            ("present", pa.list_(pa.string())),
            *((name, pa.float32()) for name in attributes),
        ]
    )


def label_rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of an entry of `predict_photos`: one per face, or one with null `face`."""
    for number, face in enumerate(entry.get("faces", [])):
        found = {name: face[name] for name in ("box", "score", "present")}
        yield {"face": number, **found, **face["attributes"]}
    if not entry.get("faces"):
        yield {"error": entry.get("error")}


def list_collection(data: str) -> Iterator[ImageLocation]:
    """List the images of a collection, in an order that depends only on their names.

    Args:
        data: Folder of photos, searched recursively; folder with `data/*.parquet`, as the scripts
            in `datasets_scripts/` write it; or glob (`**` works) of photos, folders of photos or
            Parquet files. A matching folder is searched as a whole.

    Raises:
        UserError: There is no image, or a Parquet file has no column of images.
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
        else:  # files in a matching folder would be listed twice
            folders = {match for match in matches if os.path.isdir(match)}
            found = _list_files([m for m in matches if folders.isdisjoint(m.parents)], root)
    first = next(found, None)
    if first is None:
        raise UserError(f"--data {data}: no images there; give a folder, a glob or a dataset")
    yield first
    yield from found


def collection_root(data: str) -> Path:
    """Return a folder, or the part of a glob before its first pattern: the root of all names."""
    if Path(data).is_dir():
        return Path(data)
    return next(folder for folder in Path(data).parents if not glob.has_magic(str(folder)))


def read_images(root: Path, locations: Iterable[ImageLocation]) -> Iterator[Path | bytes]:
    """Yield the path of a file, or the content of a dataset's image (empty if null).

    Args:
        root: Root of the collection.
        locations: Images, in the order of the list.

    Raises:
        UserError: A Parquet file is missing, damaged or changed since it was listed.
    """
    for (shard, group), run in groupby(locations, key=lambda where: (where.shard, where.row_group)):
        if not shard:
            yield from (root / where.name for where in run)
            continue
        rows = [where.row for where in run]  # consecutive
        with _open_shard(root / shard) as file:
            try:
                batches = file.iter_batches(READ_ROWS, row_groups=[group], columns=["image"])
                images = (image for batch in batches for image in batch.column(0))
                found = rows[0]
                for image in islice(images, rows[0], rows[-1] + 1):
                    yield _encoded(image.as_py(), root)
                    found += 1
                if found <= rows[-1]:
                    raise IndexError(f"row group {group} has no row {found}")
            except (OSError, IndexError, pa.ArrowException) as error:
                raise UserError(f"{shard} changed or is damaged: {join_lines(error)}") from error


def digest_model(name: str | None) -> str:
    """Identify a model, as in `AttributePredictor.from_pretrained`, by its files' SHA-256."""
    path = fetch_model(name)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    digests = [sha256(f) for f in files if f.suffix in (".json", ".safetensors", ".onnx")]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def write_shard(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> None:
    """Write a shard atomically, with one row group in memory at a time."""
    with replace_file(path) as draft, pq.ParquetWriter(draft, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(row)
            if len(group) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def finish(run: LabelRun, attributes: list[str], detector: str | None) -> None:
    """Write the card of a complete run, and print its counts."""
    rows = faces = unreadable = 0
    for path in run.shards:
        table = pq.read_table(path, columns=["face", "error"])
        rows += len(table)
        faces += len(table) - table["face"].null_count
        unreadable += len(table) - table["error"].null_count
    without_face = rows - faces - unreadable
    title = {"yunet": "YuNet", "haar": "OpenCV's Haar cascade"}.get(detector or "")
    text = CARD.format(
        version=__version__,
        how=f"faces found by {title}, aligned" if title else "each image treated as one face",
        names=", ".join(f"`{printable(name)}`" for name in attributes),
        images=run.images,
        faces=faces,
        without_face=without_face,
        unreadable=unreadable,
    )
    write_whole(run.folder / "README.md", text)
    print(
        f"{printable(str(run.folder))}: {run.images} images, {faces} faces; "
        f"without a face: {without_face}, not readable: {unreadable}"
    )


def _list_files(paths: Iterable[Path], root: Path) -> Iterator[ImageLocation]:
    for path in find_photos(paths):
        if not os.path.isdir(path):  # a folder without photos
            yield ImageLocation(str(path.relative_to(root)))


def _list_shards(shards: Iterable[Path], root: Path) -> Iterator[ImageLocation]:
    for path in shards:
        split = re.match(r"(.+?)(-\d|$)", path.stem)
        with _open_shard(path) as shard:
            for group in range(shard.num_row_groups):
                # Only names: images are read when they are labelled.
                rows = shard.read_row_group(group, columns=["image.path"])["image"].to_pylist()
                for row, image in enumerate(rows):
                    name = (image or {}).get("path") or f"{path.name}/{group}/{row}"
                    file = str(path.relative_to(root))
                    yield ImageLocation(name, split and split[1], file, group, row)


def _open_shard(path: Path) -> pq.ParquetFile:
    try:
        shard = pq.ParquetFile(path, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is not a Parquet file that can be read: {join_lines(error)}"
        ) from error
    kinds = {column.path: column.physical_type for column in shard.schema}
    if [kinds.get(f"image.{name}") for name in ("bytes", "path")] != ["BYTE_ARRAY"] * 2:
        shard.close()
        raise UserError(f"{path} has no column `image` of encoded images, `bytes` and `path`")
    return shard


def _encoded(value: Any, root: Path | None = None) -> Any:
    """Convert a value of an image column to the predictor's input; null becomes b"".

    A path without bytes is taken relative to the collection's root.
    """
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if not content and isinstance(path, str) and path:
            return root / path if root else path
        value = content
    return b"" if value is None else value
