"""Add faces with drawn masks and with blur to a prepared dataset, so that both can be trained.

    python datasets_scripts/masks_and_blur.py data/celeba --output data/celeba-masks

Few datasets label masks, and few images are blurred. A share of the rows of every split, chosen by
a hash of their names, is written a second time: with a surgical or cloth mask drawn on the five
landmarks that the face detector finds (`Wearing_Mask` is true, attributes that the mask hides are
null), or with motion or defocus blur (`Blurry` is true). Original rows without a label for
`Wearing_Mask` get false, because the sources date from before masks were common.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from label2label.faces.alignment import choose_face
from label2label.faces.detection import FaceDetector
from preparation.card import DatasetDescription, sum_counts
from preparation.drawing import BLUR_KINDS, HIDDEN_BY_MASK, MASK_KINDS, draw_blur, draw_mask
from preparation.framing import decode_image, encode_image
from preparation.program import dataset_parser, hash_fraction, prepare, run_program
from preparation.stored import read_record, read_stored_image, read_stored_samples

SHARE = 0.15


class DrawMasksAndBlur:
    """Reader of rows that adds a copy with a drawn mask or blur to a share of them.

    Args:
        masks: Share of rows (0..1) to copy with a mask.
        blur: Share of rows (0..1) to copy with blur.
    """

    def __init__(self, masks: float, blur: float):
        self.masks = masks
        self.blur = blur
        cv2.setNumThreads(1)  # the drawing threads already use all cores
        self.detector = FaceDetector() if masks else None
        if self.detector and self.detector.name != "yunet":
            raise UserError("drawing masks needs YuNet, see the warning; or give --masks 0")

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one row; return it and its copy, if it gets one."""
        data = read_stored_image(sample)
        attributes = {**sample.attributes}
        if attributes.get("Wearing_Mask") is None:
            attributes["Wearing_Mask"] = False
        sample = replace(sample, attributes=attributes)
        choice = hash_fraction(f"masks and blur {sample.key}")
        generator = np.random.default_rng(int(choice * 2**53))
        if choice < self.masks:
            return [(sample, data), *self._masked(sample, decode_image(data), generator)]
        if choice < self.masks + self.blur:
            kind = BLUR_KINDS[generator.integers(len(BLUR_KINDS))]
            blurred = draw_blur(decode_image(data), kind, generator)
            return [(sample, data), _copy(sample, f"blur-{kind}", {"Blurry": True}, blurred)]
        return [(sample, data)]

    def _masked(
        self, sample: Sample, image: np.ndarray, generator: np.random.Generator
    ) -> list[tuple[Sample, bytes]]:
        assert self.detector is not None
        faces = self.detector(image)
        if not faces or sample.attributes["Wearing_Mask"]:
            return []
        kind = MASK_KINDS[generator.integers(len(MASK_KINDS))]
        landmarks = choose_face(faces, image).landmarks
        assert landmarks is not None
        try:
            masked = draw_mask(image, landmarks, kind, generator)
        except ValueError:
            return []  # a profile view, whose landmarks lie on a line
        labels = {**dict.fromkeys(HIDDEN_BY_MASK), "Wearing_Mask": True}
        return [_copy(sample, f"mask-{kind}", labels, masked)]


def _copy(
    sample: Sample, variant: str, labels: dict[str, bool | None], image: np.ndarray
) -> tuple[Sample, bytes]:
    attributes = {**sample.attributes, **labels}
    copy = replace(sample, key=f"{sample.key}#{variant}", attributes=attributes)
    return copy, encode_image(image)


def describe(record: dict[str, Any], masks: float, blur: float) -> DatasetDescription:
    """Describe in the card what was drawn."""
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
                "in `#blur-`). Other rows without a label have `Wearing_Mask` false by assumption, "
                "not by annotation."
            ),
            "biases": (
                f"{source['biases']}\n\n**Masks and blur.** Drawn masks have few shapes and no "
                "folds, and blur is uniform: figures for `Wearing_Mask` and `Blurry` on these "
                "images do not say how a model does on real masks and real blur."
            ),
        }
    )


def main() -> None:
    """Add masks and blur as the command line says."""
    parser = dataset_parser(__doc__)
    parser.add_argument("input", type=Path, metavar="DIR", help="prepared dataset")
    for name, what in (("masks", "get a mask"), ("blur", "are blurred")):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=SHARE,
            metavar="SHARE",
            help=f"share of the rows, 0 to 1, that {what} in a copy (default: %(default)s)",
        )
    arguments = parser.parse_args()
    if not (arguments.masks >= 0 <= arguments.blur and arguments.masks + arguments.blur <= 1):
        raise UserError("--masks and --blur must be shares, 0 to 1, of at most 1 together")
    record = read_record(arguments.input)
    counts = prepare(
        arguments,
        read_stored_samples(arguments.input),
        DrawMasksAndBlur(arguments.masks, arguments.blur),
        get_vocabulary("korean-11" if record["vocabulary"] == "korean-11" else "union"),
        describe(record, arguments.masks, arguments.blur),
    )
    for variant, rows in sorted(sum_counts(counts, "image", by=(2, 3))["image"].items()):
        print(f"{variant or 'as they were'}: {rows:,} rows")


if __name__ == "__main__":
    run_program(main)
