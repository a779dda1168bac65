"""K-FACE, the Korean face images of AI Hub: frontal views whose light resembles a reference's.

    python datasets_scripts/kface.py --source KFACE --reference data/celeba --output data/kface

Images lie at `{High|Middle|Low}_Resolution/{ID}/{S}/{L}/{E}/{C}.jpg`. They are kept in two steps:
by the codes in their path (a frontal camera, a bright light), then, with --reference, by the
measured brightness and left-right balance of the framed face, which must lie where 95 % of the
reference dataset's do.

The meaning of the codes, below, comes from public users of the set and was not checked against the
set itself. `--codes FILE.yaml` overrides any entry:

    cameras: [C6, C7, C8]
    expressions:
      E02: {Smiling: true}

Attributes that the path does not tell are null unless `--labels FILE.csv` tells them: a column `id`
(a person) or `image` (a path below the resolution's folder), then columns named like attributes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError
from preparation.card import DatasetDescription
from preparation.framing import ReadImage, decode_image
from preparation.program import dataset_parser, prepare, run_program, split_by_hash
from preparation.sources import BadImageError, Download, Images
from preparation.stored import read_stored_image, read_stored_samples

CENTRAL_SHARE = 0.95
"""Share of the reference's images that lie inside the range, as many left out on either side."""

MAX_REFERENCE_IMAGES = 2000

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
        "Images were kept by camera ({cameras}) and light ({lights}) codes{lighting}. {framing} "
        "Eyeglasses, hat and smile follow from the path's codes, whose meaning comes from public "
        "users of the set and was not checked against it; other attributes are null. Splits are "
        "70 % train, 10 % validation and 20 % test of the people, by a hash of their number."
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


Labels = Mapping[str, bool | None]


@dataclass(frozen=True)
class Codes:
    """What the codes of a path mean, and which are kept."""

    cameras: tuple[str, ...] = ("C7",)
    lights: tuple[str, ...] = ("L1", "L2", "L3")
    accessories: Mapping[str, Labels] = field(
        default_factory=lambda: {
            "S001": {"Eyeglasses": False, "Wearing_Hat": False},
            "S002": {"Eyeglasses": True, "Wearing_Hat": False},
            "S003": {"Eyeglasses": True, "Wearing_Hat": False},
            "S004": {"Eyeglasses": True, "Wearing_Hat": False},
            "S005": {"Eyeglasses": False, "Wearing_Hat": True},
            "S006": {"Eyeglasses": True, "Wearing_Hat": True},
        }
    )
    expressions: Mapping[str, Labels] = field(
        default_factory=lambda: {
            "E01": {"Smiling": False},
            "E02": {"Smiling": True},
            "E03": {"Smiling": False},
        }
    )


def read_codes(path: Path | None) -> Codes:
    """Read the user's changes to the code table."""
    if path is None:
        return Codes()
    table: dict[str, Any] = asdict(Codes())
    try:
        changes = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(changes, dict) or not set(changes) <= set(Codes.__dataclass_fields__):
        raise UserError(f"{path}: the keys must be among {', '.join(Codes.__dataclass_fields__)}")
    for key in ("cameras", "lights"):
        if key in changes:
            if not isinstance(changes[key], list):
                raise UserError(f"{path}: {key} must be a list of codes")
            table[key] = tuple(map(str, changes[key]))
    for key in ("accessories", "expressions"):
        changed = changes.get(key) or {}
        if not isinstance(changed, dict):
            raise UserError(f"{path}: {key} must be a mapping of codes to labels")
        for code, labels in changed.items():
            check_labels(labels, f"{path}: {key}, {code}")
            table[key][code] = labels
    return Codes(**table)


def check_labels(labels: Any, where: str) -> None:
    """Check labels that a user wrote."""
    attributes = get_vocabulary("korean-11").attributes
    if not isinstance(labels, dict) or not set(labels) <= set(attributes):
        raise UserError(f"{where}: expected attributes among {', '.join(attributes)}")
    if not all(value is None or isinstance(value, bool) for value in labels.values()):
        raise UserError(f"{where}: the values must be true, false or null")


