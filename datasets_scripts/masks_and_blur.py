"""Add faces with drawn masks and with blur to a prepared dataset, so that both can be trained.

    python datasets_scripts/masks_and_blur.py data/celeba --output data/celeba-masks

No dataset of the paper's labels masks, and few images are blurred. A share of the rows of every
split, chosen by a hash of their names, is written a second time with a surgical or a cloth mask
drawn on the five landmarks that the face detector finds (`Wearing_Mask` is true, and what the mask
hides is null), or blurred by motion or lack of focus (`Blurry` is true). Rows that are not masked
get `Wearing_Mask` false, because the sources date from before masks were common.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from label2label.data.blur import BLUR_KINDS, draw_blur
from label2label.data.masks import HIDDEN_BY_MASK, MASK_KINDS, draw_mask
from label2label.data.preparation.aligning import DETECTION_SIDE
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.counts import rows_per_variant
from label2label.data.preparation.crops import choose_face
from label2label.data.preparation.images import decode_image, encode_image
from label2label.data.preparation.program import dataset_parser, prepare, run_program
from label2label.data.preparation.reading import (
    StoredSample,
    read_image_at,
    read_record,
    read_stored_samples,
)
from label2label.data.preparation.splits import hash_fraction
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from label2label.faces.detection import (
    DETECTOR_FILE,
    DETECTOR_VARIABLE,
    FaceDetector,
    find_detector_file,
)

SHARE = 0.15


@dataclass
class DrawMasksAndBlur:
    """Reads a row and writes it again with a mask or with blur, if it is among the chosen.

    Args:
        masks: Share of the rows that get a mask, 0..1.
        blur: Share of the rows that get blurred, 0..1.
    """

    masks: float
    blur: float

    @cached_property
    def _detector(self) -> FaceDetector:
        cv2.setNumThreads(1)  # the workers share the cores already
        return FaceDetector(close_up_side=DETECTION_SIDE)

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one row.

        Args:
            sample: A `StoredSample`.

        Returns:
            The row, and its masked or blurred copy where it is chosen; no masked one where the
            detector finds no landmarks.
        """
        assert isinstance(sample, StoredSample)
        data = read_image_at(sample.location)
        unmasked = {**sample.attributes}
        if unmasked.get("Wearing_Mask") is None:
            unmasked["Wearing_Mask"] = False
        rows: list[tuple[Sample, bytes]] = [(replace(sample, attributes=unmasked), data)]
        choice = hash_fraction(f"masks and blur {sample.key}")
        generator = np.random.default_rng(int(choice * 2**53))
        if choice < self.masks:
            rows += self._masked(sample, unmasked, decode_image(data), generator)
        elif choice < self.masks + self.blur:
            kind = BLUR_KINDS[generator.integers(len(BLUR_KINDS))]
            copy = replace(
                sample,
                key=f"{sample.key}#blur-{kind}",
                attributes={**unmasked, "Blurry": True},
            )
            rows.append((copy, encode_image(draw_blur(decode_image(data), kind, generator))))
        return rows

    def _masked(
        self,
        sample: Sample,
        attributes: dict[str, bool | None],
        image: np.ndarray,
        generator: np.random.Generator,
    ) -> list[tuple[Sample, bytes]]:
        faces = [face for face in self._detector(image) if face.landmarks is not None]
        if not faces or attributes["Wearing_Mask"]:
            return []
        landmarks = choose_face(faces, image).landmarks
        assert landmarks is not None
        kind = MASK_KINDS[generator.integers(len(MASK_KINDS))]
        try:
            masked = draw_mask(image, landmarks, kind, generator)
        except ValueError:
            return []  # a face seen so far from the side that its landmarks fall on a line
        hidden = dict.fromkeys(HIDDEN_BY_MASK)
        copy = replace(
            sample,
            key=f"{sample.key}#mask-{kind}",
            attributes={**attributes, **hidden, "Wearing_Mask": True},
        )
        return [(copy, encode_image(masked))]


def describe(record: dict[str, Any], masks: float, blur: float) -> DatasetDescription:
    """Say in the card what was drawn.

    Args:
        record: How the input was made.
        masks: Share of the rows that got a mask.
        blur: Share of the rows that got blurred.

    Returns:
        The description.
    """
    source = record["description"]
    return DatasetDescription(
        **{
            **source,
            "title": f"{source['title']} with drawn masks and blur",
            "program": "datasets_scripts/masks_and_blur.py",
            "tags": tuple(source["tags"]),
            "process": (
                f"{source['process']}\n\n**Masks and blur.** {masks:.0%} of the rows of each split "
                "were written a second time with a synthetic mask, drawn on detected landmarks "
                "(`Wearing_Mask` true; attributes that it hides null; path ending in `#mask-`), "
                f"and {blur:.0%} with synthetic motion or focus blur (`Blurry` true; path ending "
                "in `#blur-`). All other rows have `Wearing_Mask` false by assumption, not by "
                "annotation."
            ),
            "biases": (
                f"{source['biases']}\n\n**Masks and blur.** Drawn masks have few shapes and no "
                "folds, and blur is uniform: figures for `Wearing_Mask` and `Blurry` on these "
                "images do not say how a model does on real masks and real blur."
            ),
        }
    )


def share(text: str) -> float:
    """Parse a share.

    Args:
        text: The value.

    Returns:
        A number in 0..1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def main() -> None:
    """Add masks and blur as the command line says."""
    parser = dataset_parser(__doc__)
    parser.add_argument("input", type=Path, metavar="DIR", help="prepared dataset")
    for name, what in (("masks", "get a mask"), ("blur", "are blurred")):
        parser.add_argument(
            f"--{name}",
            type=share,
            default=SHARE,
            metavar="SHARE",
            help=f"share of the rows, 0 to 1, that {what} in a copy (default: %(default)s)",
        )
    arguments = parser.parse_args()
    if arguments.masks + arguments.blur > 1:
        raise UserError("--masks and --blur must not add up to more than 1")
    if arguments.masks and find_detector_file() is None:
        raise UserError(
            f"drawing masks needs {DETECTOR_FILE}, which cannot be got from the Hub: set "
            f"{DETECTOR_VARIABLE} to its path, or give --masks 0"
        )
    record = read_record(arguments.input)
    attributes = get_vocabulary(record["vocabulary"]).attributes
    vocabulary = get_vocabulary("union" if "No_Beard" in attributes else "korean-11")
    counts = prepare(
        arguments,
        read_stored_samples(arguments.input.resolve()),
        DrawMasksAndBlur(arguments.masks, arguments.blur),
        vocabulary,
        describe(record, arguments.masks, arguments.blur),
        settings={"masks": arguments.masks, "blur": arguments.blur},
    )
    for variant, rows in sorted(rows_per_variant(counts).items()):
        print(f"{variant or 'as they were'}: {rows:,} rows")


if __name__ == "__main__":
    run_program(main)
