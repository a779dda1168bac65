"""Merge prepared datasets into one, in one vocabulary, with nulls where a source has no label.

    python datasets_scripts/merge.py data/celeba data/utkface --vocabulary union --output data/all

Attributes that follow from others are derived (Beard = not No_Beard). An image that is in two
splits, the same or nearly (by a perceptual hash), stays in test before validation before train; one
that is twice in a split, byte for byte, stays once. `--weight` and `--cap` act on the training
split alone: they choose rows by a hash of their names, so that the choice is always the same.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.duplicates import find_near_duplicates, perceptual_hash
from label2label.data.preparation.images import BadImageError, decode_image
from label2label.data.preparation.program import (
    dataset_parser,
    positive_integer,
    prepare,
    run_program,
)
from label2label.data.preparation.reading import (
    StoredSample,
    list_row_groups,
    read_image_at,
    read_record,
    read_row_group,
    read_stored_samples,
)
from label2label.data.preparation.workers import map_in_order
from label2label.data.schema import SPLITS, Sample
from label2label.data.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary
from label2label.errors import UserError
from tqdm import tqdm

Number = TypeVar("Number", int, float)


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


def read_samples(inputs: Iterable[Path], repeats: np.ndarray) -> Iterator[StoredSample]:
    """Read the rows that are to be written, without their images.

    Args:
        inputs: Folders of the prepared datasets.
        repeats: (rows,) how often each row is written.

    Yields:
        A sample per row to write; people and images are named `source/name`.

    Raises:
        UserError: If a person is in two splits.
    """
    remaining = iter(repeats.tolist())
    split_of_person: dict[str, str] = {}
    for dataset in inputs:
        for sample in read_stored_samples(dataset):
            person = sample.identity and qualify(sample.source, sample.identity)
            if person and split_of_person.setdefault(person, sample.split) != sample.split:
                raise UserError(f"{dataset}: {person} is in another split of another input")
            key = qualify(sample.source, sample.key)
            for _ in range(next(remaining)):
                yield replace(sample, key=key, identity=person)


def read_image(sample: Sample) -> list[tuple[Sample, bytes]]:
    """Read the image of a row.

    Args:
        sample: A `StoredSample`.

    Returns:
        The sample with its encoded image.
    """
    assert isinstance(sample, StoredSample)
    return [(sample, read_image_at(sample.location))]


def describe(
    records: list[dict[str, Any]], vocabulary: Vocabulary, report: str
) -> DatasetDescription:
    """Say in the card what was merged and how.

    Args:
        records: How the inputs were made.
        vocabulary: The vocabulary of the merge.
        report: What was left out.

    Returns:
        The description.
    """
    parts = [record["description"] for record in records]
    titles = ", ".join(part["title"] for part in parts)

    def by_title(field: str) -> str:
        return "\n\n".join(f"**{part['title']}.** {part[field]}" for part in parts)

    return DatasetDescription(
        title=f"Merge of {titles}",
        summary=f"{titles}, merged in the vocabulary `{vocabulary.name}` of label2label.",
        origin=by_title("origin"),
        terms=by_title("terms"),
        process=(
            f"{by_title('process')}\n\n**Merge.** Attributes that a source does not label are "
            "null, unless they follow from another (`Beard` is not `No_Beard`). People and images "
            f"are named `source/name`. {report}"
        ),
        biases=(
            f"{by_title('biases')}\n\n**Merge.** Sources frame, light and label faces in their own "
            "ways, and some attributes are labelled in one source only: a model can learn to tell "
            "the source and take it for the attribute."
        ),
        program="datasets_scripts/merge.py",
        license_name="see-sources",
        redistributable=all(part["redistributable"] for part in parts),
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part["tags"])),
    )


def source_option(parse: Callable[[str], Number]) -> Callable[[str], tuple[str, Number]]:
    """Parser of a command-line value like `celeba=0.5`.

    Args:
        parse: Parser of the number.

    Returns:
        A function from the text to the source and the number.
    """

    def parse_pair(text: str) -> tuple[str, Number]:
        source, _, number = text.rpartition("=")
        try:
            return source, parse(number)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not like SOURCE=NUMBER") from error

    return parse_pair


def positive_number(text: str) -> float:
    """Parse a number above 0.

    Args:
        text: The value.

    Returns:
        The number.

    Raises:
        ValueError: If it is none.
    """
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def main() -> None:
    """Merge datasets as the command line says."""
    parser = dataset_parser(__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="DIR", help="prepared dataset")
    parser.add_argument(
        "--vocabulary", choices=VOCABULARIES, default="union", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        type=source_option(positive_number),
        metavar="SOURCE=W",
        help="write the source's training rows W times on average",
    )
    parser.add_argument(
        "--cap",
        action="append",
        default=[],
        type=source_option(positive_integer),
        metavar="SOURCE=N",
        help="write at most N training rows of the source",
    )
    arguments = parser.parse_args()
    weights, caps = dict(arguments.weight), dict(arguments.cap)
    inputs = [path.resolve() for path in arguments.inputs]
    records = [read_record(path) for path in inputs]
    vocabulary = get_vocabulary(arguments.vocabulary)

    rows, sources = fingerprint(inputs, arguments.workers)
    unknown = sorted({*weights, *caps} - set(sources))
    if unknown:
        raise UserError(f"no source is called {unknown[0]}: the sources are {', '.join(sources)}")
    refuse_common_files(rows, inputs)
    unique = keep_first_copies(rows)
    apart = drop_near_duplicates(rows, unique)
    repeats = repeat_rows(rows, apart, sources, weights, caps)
    report = (
        f"{(~unique).sum():,} images that were there twice and {(unique & ~apart).sum():,} whose "
        "near-duplicate is in a later split were left out."
    )
    for source in sources:
        if source in weights:
            report += f" Training rows of {source} were written {weights[source]:g} times."
        if source in caps:
            report += f" At most {caps[source]:,} training rows of {source} were written."
    prepare(
        arguments,
        read_samples(inputs, repeats),
        read_image,
        vocabulary,
        describe(records, vocabulary, report),
        total=int(repeats.sum()),
    )
    print(report)


if __name__ == "__main__":
    run_program(main)
