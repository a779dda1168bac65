"""Write a dataset in the one schema: streaming, in parallel, resumable, and never half-written.

The samples are cut into chunks, which workers read, check and write. A run that was killed goes on
with the chunks that it had not finished. When all are there they are joined into shards in a
working folder beside the output, which takes the output's name as the last step.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from label2label import __version__
from label2label.data.preparation.cards import DatasetDescription, write_dataset_card
from label2label.data.preparation.chunks import (
    ChunkWriter,
    ReadSample,
    digest_chunk,
    digest_chunks,
    part_path,
    read_journal,
    split_into_chunks,
)
from label2label.data.preparation.counts import (
    Counts,
    counts_from_json,
    counts_to_json,
    rows_per_split,
    write_counts,
)
from label2label.data.preparation.shards import join_parts
from label2label.data.preparation.workers import map_in_order
from label2label.data.schema import SPLITS, Sample, dataset_schema
from label2label.data.vocabulary import Vocabulary
from label2label.errors import UserError
from label2label.files import write_whole

PREPARATION_FILE = "preparation.json"
COUNTS_FILE = "counts.csv"
SKIPPED_FILE = "skipped.csv"


def prepare_dataset(
    samples: Iterable[Sample],
    read: ReadSample,
    vocabulary: Vocabulary,
    description: DatasetDescription,
    output: Path,
    *,
    settings: Mapping[str, Any] | None = None,
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
        output: Folder to write. It must not exist, be empty, or hold this very dataset already,
            which is then left as it is.
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
        "description": asdict(description),
        "label2label": __version__,
        "vocabulary": vocabulary.name,
        "settings": dict(settings or {}),
    }
    record = json.loads(json.dumps(record))  # tuples become lists, as in the record on disk
    finished = _finished_counts(output, record, samples)
    work = output.with_name(f".{output.name}.partial")
    if finished is not None:
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed at its very end
        print(f"{output} already holds this dataset")
        return finished
    refuse_used_output(output)
    _open_work_folder(work, record)
    try:
        start = time.perf_counter()
        schema = dataset_schema(vocabulary)
        write_chunk = ChunkWriter(read, vocabulary, schema, work / "parts")
        counts, digests = _write_chunks(samples, write_chunk, total, workers)
        skipped = _list_skipped(work, len(digests), max_bad, output)
        if not counts:
            raise UserError("no usable image was found: nothing was written")
        dataset = _join_chunks(work, len(digests), schema)
        record |= {"samples": digest_chunks(digests), "counts": counts_to_json(counts)}
        text = json.dumps(record)
        write_whole(dataset / PREPARATION_FILE, text)
        write_counts(dataset / COUNTS_FILE, counts)
        fingerprint = hashlib.sha256(text.encode()).hexdigest()
        write_dataset_card(dataset, description, vocabulary, counts, fingerprint)
        if output.exists():
            output.rmdir()
        os.replace(dataset, output)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, perhaps for lack of memory: run the same command again with "
            "fewer --workers, and it goes on where this run stopped"
        ) from error
    except Exception:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work)
    _report(output, counts, skipped, time.perf_counter() - start)
    return counts


def refuse_used_output(output: Path) -> None:
    """Refuse to write over anything.

    Args:
        output: The folder that is to be written.

    Raises:
        UserError: If it exists and is not an empty folder.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file: choose a new folder for --output")
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} already holds something else: choose a new folder for --output")


def count_skipped(output: Path) -> int:
    """Number of images that could not be used.

    Args:
        output: A folder that `prepare_dataset` wrote.

    Returns:
        The number of images that its `skipped.csv` lists.
    """
    with (output / SKIPPED_FILE).open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def _finished_counts(
    output: Path, record: Mapping[str, Any], samples: Iterable[Sample]
) -> Counts | None:
    path = output / PREPARATION_FILE
    if not path.is_file():
        return None
    finished = json.loads(path.read_text(encoding="utf-8"))
    counts = counts_from_json(finished.pop("counts"))
    digests = (digest_chunk(chunk) for _, chunk in split_into_chunks(samples))
    return counts if finished == {**record, "samples": digest_chunks(digests)} else None


def _open_work_folder(work: Path, record: Mapping[str, Any]) -> None:
    path = work / PREPARATION_FILE
    text = json.dumps(record)
    if work.exists() and not (path.is_file() and path.read_text(encoding="utf-8") == text):
        shutil.rmtree(work)
    (work / "parts").mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _write_chunks(
    samples: Iterable[Sample], write_chunk: ChunkWriter, total: int | None, workers: int
) -> tuple[Counts, list[str]]:
    counts: Counts = Counter()
    digests = []
    with tqdm(total=total, unit="image", desc="preparing") as progress:
        for entry in map_in_order(write_chunk, split_into_chunks(samples), workers):
            counts.update(counts_from_json(entry["counts"]))
            digests.append(entry["digest"])
            progress.update(entry["samples"])
    return counts, digests


def _list_skipped(work: Path, chunks: int, max_bad: int, output: Path) -> int:
    listing = work / SKIPPED_FILE
    skipped = 0
    with listing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "reason"])
        for index in range(chunks):
            entry = read_journal(work / "parts", index)
            writer.writerows(entry["skipped"])
            skipped += len(entry["skipped"])
    if skipped > max_bad:
        kept = output.with_name(f"{output.name}.{SKIPPED_FILE}")
        os.replace(listing, kept)
        raise UserError(
            f"{skipped:,} images could not be used, more than --max-bad {max_bad}: see {kept} "
            "(nothing else was written)"
        )
    return skipped


def _join_chunks(work: Path, chunks: int, schema: pa.Schema) -> Path:
    dataset = work / "dataset"
    shutil.rmtree(dataset, ignore_errors=True)
    (dataset / "data").mkdir(parents=True)
    for split in SPLITS:
        paths = (part_path(work / "parts", index, split) for index in range(chunks))
        join_parts((path for path in paths if path.exists()), dataset / "data", split, schema)
    os.replace(work / SKIPPED_FILE, dataset / SKIPPED_FILE)
    return dataset


def _report(output: Path, counts: Counts, skipped: int, seconds: float) -> None:
    rows = rows_per_split(counts)
    number = sum(rows.values())
    splits = ", ".join(f"{split} {rows[split]:,}" for split in SPLITS if split in rows)
    print(
        f"{output}: {number:,} rows ({splits}), {skipped:,} images skipped, "
        f"{number / seconds:,.0f} rows/s"
    )
