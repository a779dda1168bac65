"""K-FACE, the Korean face images of AI Hub: frontal views whose light resembles a reference's.

    python datasets_scripts/kface.py --source KFACE --reference data/celeba --output data/kface

Images lie at `{High|Middle|Low}_Resolution/{ID}/{S}/{L}/{E}/{C}.jpg`. They are kept in two steps:
by the codes in their path (a frontal camera, a bright light), then, with --reference, by the
measured brightness and left-right balance of the face crop, which must lie where 95 % of the
reference dataset's do.

The meaning of the codes, below, comes from public users of the set and was not checked against the
set itself. `--codes FILE.yaml` overrides any entry:

    cameras: [C6, C7, C8]
    expressions:
      E02: {Smiling: true}

Attributes that the path does not tell are null unless `--labels FILE.csv` tells them: a column `id`
(a person) or `image` (a path below the resolution's folder), then columns named like attributes,
with 1, 0 or nothing for unknown; `gender` (Male, Female) and `age` are read too.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.counts import rows_per_split
from label2label.data.preparation.crops import MAX_CROP_PIXELS, choose_face, crop_face
from label2label.data.preparation.images import BadImageError, decode_image, encode_image
from label2label.data.preparation.kface_codes import Codes, read_codes
from label2label.data.preparation.lighting import LightingRange, measure_reference
from label2label.data.preparation.program import dataset_parser, prepare, run_program
from label2label.data.preparation.splits import split_by_hash
from label2label.data.preparation.user_labels import read_labels
from label2label.data.preparation.writing import count_skipped
from label2label.data.schema import Sample
from label2label.data.vocabulary import derive_row, get_vocabulary
from label2label.errors import UserError
from label2label.faces.detection import FaceDetector

ANNOTATED = ("S001", "L1")
"""Accessory and light of the folders that hold a text file of boxes per image."""
FACE_LINE = 8


DESCRIPTION = DatasetDescription(
    title="K-FACE",
    summary="Frontal Korean faces under even light, in the dataset schema of label2label.",
    origin=(
        "K-FACE (Choi et al., K-FACE: A Large-Scale KIST Face Database in Consideration with "
        "Unconstrained Environments, arXiv:2103.02211), from AI Hub, <https://aihub.or.kr>."
    ),
    terms=(
        "AI Hub's terms of use: the data are for those who applied for them and may not be given "
        "to others or taken abroad without permission."
    ),
    process=(
        "Images were kept by camera ({cameras}) and light ({lights}) codes{lighting}. Faces were "
        "cropped to a square that frames them as CelebA does, by the set's own boxes or else by a "
        "face detector, at no more than {pixels} pixels, JPEG quality 95. Eyeglasses, hat and "
        "smile follow from the path's codes, whose meaning comes from public users of the set and "
        "was not checked against it; other attributes are null{labels}. Splits are 70 % train, "
        "10 % validation and 20 % test of the people, by a hash of their number."
    ),
    biases=(
        "Adults from Korea in one studio: few hair colours, styles and backgrounds, the same "
        "glasses and hats on everyone. A model can take the props or the studio for the attribute."
    ),
    program="datasets_scripts/kface.py",
    license_name="aihub",
    license_link="https://aihub.or.kr",
    tags=("k-face",),
)


@dataclass
class ImageTree:
    """Walks the set's folders.

    Args:
        root: Folder of one resolution, which holds the people's folders.
        codes: What the codes mean, and which are kept.
        labels: The user's labels, by person or image.
        found: Number of images; counted while walking.
        kept: Number of those whose codes are kept; counted while walking.
    """

    root: Path
    codes: Codes
    labels: Mapping[str, Mapping[str, Any]]
    found: int = 0
    kept: int = 0

    def walk(self) -> Iterator[Sample]:
        """Find the images whose codes are kept.

        Yields:
            A sample per image, sorted by path.

        Raises:
            UserError: If a folder's code is not in the table.
        """
        self.found = self.kept = 0
        for person in list_folders(self.root):
            for accessory in list_folders(self.root / person):
                for light in list_folders(self.root / person / accessory):
                    for expression in list_folders(self.root / person / accessory / light):
                        yield from self._walk_images(person, accessory, light, expression)
        if not self.kept:
            raise UserError(
                f"{self.root}: none of its {self.found:,} images has a camera of "
                f"{', '.join(self.codes.cameras)} and a light of {', '.join(self.codes.lights)}"
            )

    def _walk_images(
        self, person: str, accessory: str, light: str, expression: str
    ) -> Iterator[Sample]:
        folder = f"{person}/{accessory}/{light}/{expression}"
        for code, table in ((accessory, "accessories"), (expression, "expressions")):
            if code not in getattr(self.codes, table):
                raise UserError(f"{self.root / folder}: {code} is unknown; add it with --codes")
        for file in sorted(os.listdir(self.root / folder)):
            if not file.lower().endswith(".jpg"):
                continue
            self.found += 1
            if light in self.codes.lights and Path(file).stem in self.codes.cameras:
                self.kept += 1
                yield self._describe(f"{folder}/{file}", person, accessory, expression)

    def _describe(self, key: str, person: str, accessory: str, expression: str) -> Sample:
        told = {**self.labels.get(person, {}), **self.labels.get(key, {})}
        attributes = {
            **self.codes.accessories[accessory],
            **self.codes.expressions[expression],
            **told,
        }
        return Sample(
            key=key,
            split=split_by_hash(person),
            attributes=derive_row(attributes, get_vocabulary("korean-11")),
            identity=person,
            source="kface",
            race="East Asian",
            gender=told.get("gender"),
            age=told.get("age"),
        )


def list_folders(path: Path) -> list[str]:
    """Names of the folders in a folder.

    Args:
        path: The folder.

    Returns:
        Sorted names.
    """
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())


@dataclass
class ReadFace:
    """Reads an image, crops its face, and drops it where its light is not the reference's.

    Args:
        root: Folder of one resolution.
        lighting: Range of the reference, or None to keep all.
    """

    root: Path
    lighting: LightingRange | None

    @cached_property
    def _detector(self) -> FaceDetector:
        cv2.setNumThreads(1)  # the workers share the cores already
        return FaceDetector()

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one image.

        Args:
            sample: Its key names the image.

        Returns:
            The sample with its encoded crop, or nothing where the light differs.

        Raises:
            BadImageError: If the image cannot be decoded or shows no face.
        """
        path = self.root / sample.key
        photo = decode_image(path.read_bytes())
        crop = crop_face(photo, self._find_face(path, photo))
        if self.lighting is not None and crop not in self.lighting:
            return []
        return [(sample, encode_image(crop))]

    def _find_face(self, path: Path, photo: np.ndarray) -> tuple[float, float, float, float]:
        _, accessory, light, _, _ = path.parts[-5:]
        annotation = path.with_suffix(".txt")
        if (accessory, light) == ANNOTATED and annotation.is_file():
            return read_face_box(annotation)
        faces = self._detector(photo)
        if not faces:
            raise BadImageError("no face was found")
        return choose_face(faces, photo).box


