"""Write a dataset in the one schema: streaming, in parallel, resumable, and never half-written.

The samples are cut into chunks. A worker reads and checks the images of a chunk and writes them as
one small Parquet file per split, and then a journal entry; a run that was killed finds the journal
and goes on with the chunks that have no entry. When all chunks are there they are joined into
shards in a working folder beside the output, which takes the output's name as the last step.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from label2label.data.cards import DatasetDescription, write_dataset_card
from label2label.data.counts import (
    Counts,
    count_row,
    counts_from_json,
    counts_to_json,
    rows_per_split,
)
from label2label.data.schema import SPLITS, Sample, dataset_schema, sample_to_row
from label2label.data.shards import PartWriter, join_parts
from label2label.data.vocabulary import Vocabulary
from label2label.data.workers import map_in_order
from label2label.errors import UserError
from tqdm import tqdm

CHUNK_SAMPLES = 1000
PREPARATION_FILE = "preparation.json"
SKIPPED_FILE = "skipped.csv"

ReadSample = Callable[[Sample], Iterable[tuple[Sample, bytes]]]
"""Reads the image of a sample: the rows that it gives (none where a filter drops it), each with
its encoded image. Raises `BadImageError`. It is sent to worker processes, so it is picklable."""


class BadImageError(Exception):
    """An image that cannot be used; the text says why. It is skipped, counted and listed."""


def prepare_dataset(
    samples: Iterable[Sample],
    read: ReadSample,
    vocabulary: Vocabulary,
    description: DatasetDescription,
    output: Path,
    *,
    settings: Mapping[str, Any],
    total: int | None = None,
    workers: int = 1,
    max_bad: int = 10,
) -> Counts:
    """Write a dataset folder: Parquet shards of each split, a dataset card and a record.

    Args:
        samples: The rows to be, in an order that is the same in every run.
        read: Reads the image of a sample.
        vocabulary: Names the attribute columns.
        description: What the dataset card says.
        output: Folder to write. It must not exist, be empty, or hold this very dataset already.
        settings: What decides the rows beside the samples (JSON-ready); with other settings an
            interrupted run starts afresh.
        total: Number of samples, where known, for the progress bar.
        workers: Number of processes.
        max_bad: Number of unusable images above which the dataset is refused.

    Returns:
        Rows by source, split, column and value.

    Raises:
        UserError: If `output` holds something else, more than `max_bad` images are unusable, no
            row is left, or a worker process dies. `output` is then as it was.
    """
    output = Path(os.path.abspath(output))
    record = {
        "label2label": version("label2label"),
        "vocabulary": vocabulary.name,
        "settings": dict(settings),
    }
    finished = _finished_counts(output, record)
    if finished is not None:
        print(f"{output} holds this dataset already")
        return finished
    refuse_used_output(output)
    work = output.with_name(f".{output.name}.partial")
    _open_work_folder(work, record)
    try:
        start = time.perf_counter()
        schema = dataset_schema(vocabulary)
        write_chunk = ChunkWriter(read, vocabulary, schema, work / "parts")
        counts, chunks = _write_chunks(samples, write_chunk, total, workers)
        skipped = _check_skipped(work, chunks, max_bad, output)
        if not counts:
            raise UserError("no usable image was found: nothing was written")
        _publish(work, chunks, output, schema, record, counts, description)
        _report(output, counts, skipped, time.perf_counter() - start)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, perhaps for lack of memory: run the same command again with "
            "fewer --workers, and it goes on where this run stopped"
        ) from error
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return counts


def refuse_used_output(output: Path) -> None:
    """Refuse to write over anything.

    Args:
        output: The folder that is to be written.

    Raises:
        UserError: If it exists and is not an empty folder, or its parent cannot hold it.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: choose a folder for --output")
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} already holds something else: choose a new folder for --output")


@dataclass(frozen=True)
class ChunkWriter:
    """Reads a chunk of samples and writes its rows, unless an interrupted run already did.

    Args:
        read: Reads the image of a sample.
        vocabulary: Names the attribute columns.
        schema: Columns of the Parquet files.
        folder: Where the parts and the journal entries go.
    """

    read: ReadSample
    vocabulary: Vocabulary
    schema: pa.Schema
    folder: Path

    def __call__(self, chunk: tuple[int, list[Sample]]) -> dict[str, Any]:
        """Write one chunk.

        Args:
            chunk: Its index and its samples.

        Returns:
            The journal entry: `digest` of the samples, `samples`, `counts`, and `skipped`, a list
            of [image, reason].
        """
        index, samples = chunk
        journal = journal_path(self.folder, index)
        digest = hashlib.sha256(repr(samples).encode()).hexdigest()
        if journal.exists():
            entry = json.loads(journal.read_text(encoding="utf-8"))
            if entry["digest"] == digest:
                return entry
        counts: Counts = Counter()
        skipped = []
        writers: dict[str, PartWriter] = {}
        for sample in samples:
            try:
                rows = list(self.read(sample))
            except BadImageError as error:
                skipped.append([sample.key, str(error)])
                continue
            for row_sample, image in rows:
                row = sample_to_row(row_sample, image, self.vocabulary)
                split = row_sample.split
                if split not in writers:
                    writers[split] = PartWriter(part_path(self.folder, index, split), self.schema)
                writers[split].write(row)
                count_row(counts, split, row)
        for writer in writers.values():
            writer.close()
        entry = {
            "digest": digest,
            "samples": len(samples),
            "splits": list(writers),
            "counts": counts_to_json(counts),
            "skipped": skipped,
        }
        write_text_atomically(journal, json.dumps(entry))
        return entry