def measure_lighting(image: np.ndarray) -> tuple[float, float]:
    """Brightness and left-right balance of a face crop."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    luma = image[top : top + side, left : left + side] @ np.array([0.299, 0.587, 0.114])
    left_half, right_half = luma[:, : side // 2].mean(), luma[:, side - side // 2 :].mean()
    total = left_half + right_half
    return float(luma.mean()), float((right_half - left_half) / total) if total else 0.0


@dataclass(frozen=True)
class LightingRange:
    """Lighting that a reference dataset has."""

    brightness: tuple[float, float]
    balance: tuple[float, float]

    def __contains__(self, image: np.ndarray) -> bool:
        """Whether a face crop, (height, width, 3) uint8, is lit like the reference."""
        brightness, balance = measure_lighting(image)
        return (
            self.brightness[0] <= brightness <= self.brightness[1]
            and self.balance[0] <= balance <= self.balance[1]
        )


def measure_reference(dataset: Path) -> LightingRange:
    """Range of lighting of a prepared dataset."""
    try:
        rows = (row for row in read_stored_samples(dataset) if row.split == "train")
        measures = [
            measure_lighting(decode_image(read_stored_image(row)))
            for row in islice(rows, MAX_REFERENCE_IMAGES)
        ]
    except BadImageError as error:
        raise UserError(f"{dataset}, the reference, holds an image that {error}") from error
    if not measures:
        raise UserError(f"{dataset}, the reference, has no training images")
    tail = 50 * (1 - CENTRAL_SHARE)
    (darkest, left), (brightest, right) = np.percentile(measures, [tail, 100 - tail], axis=0)
    return LightingRange(
        brightness=(float(darkest), float(brightest)), balance=(float(left), float(right))
    )


@dataclass
class ImageTree:
    """Reads the codes in the images' paths."""

    images: Images
    codes: Codes
    kept: int = 0

    def read(self) -> Iterator[Sample]:
        """Find the images whose codes are kept."""
        self.kept = 0
        for key in self.images:
            person, accessory, light, expression, file = key.split("/")
            for code, table in ((accessory, "accessories"), (expression, "expressions")):
                if code not in getattr(self.codes, table):
                    raise UserError(f"{key}: {code} is unknown; add it with --codes")
            if light in self.codes.lights and Path(file).stem in self.codes.cameras:
                self.kept += 1
                yield Sample(
                    key=key,
                    split=split_by_hash(person),
                    attributes={
                        **self.codes.accessories[accessory],
                        **self.codes.expressions[expression],
                    },
                    identity=person,
                    source="kface",
                    race="East Asian",
                )
        if not self.kept:
            raise UserError(
                f"{self.images.where}: none of its {len(self.images):,} images has a camera of "
                f"{', '.join(self.codes.cameras)} and a light of {', '.join(self.codes.lights)}"
            )


class ReadFace(ReadImage):
    """Reads an image and frames its face; drops it where its light is not the reference's."""

    def __init__(self, images: Images, align: bool, lighting: LightingRange | None):
        super().__init__(images, align)
        self.lighting = lighting

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one image, as `ReadImage`; nothing where the light differs."""
        rows = super().__call__(sample)
        if self.lighting is None:
            return rows
        return [row for row in rows if decode_image(row[1]) in self.lighting]


def describe(arguments: argparse.Namespace, codes: Codes) -> DatasetDescription:
    """Say in the card how the images were chosen."""
    lighting = "; their light was not measured"
    if arguments.reference:
        lighting = (
            ", then by brightness and left-right balance within the central 95 % of a reference "
            "dataset's"
        )
    process = DESCRIPTION.process
    for name, text in (
        ("cameras", ", ".join(codes.cameras)),
        ("lights", ", ".join(codes.lights)),
        ("lighting", lighting),
    ):
        process = process.replace("{" + name + "}", text)
    return replace(DESCRIPTION, process=process)


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
    arguments = parser.parse_args()
    codes = read_codes(arguments.codes)
    lighting = measure_reference(arguments.reference) if arguments.reference else None
    download = Download(arguments.source)
    images = download.images(f"{arguments.resolution}_Resolution", depth=5)
    tree = ImageTree(images, codes)
    counts = prepare(
        arguments,
        tree.read(),
        ReadFace(images, arguments.align, lighting),
        get_vocabulary("korean-11"),
        describe(arguments, codes),
    )
    print(f"step 1, by code: {tree.kept:,} of {len(images):,} images kept")
    if lighting:
        rows = sum(number for key, number in counts.items() if key[2] == "image")
        print(f"step 2, by brightness and balance: {rows:,} of {tree.kept:,} images kept")


if __name__ == "__main__":
    run_program(main)