def read_face_box(path: Path) -> tuple[float, float, float, float]:
    """Read the face's box from an image's text file.

    Args:
        path: A file whose line 8 holds left, top, width and height, separated by tabs.

    Returns:
        (x0, y0, x1, y1) in pixels.

    Raises:
        BadImageError: If it does not.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    numbers = (
        re.findall(r"-?\d+(?:\.\d+)?", lines[FACE_LINE - 1]) if len(lines) >= FACE_LINE else []
    )
    if len(numbers) != 4 or float(numbers[2]) <= 0 or float(numbers[3]) <= 0:
        raise BadImageError(f"{path.name}, line {FACE_LINE}: expected left, top, width and height")
    left, top, width, height = map(float, numbers)
    return left, top, left + width, top + height


def check_labels_found(labels: Mapping[str, Any], tree: ImageTree, path: Path | None) -> None:
    """Refuse labels of which none belongs to an image that is kept, and tell how many do not.

    Args:
        labels: The user's labels, by person or image.
        tree: The images.
        path: The user's file, for messages.

    Raises:
        UserError: If no label belongs to an image.
    """
    if not labels:
        return
    found = {name for sample in tree.walk() for name in (sample.key, sample.identity)}
    unused = sorted(set(labels) - found)
    if len(unused) == len(labels):
        raise UserError(f"{path}: none of its ids or images is kept, the first is {unused[0]!r}")
    if unused:
        print(
            f"{path}: {len(unused):,} of {len(labels):,} ids or images are not among the images "
            f"kept: {', '.join(unused[:20])}",
            file=sys.stderr,
        )


def describe(arguments: argparse.Namespace, codes: Codes) -> DatasetDescription:
    """Say in the card how the images were chosen.

    Args:
        arguments: The command line.
        codes: What the codes mean, and which were kept.

    Returns:
        The description.
    """
    return replace(
        DESCRIPTION,
        process=DESCRIPTION.process.format(
            cameras=", ".join(codes.cameras),
            lights=", ".join(codes.lights),
            lighting=(
                ", then by brightness and left-right balance within the central 95 % of a "
                "reference dataset's"
                if arguments.reference
                else "; their light was not measured"
            ),
            labels=" but for those of a list of the user's" if arguments.labels else "",
            pixels=MAX_CROP_PIXELS,
        ),
    )


def main() -> None:
    """Prepare K-FACE as the command line says."""
    parser = dataset_parser(__doc__, source="folder that holds High_Resolution and the like")
    parser.add_argument(
        "--resolution",
        choices=("High", "Middle", "Low"),
        default="High",
        help="which of the set's resolutions (default: %(default)s)",
    )
    parser.add_argument(
        "--reference", type=Path, metavar="DIR", help="prepared dataset whose light is the measure"
    )
    parser.add_argument("--codes", type=Path, metavar="YAML", help="changes to the code table")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="labels by person or image")
    arguments = parser.parse_args()
    root = arguments.source / f"{arguments.resolution}_Resolution"
    if not root.is_dir():
        raise UserError(f"{arguments.source} does not hold {root.name}/: is --source right?")
    codes = read_codes(arguments.codes)
    lighting = measure_reference(arguments.reference) if arguments.reference else None
    labels = read_labels(arguments.labels, get_vocabulary("korean-11"))
    tree = ImageTree(root, codes, labels)
    check_labels_found(labels, tree, arguments.labels)
    counts = prepare(
        arguments,
        tree.walk(),
        ReadFace(root, lighting),
        get_vocabulary("korean-11"),
        describe(arguments, codes),
        settings={"lighting": [*lighting.brightness, *lighting.balance] if lighting else None},
    )
    print(f"step 1, by code: {tree.kept:,} of {tree.found:,} images kept")
    if lighting:
        rows = sum(rows_per_split(counts).values())
        usable = tree.kept - count_skipped(arguments.output)
        print(f"step 2, by brightness and balance: {rows:,} of {usable:,} usable images kept")


if __name__ == "__main__":
    run_program(main)
