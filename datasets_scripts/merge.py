"""Merge prepared datasets into one, in one vocabulary, with nulls where a source has no label.

    python datasets_scripts/merge.py data/celeba data/utkface --vocabulary union --output data/all

Attributes that follow from others are derived (Beard = not No_Beard). An image that is in two
splits, the same or nearly (by a perceptual hash), stays in test before validation before train; one
that is twice in a split, byte for byte, stays once. `--weight` and `--cap` act on the training
split alone: they choose rows by a hash of their names, so that the choice is always the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.fingerprints import (
    drop_near_duplicates,
    fingerprint,
    keep_first_copies,
    qualify,
    refuse_common_files,
    repeat_rows,
)
from label2label.data.preparation.program import (
    dataset_parser,
    positive_integer,
    prepare,
    run_program,
)
from label2label.data.preparation.reading import (
    StoredSample,
    read_image_at,
    read_record,
    read_stored_samples,
)
from label2label.data.schema import Sample
from label2label.data.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary
from label2label.errors import UserError

Number = TypeVar("Number", int, float)


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
