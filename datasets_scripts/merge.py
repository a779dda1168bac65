"""Merge prepared datasets into one, in one vocabulary, with nulls where a source has no label.

    python datasets_scripts/merge.py data/celeba data/utkface --vocabulary celeba-40 \\
        --output data/merged

Attributes that follow from others are derived (Beard = not No_Beard). An image that is in two
splits, as an exact copy or a near-duplicate (by a perceptual hash), is kept in only one of them:
test first, then validation, then train. Exact copies within a split are kept once. How often each
source is drawn in training is a matter of the recipe (`share` and `limit` of its `data`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from label2label.data.schema import SPLITS
from label2label.data.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary
from label2label.errors import UserError
from label2label.prediction.predictor import map_in_threads
from preparation.card import DatasetDescription
from preparation.duplicates import find_near_duplicates, perceptual_hash
from preparation.framing import decode_image
from preparation.program import dataset_parser, prepare, run_program
from preparation.sources import BadImageError
from preparation.stored import StoredSample, read_record, read_stored_samples
from preparation.writing import refuse_used_output
from tqdm import tqdm


def qualify(source: str, name: str) -> str:
    """Return `source/name`, unique among sources; a name that already has the prefix is kept."""
    return name if name.startswith(f"{source}/") else f"{source}/{name}"


class Fingerprint(NamedTuple):
    """Identity of a row, for finding duplicates."""

    name: str  # `source/name` of the image
    content: int  # digest of the encoded image
    appearance: np.ndarray  # (HASH_BYTES,) uint8, perceptual hash of the image
    split: int  # index into `SPLITS`
    source: str
    input: int  # index of the prepared dataset


def fingerprint(row: tuple[int, StoredSample]) -> Fingerprint:
    """Fingerprint a row (index of the input, sample); raise an error if its image is damaged."""
    number, sample = row
    name = qualify(sample.source, sample.key)
    try:
        appearance = perceptual_hash(decode_image(sample.image))
    except BadImageError as error:
        raise UserError(f"the image {name} is {error}; prepare the dataset again") from error
    content = int.from_bytes(hashlib.sha256(sample.image).digest()[:8], "big")
    split = SPLITS.index(sample.split)
    return Fingerprint(name, content, appearance, split, sample.source, number)


def refuse_common_files(rows: Sequence[Fingerprint], inputs: Sequence[Path]) -> None:
    """Raise an error if two inputs hold the same file of the same source."""
    input_of: dict[str, int] = {}
    for row in rows:
        other = input_of.setdefault(row.name, row.input)
        if other != row.input:
            raise UserError(
                f"{inputs[other]} and {inputs[row.input]} both hold {row.name}: give each dataset "
                "only once"
            )


def keep_unique(rows: Sequence[Fingerprint]) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows that are neither copies nor near-duplicates of others.

    Returns:
        Two masks, (rows,) bool: rows left when one of each set of exact copies is kept (the first
        in the latest split), and of these the rows without a near-duplicate in a later split.
    """
    splits = np.array([row.split for row in rows])
    contents = np.array([row.content for row in rows], np.uint64)
    hashes = np.array([row.appearance for row in rows])
    order = np.argsort(-splits, kind="stable")
    unique = np.zeros(len(rows), bool)
    unique[order[np.unique(contents[order], return_index=True)[1]]] = True
    apart = unique.copy()
    for split in reversed(range(len(SPLITS) - 1)):
        candidates = np.flatnonzero(apart & (splits == split))
        later = hashes[apart & (splits > split)]
        apart[candidates[find_near_duplicates(hashes[candidates], later)]] = False
    return unique, apart


def read_samples(
    inputs: Iterable[Path], keep: np.ndarray, absent: Sequence[Sequence[str]]
) -> Iterator[StoredSample]:
    """Yield the rows of the inputs that are kept.

    Null labels of the (source, attribute) pairs in `absent` become false.
    """
    rows = (sample for dataset in inputs for sample in read_stored_samples(dataset, images=True))
    for sample in compress(rows, keep):
        known = {name: value for name, value in sample.attributes.items() if value is not None}
        missing = {name: False for source, name in absent if source == sample.source}
        yield replace(
            sample,
            key=qualify(sample.source, sample.key),
            identity=sample.identity and qualify(sample.source, sample.identity),
            attributes=missing | known,
        )


def describe(
    records: list[dict[str, Any]], vocabulary: Vocabulary, report: str
) -> DatasetDescription:
    """Describe in the card what was merged and what was left out."""
    parts = [record["description"] for record in records]
    titles = ", ".join(part["title"] for part in parts)
    texts = {
        field: "\n\n".join(f"**{part['title']}.** {part[field]}" for part in parts)
        for field in ("origin", "terms", "process", "biases")
    }
    texts["process"] += (
        "\n\n**Merge.** Attributes that a source does not label are null, unless they follow from "
        f"another (`Beard` is not `No_Beard`). People and images are named `source/name`. {report}"
    )
    texts["biases"] += (
        "\n\n**Merge.** Sources photograph and label faces in their own ways, and some attributes "
        "are labelled in one source only: a model can learn to tell the source and take it for the "
        "attribute."
    )
    return DatasetDescription(
        title=f"Merge of {titles}",
        summary=f"{titles}, merged in the vocabulary `{vocabulary.name}` of label2label.",
        **texts,
        program="datasets_scripts/merge.py",
        license_name="see-sources",
        redistributable=all(part["redistributable"] for part in parts),
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part["tags"])),
    )


def main() -> None:
    """Merge datasets as the command line says."""
    parser = dataset_parser(__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="DIR", help="prepared dataset")
    parser.add_argument(
        "--vocabulary", choices=VOCABULARIES, default="union", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--absent",
        action="append",
        default=[],
        nargs=2,
        metavar=("SOURCE", "ATTRIBUTE"),
        help="set the source's unknown labels of the attribute to false, where no image shows it",
    )
    arguments = parser.parse_args()
    refuse_used_output(arguments.output)
    records = [read_record(path) for path in arguments.inputs]
    vocabulary = get_vocabulary(arguments.vocabulary)

    stored = (
        (number, row)
        for number, dataset in enumerate(arguments.inputs)
        for row in read_stored_samples(dataset, images=True)
    )
    results = map_in_threads(fingerprint, stored, arguments.workers, ahead=4 * arguments.workers)
    rows = list(tqdm(results, unit="image", desc="fingerprinting", disable=None))
    sources = list(dict.fromkeys(row.source for row in rows))
    for source, name in arguments.absent:
        if source not in sources:
            raise UserError(f"no source is called {source}: the sources are {', '.join(sources)}")
        if name not in vocabulary.attributes:
            raise UserError(f"the vocabulary {vocabulary.name} has no attribute {name}")
    refuse_common_files(rows, arguments.inputs)
    unique, apart = keep_unique(rows)
    report = (
        f"{(~unique).sum():,} exact copies and {(unique & ~apart).sum():,} whose "
        "near-duplicate is in a later split were left out."
    )
    for source, name in arguments.absent:
        report += f" Unknown `{name}` of {source} became false."
    prepare(
        arguments,
        read_samples(arguments.inputs, apart, arguments.absent),
        lambda sample: [(sample, sample.image)],
        vocabulary,
        describe(records, vocabulary, report),
        total=int(apart.sum()),
    )
    print(report)


if __name__ == "__main__":
    run_program(main)
