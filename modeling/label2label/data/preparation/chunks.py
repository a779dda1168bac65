"""Chunks of a dataset under preparation: each one's rows as Parquet parts, and a journal entry.

A chunk whose journal entry is there is finished: the entry is written last, and every file takes
its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from label2label.data.preparation.counts import Counts, count_row, counts_to_json
from label2label.data.preparation.images import BadImageError
from label2label.data.preparation.shards import PartWriter
from label2label.data.schema import SPLITS, Sample, sample_to_row
from label2label.data.vocabulary import Vocabulary
from label2label.files import write_whole

CHUNK_SAMPLES = 1000

ReadSample = Callable[[Sample], Iterable[tuple[Sample, bytes]]]
"""Reads the image of a sample: the rows that it gives (none where a filter drops it), each with
its encoded image. Raises `BadImageError`. It is sent to worker processes, so it is picklable."""


def split_into_chunks(samples: Iterable[Sample]) -> Iterator[tuple[int, list[Sample]]]:
    """Cut a stream of samples into chunks.

    Args:
        samples: The stream.

    Yields:
        Index and samples of each chunk; all but the last have `CHUNK_SAMPLES`.
    """
    stream = iter(samples)
    index = 0
    while chunk := list(islice(stream, CHUNK_SAMPLES)):
        yield index, chunk
        index += 1


def digest_chunk(samples: Iterable[Sample]) -> str:
    """Digest of a chunk's samples, which tells whether another run means the same ones.

    Args:
        samples: The chunk.

    Returns:
        Hexadecimal SHA-256.
    """
    return hashlib.sha256("\n".join(map(repr, samples)).encode()).hexdigest()


def digest_chunks(digests: Iterable[str]) -> str:
    """Digest of all chunks.

    Args:
        digests: `digest_chunk` of each, in order.

    Returns:
        Hexadecimal SHA-256.
    """
    digest = hashlib.sha256()
    for chunk in digests:
        digest.update(chunk.encode())
    return digest.hexdigest()


def part_path(folder: Path, index: int, split: str) -> Path:
    """Where the rows of a chunk that belong to a split lie.

    Args:
        folder: Folder of the parts.
        index: Index of the chunk.
        split: Name of the split.

    Returns:
        The path; there is no file where the chunk has no row of that split.
    """
    return folder / f"{index:06d}.{split}.parquet"


def read_journal(folder: Path, index: int) -> dict[str, Any]:
    """Read the journal entry of a chunk.

    Args:
        folder: Folder of the parts.
        index: Index of the chunk.

    Returns:
        The entry that `ChunkWriter` returned.

    Raises:
        FileNotFoundError: If the chunk is not finished.
    """
    return json.loads(_journal_path(folder, index).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class ChunkWriter:
    """Reads a chunk's images and writes its rows, unless an interrupted run already did.

    Args:
        read: Reads the image of a sample.
        vocabulary: Names the attribute columns.
        schema: Columns of the Parquet files.
        folder: Where the parts and the journal go.
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
            The journal entry: `digest`, the number of `samples`, `counts`, and `skipped`, a list
            of [image, reason].
        """
        index, samples = chunk
        digest = digest_chunk(samples)
        if _journal_path(self.folder, index).exists():
            entry = read_journal(self.folder, index)
            if entry["digest"] == digest:
                return entry
        # What another run left of this chunk, its entry first: it is not finished without parts.
        _journal_path(self.folder, index).unlink(missing_ok=True)
        for split in SPLITS:
            part_path(self.folder, index, split).unlink(missing_ok=True)
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
            "counts": counts_to_json(counts),
            "skipped": skipped,
        }
        write_whole(_journal_path(self.folder, index), json.dumps(entry))
        return entry


def _journal_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.json"
