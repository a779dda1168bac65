"""Merge prepared datasets into one, in one vocabulary, with nulls where a source has no label.

    python datasets_scripts/merge.py data/celeba data/utkface --vocabulary celeba-40 \\
        --output data/merged

Attributes that follow from others are derived (Beard = not No_Beard). An image that is in two
splits, the same or nearly (by a perceptual hash), stays in test before validation before train; one
that is twice in a split, byte for byte, stays once. `--weight` and `--cap` act on the training
split alone: they choose rows by a hash of their names, so that the choice is always the same.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from label2label.data.schema import SPLITS, Sample
from label2label.data.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary
from label2label.errors import UserError
from label2label.prediction.pipeline import map_in_threads
from preparation.card import DatasetDescription
from preparation.duplicates import find_near_duplicates, perceptual_hash
from preparation.framing import decode_image
from preparation.program import (
    dataset_parser,
    hash_fraction,
    prepare,
    run_program,
    whole_number,
)
from preparation.sources import BadImageError
from preparation.stored import (
    StoredSample,
    combine_texts,
    read_record,
    read_stored_image,
    read_stored_samples,
)
from preparation.writing import refuse_used_output
from tqdm import tqdm


def qualify(source: str, name: str) -> str:
    """Name that is unique among sources: `source/name`, as it is where it begins so already."""
    return name if name.startswith(f"{source}/") else f"{source}/{name}"


class Fingerprints:
    """What tells the rows of several datasets apart, about 100 bytes a row."""

    def __init__(self, inputs: list[Path], workers: int):
        samples = (
            (number, sample)
            for number, dataset in enumerate(inputs)
            for sample in read_stored_samples(dataset)
        )
        rows = list(
            tqdm(
                map_in_threads(fingerprint, samples, workers, ahead=4 * workers),
                unit="image",
                desc="fingerprinting",
            )
        )
        names, contents, hashes, splits, sources, numbers = zip(*rows, strict=True)
        self.names = names
        self.contents = np.array(contents, np.uint64)
        self.hashes = np.array(hashes)
        self.splits = np.array(splits, np.int8)
        self.sources = np.array(sources)
        self.inputs = np.array(numbers, np.int16)


def fingerprint(numbered: tuple[int, StoredSample]) -> tuple[str, int, np.ndarray, int, str, int]:
    """Fingerprint one row."""
    number, sample = numbered
    data = read_stored_image(sample)
    try:
        appearance = perceptual_hash(decode_image(data))
    except BadImageError as error:
        raise UserError(
            f"{sample.place[0]}: the image {sample.key} is {error}; prepare it anew"
        ) from error
    name = qualify(sample.source, sample.key)
    content = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    return name, content, appearance, SPLITS.index(sample.split), sample.source, number


def refuse_common_files(rows: Fingerprints, inputs: list[Path]) -> None:
    """Refuse inputs that hold the same file of the same source."""
    input_of: dict[str, int] = {}
    for name, number in zip(rows.names, rows.inputs.tolist(), strict=True):
        other = input_of.setdefault(name, number)
        if other != number:
            raise UserError(
                f"{inputs[other]} and {inputs[number]} both hold {name}: give each dataset only "
                "once"
            )


def keep_first_copies(rows: Fingerprints) -> np.ndarray:
    """Of images that are there more than once, byte for byte, keep one."""
    order = np.argsort(-rows.splits, kind="stable")
    keep = np.zeros(len(order), bool)
    keep[order[np.unique(rows.contents[order], return_index=True)[1]]] = True
    return keep


def drop_near_duplicates(rows: Fingerprints, keep: np.ndarray) -> np.ndarray:
    """Drop images of which a near-duplicate is in a later split."""
    keep = keep.copy()
    for split in reversed(range(len(SPLITS) - 1)):
        candidates = np.flatnonzero(keep & (rows.splits == split))
        later = rows.hashes[keep & (rows.splits > split)]
        keep[candidates[find_near_duplicates(rows.hashes[candidates], later)]] = False
    return keep


def repeat_rows(
    rows: Fingerprints, keep: np.ndarray, weights: Mapping[str, float], caps: Mapping[str, int]
) -> np.ndarray:
    """How often each row is written."""
    repeats = keep.astype(np.int64)
    for source in {*weights, *caps}:
        training = np.flatnonzero(keep & (rows.splits == 0) & (rows.sources == source))
        fractions = np.array([hash_fraction(rows.names[row]) for row in training])
        weight = weights.get(source, 1.0)
        repeats[training] = int(weight) + (fractions < weight % 1)
        if source in caps:
            by_name = training[np.argsort(fractions)]
            before = np.cumsum(repeats[by_name]) - repeats[by_name]
            repeats[by_name] = np.clip(caps[source] - before, 0, repeats[by_name])
    return repeats


def read_samples(inputs: Iterable[Path], repeats: np.ndarray) -> Iterator[StoredSample]:
    """Read the rows that are to be written, without their images."""
    remaining = iter(repeats.tolist())
    for dataset in inputs:
        for sample in read_stored_samples(dataset):
            key = qualify(sample.source, sample.key)
            person = sample.identity and qualify(sample.source, sample.identity)
            for _ in range(next(remaining)):
                yield replace(sample, key=key, identity=person)


def read_image(sample: Sample) -> list[tuple[Sample, bytes]]:
    """The sample, a `StoredSample`, with its encoded image."""
    return [(sample, read_stored_image(sample))]


def describe(
    records: list[dict[str, Any]], vocabulary: Vocabulary, report: str
) -> DatasetDescription:
    """Say in the card what was merged and how."""
    parts = [record["description"] for record in records]
    titles = ", ".join(part["title"] for part in parts)
    return DatasetDescription(
        title=f"Merge of {titles}",
        summary=f"{titles}, merged in the vocabulary `{vocabulary.name}` of label2label.",
        origin=combine_texts(records, "origin"),
        terms=combine_texts(records, "terms"),
        process=(
            f"{combine_texts(records, 'process')}\n\n**Merge.** Attributes that a source does not "
            "label are null, unless they follow from another (`Beard` is not `No_Beard`). People "
            f"and images are named `source/name`. {report}"
        ),
        biases=(
            f"{combine_texts(records, 'biases')}\n\n**Merge.** Sources photograph and label faces "
            "in their own ways, and some attributes are labelled in one source only: a model can "
            "learn to tell the source and take it for the attribute."
        ),
        program="datasets_scripts/merge.py",
        license_name="see-sources",
        redistributable=all(part["redistributable"] for part in parts),
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part["tags"])),
    )


def source_option(parse: Callable[[str], float]) -> Callable[[str], tuple[str, Any]]:
    """Parser of a command-line value like `celeba=0.5`."""

    def parse_pair(text: str) -> tuple[str, float]:
        source, _, number = text.rpartition("=")
        try:
            value = parse(number)
            if source and 0 < value < float("inf"):
                return source, value
        except (ValueError, argparse.ArgumentTypeError):
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not like SOURCE=NUMBER")

    return parse_pair


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
        type=source_option(float),
        metavar="SOURCE=W",
        help="write the source's training rows W times on average",
    )
    parser.add_argument(
        "--cap",
        action="append",
        default=[],
        type=source_option(whole_number(1)),
        metavar="SOURCE=N",
        help="write at most N training rows of the source",
    )
    arguments = parser.parse_args()
    refuse_used_output(arguments.output)
    weights, caps = dict(arguments.weight), dict(arguments.cap)
    records = [read_record(path) for path in arguments.inputs]
    vocabulary = get_vocabulary(arguments.vocabulary)

    rows = Fingerprints(arguments.inputs, arguments.workers)
    sources = list(dict.fromkeys(rows.sources.tolist()))
    unknown = sorted({*weights, *caps} - set(sources))
    if unknown:
        raise UserError(f"no source is called {unknown[0]}: the sources are {', '.join(sources)}")
    refuse_common_files(rows, arguments.inputs)
    unique = keep_first_copies(rows)
    apart = drop_near_duplicates(rows, unique)
    repeats = repeat_rows(rows, apart, weights, caps)
    report = (
        f"{(~unique).sum():,} images that were there twice and {(unique & ~apart).sum():,} whose "
        "near-duplicate is in a later split were left out."
    )
    for source, weight in weights.items():
        report += f" Training rows of {source} were written {weight:g} times."
    for source, cap in caps.items():
        report += f" At most {cap:,} training rows of {source} were written."
    prepare(
        arguments,
        read_samples(arguments.inputs, repeats),
        read_image,
        vocabulary,
        describe(records, vocabulary, report),
        total=int(repeats.sum()),
    )
    print(report)


if __name__ == "__main__":
    run_program(main)
