"""K-FACE, the Korean face images of AI Hub: frontal views whose light resembles a reference's.

    python datasets_scripts/kface.py --source KFACE --reference data/celeba --output data/kface

Images lie at `{High|Middle|Low}_Resolution/{ID}/{S}/{L}/{E}/{C}.jpg`. They are filtered in two
steps: by the codes in their path (a frontal camera, a bright light), then, with --reference, by the
brightness and left-right balance of the framed face, which must lie within the central 95 % of the
reference dataset's values.

The meaning of the codes, in `kface.yaml`, comes from public users of the dataset and was not
checked against the dataset itself. `--codes FILE.yaml` overrides any entry:

    cameras: [C6, C7, C8]
    expressions:
      E02: {Smiling: true}

Attributes that the path does not encode are null unless `--labels FILE.csv` gives them: a column
`id` (a person) or `image` (a path below the resolution's folder), then one column per attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from label2label.data.schema import Sample
from label2label.data.vocabulary import get_vocabulary
from label2label.errors import UserError, join_lines
from preparation.card import read_description
from preparation.framing import ReadImage, decode_image
from preparation.program import dataset_parser, prepare, run_program, split_by_hash
from preparation.sources import BadImageError, Download, Images
from preparation.stored import read_stored_samples

CENTRAL_SHARE = 0.95
"""Share of the reference's images that lie inside the range, as many left out on either side."""

MAX_REFERENCE_IMAGES = 2000
LIGHTING = (
    ", then by brightness and left-right balance within the central 95 % of a reference dataset's"
)

CODES = Path(__file__).with_suffix(".yaml")


def read_codes(path: Path | None) -> dict[str, Any]:
    """Read `CODES`, with the entries that another YAML file of this form overrides."""
    codes = yaml.safe_load(CODES.read_text(encoding="utf-8"))
    if path is None:
        return codes
    try:
        changes = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
        for key, changed in changes.items():
            old = codes[key]  # a text in place of a list ends in a TypeError
            codes[key] = old[:0] + changed if isinstance(old, list) else old | changed
        labels = {**codes["accessories"], **codes["expressions"]}.values()
        values = {pair for of_code in labels for pair in of_code.items()}
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not YAML: {join_lines(error)}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not have the form of {CODES}: {error}") from error
    attributes = get_vocabulary("korean-11").attributes
    for name, value in values:
        if name not in attributes or not isinstance(value, bool | None):
            raise UserError(
                f"{path}: {name}: {value} is not true, false or null for one of the attributes "
                + ", ".join(attributes)
            )
    return codes


def measure_lighting(image: np.ndarray) -> np.ndarray:
    """Measure brightness and left-right balance of the central square of an RGB image.

    Return (2,) float: mean luma (0..255), and (right - left) / (right + left) of the halves' means.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    luma = image[top : top + side, left : left + side] @ np.array([0.299, 0.587, 0.114])
    left_half, right_half = luma[:, : side // 2].mean(), luma[:, side - side // 2 :].mean()
    return np.array([luma.mean(), (right_half - left_half) / max(left_half + right_half, 1e-9)])


def measure_reference(dataset: Path) -> np.ndarray:
    """Measure the lighting of the first `MAX_REFERENCE_IMAGES` training images of a dataset.

    Return (2, 2) float: the lowest and the highest values among the central `CENTRAL_SHARE`.
    """
    try:
        rows = (row for row in read_stored_samples(dataset, images=True) if row.split == "train")
        measures = [
            measure_lighting(decode_image(row.image)) for row in islice(rows, MAX_REFERENCE_IMAGES)
        ]
    except BadImageError as error:
        raise UserError(f"{dataset}, the reference: an image is {error}") from error
    if not measures:
        raise UserError(f"{dataset}, the reference, has no training images")
    tail = 50 * (1 - CENTRAL_SHARE)
    return np.percentile(measures, [tail, 100 - tail], axis=0)


def read_samples(images: Images, codes: dict[str, Any]) -> Iterator[Sample]:
    """Read the codes in the images' paths; yield the images with a kept camera and light."""
    for key in images:
        person, accessory, light, expression, file = key.split("/")
        for code, table in ((accessory, "accessories"), (expression, "expressions")):
            if code not in codes[table]:
                raise UserError(f"{key}: {code} is unknown; add it with --codes")
        if light in codes["lights"] and Path(file).stem in codes["cameras"]:
            yield Sample(
                key=key,
                split=split_by_hash(person),
                attributes={**codes["accessories"][accessory], **codes["expressions"][expression]},
                identity=person,
                source="kface",
                race="East Asian",
            )


class ReadFace(ReadImage):
    """`ReadImage` that drops images out of the bounds of `measure_reference`, if given."""

    def __init__(self, images: Images, align: bool, lighting: np.ndarray | None):
        super().__init__(images, align)
        self.lighting = lighting

    def __call__(self, sample: Sample) -> list[tuple[Sample, bytes]]:
        """Read one image like `ReadImage`; return no rows if its light is out of bounds."""
        rows = super().__call__(sample)
        if self.lighting is None:
            return rows
        measured = measure_lighting(decode_image(rows[0][1]))
        lowest, highest = self.lighting
        return rows if ((lowest <= measured) & (measured <= highest)).all() else []


def main() -> None:
    """Prepare K-FACE as the command line says."""
    parser = dataset_parser(__doc__, source="folder that holds High_Resolution and the like")
    parser.add_argument(
        "--resolution",
        choices=("High", "Middle", "Low"),
        default="High",
        help="image resolution (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="prepared dataset whose light is the reference",
    )
    parser.add_argument("--codes", type=Path, metavar="YAML", help="changes to the code table")
    arguments = parser.parse_args()
    codes = read_codes(arguments.codes)
    lighting = measure_reference(arguments.reference) if arguments.reference else None
    download = Download(arguments.source)
    images = download.images(f"{arguments.resolution}_Resolution", depth=5)
    samples = list(read_samples(images, codes))
    if not samples:
        raise UserError(
            f"{images.where}: none of its {len(images):,} images has a camera of "
            f"{', '.join(codes['cameras'])} and a light of {', '.join(codes['lights'])}"
        )
    read = ReadFace(images, arguments.align, lighting)
    description = read_description(
        "kface",
        cameras=", ".join(codes["cameras"]),
        lights=", ".join(codes["lights"]),
        lighting=LIGHTING if arguments.reference else "; their light was not measured",
    )
    vocabulary = get_vocabulary("korean-11")
    counts = prepare(arguments, samples, read, vocabulary, description, total=len(samples))
    print(f"step 1, by code: {len(samples):,} of {len(images):,} images kept")
    if lighting is not None:
        rows = sum(number for key, number in counts.items() if key[2] == "image")
        print(f"step 2, by brightness and balance: {rows:,} of {len(samples):,} images kept")


if __name__ == "__main__":
    run_program(main)
