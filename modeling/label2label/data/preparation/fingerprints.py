"""Which rows of several datasets are duplicates of others, and how often each is written.

A row is told apart by its name, its bytes and the perceptual hash of its image; the images
themselves are read once and never kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from label2label.data.preparation.duplicates import find_near_duplicates, perceptual_hash
from label2label.data.preparation.images import BadImageError, decode_image
from label2label.data.preparation.reading import list_row_groups, read_row_group
from label2label.data.preparation.workers import map_in_order
from label2label.data.schema import SPLITS
from label2label.errors import UserError


@dataclass
class Fingerprints:
    """What tells rows apart, 50 bytes a row.

    Args:
        names: (rows,) uint64, digest of source and image name; as good as random.
        contents: (rows,) uint64, digest of the encoded image.
        hashes: (rows, HASH_BYTES) uint8, perceptual hash of the image.
        splits: (rows,) int8, index into `SPLITS`.
        sources: (rows,) int8, index into the list of sources.
        inputs: (rows,) int8, index of the input.
    """

    names: np.ndarray
    contents: np.ndarray
    hashes: np.ndarray
    splits: np.ndarray
    sources: np.ndarray
    inputs: np.ndarray


def qualify(source: str, name: str) -> str:
    """Name that is unique among sources.

    Args:
        source: Short name of the dataset.
        name: Name of an image or a person in it, or one that is qualified already.

    Returns:
        `source/name`.
    """
    return name if name.startswith(f"{source}/") else f"{source}/{name}"


def digest(data: bytes) -> int:
    """Digest of a name or an image.

    Args:
        data: The bytes.

    Returns:
        The first eight bytes of the SHA-256.
    """
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def fingerprint_row_group(
    row_group: tuple[str, str, int],
) -> tuple[list[str], list[int], list[int], np.ndarray]:
    """Fingerprint the rows of a row group.

    Args:
        row_group: Split, shard and index.

    Returns:
        Sources, digests of names, digests of images, and perceptual hashes of the rows.

    Raises:
        UserError: If an image cannot be decoded.
    """
    _, shard, index = row_group
    sources, names, contents, hashes = [], [], [], []
    for row in read_row_group(shard, index, ["image", "source"]):
        name, data = row["image"]["path"], row["image"]["bytes"]
        try:
            hashes.append(perceptual_hash(decode_image(data)))
        except BadImageError as error:
            raise UserError(f"{shard}: the image {name} is {error}; prepare it anew") from error
        sources.append(row["source"])
        names.append(digest(qualify(row["source"], name).encode()))
        contents.append(digest(data))
    return sources, names, contents, np.array(hashes)


def fingerprint(inputs: list[Path], workers: int) -> tuple[Fingerprints, list[str]]:
    """Fingerprint all rows.

    Args:
        inputs: Folders of the prepared datasets.
        workers: Number of processes.

    Returns:
        The fingerprints, in the order of `read_samples`, and the names of the sources.
    """
    row_groups = [
        (number, row_group)
        for number, dataset in enumerate(inputs)
        for row_group in list_row_groups(dataset)
    ]
    sources: dict[str, int] = {}
    columns: list[list[np.ndarray]] = []
    results = map_in_order(fingerprint_row_group, (group for _, group in row_groups), workers)
    progress = tqdm(total=len(row_groups), unit="row group", desc="fingerprinting")
    for (number, (split, _, _)), (names, *digests, hashes) in zip(row_groups, results, strict=True):
        codes = [sources.setdefault(name, len(sources)) for name in names]
        rows = len(names)
        columns.append(
            [
                *(np.array(values, np.uint64) for values in digests),
                hashes,
                np.full(rows, SPLITS.index(split), np.int8),
                np.array(codes, np.int8),
                np.full(rows, number, np.int8),
            ]
        )
        progress.update()
    progress.close()
    return Fingerprints(*map(np.concatenate, zip(*columns, strict=True))), list(sources)


def refuse_common_files(rows: Fingerprints, inputs: list[Path]) -> None:
    """Refuse inputs that hold the same file of the same source.

    Args:
        rows: Fingerprints of all rows.
        inputs: Folders of the prepared datasets.

    Raises:
        UserError: If two inputs do.
    """
    for first in range(len(inputs)):
        for second in range(first + 1, len(inputs)):
            common = np.intersect1d(
                rows.names[rows.inputs == first], rows.names[rows.inputs == second]
            )
            if len(common):
                raise UserError(
                    f"{inputs[first]} and {inputs[second]} hold {len(common):,} files of the same "
                    "source and name: give each dataset only once"
                )


def keep_first_copies(rows: Fingerprints) -> np.ndarray:
    """Of images that are there more than once, byte for byte, keep one.

    Args:
        rows: Fingerprints of all rows.

    Returns:
        (rows,) bool; true for the copy in the last split, and there for the first one.
    """
    order = np.lexsort((np.arange(len(rows.splits)), -rows.splits, rows.contents))
    contents = rows.contents[order]
    keep = np.zeros(len(order), bool)
    keep[order[np.r_[True, contents[1:] != contents[:-1]]]] = True
    return keep


def drop_near_duplicates(rows: Fingerprints, keep: np.ndarray) -> np.ndarray:
    """Drop images of which a near-duplicate is in a later split.

    Args:
        rows: Fingerprints of all rows.
        keep: (rows,) bool, the rows still there.

    Returns:
        (rows,) bool, the rows left.
    """
    keep = keep.copy()
    for split in reversed(range(len(SPLITS) - 1)):
        candidates = np.flatnonzero(keep & (rows.splits == split))
        later = rows.hashes[keep & (rows.splits > split)]
        keep[candidates[find_near_duplicates(rows.hashes[candidates], later)]] = False
    return keep


def repeat_rows(
    rows: Fingerprints,
    keep: np.ndarray,
    sources: list[str],
    weights: Mapping[str, float],
    caps: Mapping[str, int],
) -> np.ndarray:
    """How often each row is written.

    Args:
        rows: Fingerprints of all rows.
        keep: (rows,) bool, the rows that are not duplicates.
        sources: Names of the sources.
        weights: How often a source's training rows are written, on average.
        caps: How many training rows of a source are written at most.

    Returns:
        (rows,) int64.
    """
    repeats = keep.astype(np.int64)
    fractions = rows.names / 2.0**64
    for code, source in enumerate(sources):
        training = np.flatnonzero(keep & (rows.splits == 0) & (rows.sources == code))
        weight = weights.get(source, 1.0)
        repeats[training] = int(weight) + (fractions[training] < weight % 1)
        if source in caps:
            by_name = training[np.argsort(rows.names[training])]
            before = np.cumsum(repeats[by_name]) - repeats[by_name]
            repeats[by_name] = np.clip(caps[source] - before, 0, repeats[by_name])
    return repeats
