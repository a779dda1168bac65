"""Write a dataset in the common schema, atomically and in bounded memory.

Threads read and frame images. The rows are written to Parquet shards in a folder beside the output,
which is renamed as the last step; the next run clears what a killed one left.
`OUT/preparation.json` is a machine-readable record of the preparation:

    label2label  version of the package
    vocabulary   name of the attribute vocabulary
    description  the fields of `DatasetDescription`, with `title`, `terms` and `redistributable`:
                 whether the terms allow giving the images to others
    counts       list of [source, split, column, value, rows], see `Counts`
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from label2label import __version__
from label2label.data.schema import SPLITS, Sample, dataset_features, sample_to_row
from label2label.data.vocabulary import Vocabulary
from label2label.errors import UserError
from label2label.files import hold_lock, replace_folder
from label2label.prediction.predictor import map_in_threads
from tqdm import tqdm

from preparation.card import Counts, DatasetDescription, sum_counts, write_dataset_card
from preparation.framing import ReadSample
from preparation.sources import BadImageError

PREPARATION_FILE = "preparation.json"
SKIPPED_FILE = "skipped.csv"
SHARD_BYTES = 100 * 10**6
ROW_GROUP = 1000  # rows


def write_dataset(
    samples: Iterable[Sample],
    read: ReadSample,
    vocabulary: Vocabulary,
    description: DatasetDescription,
    output: Path,
    *,
    total: int | None = None,
    workers: int = 1,
    max_bad: int = 10,
) -> Counts:
    """Write a dataset folder: Parquet shards of each split, a dataset card and a record.

    `total` is the number of samples for the progress bar, if known. A person in two splits, more
    than `max_bad` unusable images, or no row are errors, and the output is then unchanged.
    """
    start = time.perf_counter()
    output = Path(os.path.abspath(output))
    with claim_output(output) as work:
        (work / "data").mkdir(parents=True)
        counts: Counts = Counter()
        skipped: list[tuple[str, str]] = []
        shards = {split: Shards(work / "data", split, vocabulary) for split in SPLITS}
        with closing(_read_rows(check_identities(samples), read, total, workers, skipped)) as rows:
            for sample, image in rows:
                row = sample_to_row(sample, image, vocabulary)
                shards[sample.split].write(row)
                _count_row(counts, sample.split, row)
        for split_shards in shards.values():
            split_shards.finish()
        with (work / SKIPPED_FILE).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "reason"), *skipped])
        if len(skipped) > max_bad:
            kept = output.with_name(f"{output.name}.{SKIPPED_FILE}")
            os.replace(work / SKIPPED_FILE, kept)
            raise UserError(
                f"{len(skipped):,} images could not be used, more than --max-bad {max_bad}: see "
                f"{kept} (nothing else was written)"
            )
        if not counts:
            raise UserError("no usable image was found: nothing was written")
        record = {
            "label2label": __version__,
            "vocabulary": vocabulary.name,
            "description": asdict(description),
            "counts": [[*key, number] for key, number in counts.items()],
        }
        text = json.dumps(record)
        (work / PREPARATION_FILE).write_text(text, encoding="utf-8")
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        write_dataset_card(work, description, counts, fingerprint)
    _report(output, counts, len(skipped), time.perf_counter() - start)
    return counts


@contextmanager
def claim_output(output: Path) -> Iterator[Path]:
    """Yield the path of a folder to create, then put it in place of the output.

    An output that is not empty or that another program is writing, and a full disk, are errors.
    """
    refuse_used_output(output)
    lock = output.with_name(f".{output.name}.lock")
    taken = f"another program is writing {output}: wait for it, or choose another folder"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(lock, taken):
            try:
                refuse_used_output(output)  # again: the other program may have finished
                with replace_folder(output) as work:
                    yield work
            finally:
                lock.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # pyarrow's message is long
            reason = os.strerror(error.errno)
            raise UserError(f"{output} cannot be written: {reason}") from error
        raise


def refuse_used_output(output: Path) -> None:
    """Raise an error if the output is a file or a folder that is not empty."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: choose a new folder for --output")
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} is not empty: remove it or choose another --output")


def check_identities(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield the samples; raise an error for a person in two splits."""
    split_of: dict[tuple[str, str], str] = {}
    for sample in samples:
        if sample.identity is not None:
            split = split_of.setdefault((sample.source, sample.identity), sample.split)
            if split != sample.split:
                raise UserError(
                    f"{sample.key}: person {sample.identity} is in {split} and in {sample.split}; "
                    "splits must not share a person"
                )
        yield sample


def _read_rows(
    samples: Iterable[Sample],
    read: ReadSample,
    total: int | None,
    workers: int,
    skipped: list[tuple[str, str]],
) -> Iterator[tuple[Sample, bytes]]:
    """Yield the rows of all samples in order; append unusable images to `skipped`."""

    def read_safely(sample: Sample) -> list[tuple[Sample, bytes]] | tuple[str, str]:
        try:
            return list(read(sample))
        except BadImageError as error:
            return sample.key, str(error)

    results = map_in_threads(read_safely, samples, workers, ahead=4 * workers)
    for rows in tqdm(results, total=total, unit="image", desc="preparing", disable=None):
        if isinstance(rows, tuple):
            skipped.append(rows)
        else:
            yield from rows


class Shards:
    """Writer of the rows of one split to Parquet files of some `SHARD_BYTES` each."""

    def __init__(self, folder: Path, split: str, vocabulary: Vocabulary):
        self.stem = folder / split
        self.schema = dataset_features(vocabulary).arrow_schema
        self._paths: list[Path] = []
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is buffered until its file is full."""
        self._rows.append(row)
        self._bytes += len(row["image"]["bytes"])
        if self._bytes >= SHARD_BYTES:
            self._write_file()

    def finish(self) -> None:
        """Write the remaining rows and rename the files to `SPLIT-INDEX-of-NUMBER.parquet`."""
        if self._rows:
            self._write_file()
        for index, path in enumerate(self._paths):
            os.replace(path, f"{self.stem}-{index:05d}-of-{len(self._paths):05d}.parquet")

    def _write_file(self) -> None:
        self._paths.append(Path(f"{self.stem}-{len(self._paths)}.tmp"))
        table = pa.Table.from_pylist(self._rows, schema=self.schema)
        pq.write_table(table, self._paths[-1], row_group_size=ROW_GROUP)
        self._rows, self._bytes = [], 0


def _count_row(counts: Counts, split: str, row: Mapping[str, Any]) -> None:
    for column, value in row.items():
        if column == "image":
            value = value["path"].partition("#")[2]
        elif column == "age" and value is not None:
            value = f"{value // 10 * 10:02d}-{value // 10 * 10 + 9:02d}"
        elif column in ("identity", "source"):
            continue
        text = {None: "null", True: "true", False: "false"}.get(value, str(value))
        counts[row["source"], split, column, text] += 1


def _report(output: Path, counts: Counts, skipped: int, seconds: float) -> None:
    by_split = sum_counts(counts, "image", by=(2, 1))["image"]
    rows = sum(by_split.values())
    splits = ", ".join(f"{split} {by_split[split]:,}" for split in SPLITS if split in by_split)
    print(
        f"{output}: {rows:,} rows ({splits}), {skipped:,} images skipped, {rows / seconds:,.0f} "
        "rows/s"
    )