def journal_path(folder: Path, index: int) -> Path:
    """Where the journal entry of a chunk lies.

    Args:
        folder: Folder of the parts.
        index: Index of the chunk.

    Returns:
        The path.
    """
    return folder / f"{index:06d}.json"


def part_path(folder: Path, index: int, split: str) -> Path:
    """Where the rows of a chunk that belong to a split lie.

    Args:
        folder: Folder of the parts.
        index: Index of the chunk.
        split: Name of the split.

    Returns:
        The path.
    """
    return folder / f"{index:06d}.{split}.parquet"


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file that is either whole or not there.

    Args:
        path: The file.
        text: What it holds.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _finished_counts(output: Path, record: Mapping[str, Any]) -> Counts | None:
    path = output / PREPARATION_FILE
    if not path.is_file():
        return None
    finished = json.loads(path.read_text(encoding="utf-8"))
    counts = counts_from_json(finished.pop("counts", []))
    return counts if finished == record else None


def _open_work_folder(work: Path, record: Mapping[str, Any]) -> None:
    path = work / PREPARATION_FILE
    text = json.dumps(record, indent=2)
    if work.exists() and not (path.is_file() and path.read_text(encoding="utf-8") == text):
        shutil.rmtree(work)
    (work / "parts").mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, text)


def _chunks(samples: Iterable[Sample]) -> Iterator[tuple[int, list[Sample]]]:
    stream = iter(samples)
    index = 0
    while chunk := list(islice(stream, CHUNK_SAMPLES)):
        yield index, chunk
        index += 1


def _write_chunks(
    samples: Iterable[Sample], write_chunk: ChunkWriter, total: int | None, workers: int
) -> tuple[Counts, int]:
    counts: Counts = Counter()
    chunks = 0
    with tqdm(total=total, unit="image", desc="preparing") as progress:
        for entry in map_in_order(write_chunk, _chunks(samples), workers):
            counts.update(counts_from_json(entry["counts"]))
            chunks += 1
            progress.update(entry["samples"])
    return counts, chunks


def _journal(work: Path, chunks: int) -> Iterator[dict[str, Any]]:
    for index in range(chunks):
        yield json.loads(journal_path(work / "parts", index).read_text(encoding="utf-8"))


def _check_skipped(work: Path, chunks: int, max_bad: int, output: Path) -> int:
    listing = work / SKIPPED_FILE
    skipped = 0
    with listing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "reason"])
        for entry in _journal(work, chunks):
            writer.writerows(entry["skipped"])
            skipped += len(entry["skipped"])
    if skipped > max_bad:
        kept = output.with_name(f"{output.name}.{SKIPPED_FILE}")
        os.replace(listing, kept)
        raise UserError(
            f"{skipped:,} images could not be used, more than --max-bad {max_bad}: see {kept}; "
            "nothing else was written"
        )
    return skipped


def _publish(
    work: Path,
    chunks: int,
    output: Path,
    schema: pa.Schema,
    record: Mapping[str, Any],
    counts: Counts,
    description: DatasetDescription,
) -> None:
    dataset = work / "dataset"
    shutil.rmtree(dataset, ignore_errors=True)
    (dataset / "data").mkdir(parents=True)
    for split in SPLITS:
        paths = (part_path(work / "parts", index, split) for index in range(chunks))
        join_parts((path for path in paths if path.exists()), dataset / "data", split, schema)
    text = json.dumps({**record, "counts": counts_to_json(counts)}, indent=1)
    write_text_atomically(dataset / PREPARATION_FILE, text)
    write_dataset_card(dataset, description, counts)
    os.replace(work / SKIPPED_FILE, dataset / SKIPPED_FILE)
    if output.exists():
        output.rmdir()
    os.replace(dataset, output)
    shutil.rmtree(work)


def _report(output: Path, counts: Counts, skipped: int, seconds: float) -> None:
    rows = rows_per_split(counts)
    number = sum(rows.values())
    splits = ", ".join(f"{split} {rows[split]:,}" for split in SPLITS if split in rows)
    print(
        f"{output}: {number:,} rows ({splits}), {skipped:,} images skipped, "
        f"{number / seconds:,.0f} rows/s"
    )
