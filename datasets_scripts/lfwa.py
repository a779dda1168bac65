"""LFWA: the images of LFW with CelebA's 40 attributes.

    python datasets_scripts/lfwa.py --source LFWA --output data/lfwa

The folder holds the images (`lfw`, folder or archive) and the annotation: `lfw_att_40.mat`, or a
text file of the same columns (`lfw_att_40.txt` or `.csv`: a line with the attribute names, then a
line per image with its name and a value of 1, 0 or -1 per attribute). If `indices_train_test.mat`
exists, its 6,263 training and 6,880 test images are the splits; otherwise people are split by hash,
also half of them into test. `--test-people FILE` (one name per line) moves people to test, for
example those in another benchmark's test set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from label2label.data.schema import GENDERS, Sample
from label2label.data.vocabulary import CELEBA_ATTRIBUTES, get_vocabulary
from label2label.errors import UserError
from preparation.card import read_description
from preparation.framing import ReadImage
from preparation.program import dataset_parser, prepare, run_program, split_by_hash
from preparation.sources import Download, Images

ROOTS = ("lfw", "lfw-deepfunneled", "lfw-funneled", "lfw_subset")
SHARES = (0.4, 0.1, 0.5)
ANNOTATION = "lfw_att_40"
INDICES = "indices_train_test.mat"

OFFICIAL_SPLITS = (
    f"The splits are the original ones of `{INDICES}`, which has no validation split and in which "
    "no person is on both sides."
)
HASHED_SPLITS = (
    "The splits are 40 % train, 10 % validation and 50 % test of the people, by a hash of the name."
)


def read_matlab(path: Path, *names: str) -> dict[str, Any]:
    """Read variables of a MATLAB file of version 7.3 (as LFWA is published) or older, by name.

    They are arrays in MATLAB's orientation, or lists of strings for cell arrays.
    """
    try:
        import h5py
        from scipy.io import loadmat

        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return {name: _read_hdf5(file, name) for name in names}
        variables = loadmat(path, variable_names=names)
        return {name: _unpack_cells(variables[name]) for name in names}
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} is not a MATLAB file with {', '.join(names)}: {error}") from error


def _read_hdf5(file: Any, name: str) -> Any:
    import h5py

    data = file[name]
    if h5py.check_ref_dtype(data.dtype) is None:
        return data[()].T  # HDF5 holds MATLAB's columns as rows
    return ["".join(map(chr, file[reference][()].ravel())) for reference in data[()].ravel()]


def _unpack_cells(values: np.ndarray) -> Any:
    if values.dtype == object:
        return [str(cell.item() if isinstance(cell, np.ndarray) else cell) for cell in values.flat]
    return [text.strip() for text in values.flat] if values.dtype.kind == "U" else values


def read_annotation(download: Download) -> tuple[list[str], np.ndarray, list[str]]:
    """Read the 40 attributes of every image.

    Return image names with forward slashes, labels of 0 and 1, (images, attributes), and the
    attribute names.
    """
    matlab = find_matlab(download, f"{ANNOTATION}.mat")
    if matlab:
        variables = read_matlab(matlab, "name", "label", "AttrName")
        names, labels, attributes = (variables[name] for name in ("name", "label", "AttrName"))
        if labels.shape != (len(names), len(attributes)) or not np.isin(labels, (0, 1)).all():
            raise UserError(f"{matlab}: label must hold 0 or 1 for every name and AttrName")
    else:
        names, labels, attributes = read_text(download)
    attributes = [name.strip().replace(" ", "_") for name in attributes]
    if sorted(attributes) != sorted(CELEBA_ATTRIBUTES):
        raise UserError(f"the annotation in {download.source} does not name CelebA's 40 attributes")
    return [name.replace("\\", "/") for name in names], labels, attributes


def find_matlab(download: Download, name: str) -> Path | None:
    """Find a MATLAB file outside of archives."""
    found = download.find_text(name)
    return Path(found[0][1]) if found and found[0][0] is None else None


def read_text(download: Download) -> tuple[list[str], np.ndarray, list[str]]:
    """Read the annotation from a text file; return the same values as `read_annotation`."""
    attributes: list[str] = []
    names = []
    labels = []
    for where, line in download.lines(f"{ANNOTATION}.txt", f"{ANNOTATION}.csv"):
        words = re.split(r"[,\t]\s*" if "," in line or "\t" in line else r"\s+", line)
        if not attributes:
            if len(words) >= len(CELEBA_ATTRIBUTES):
                attributes = words[-len(CELEBA_ATTRIBUTES) :]
            continue
        name, *values = words
        if len(values) != len(attributes) or not {"1", "0", "-1"}.issuperset(values):
            raise UserError(f"{where}: expected a name and {len(attributes)} values of 1, 0 or -1")
        names.append(name)
        labels.append([value == "1" for value in values])
    return names, np.array(labels, dtype=np.int64), attributes


def read_official_splits(path: Path, images: int) -> list[str]:
    """Read the official split of every image; it is empty for images in neither list."""
    splits = [""] * images
    variables = read_matlab(path, "indices_img_train", "indices_img_test")
    for split in ("train", "test"):
        for index in np.asarray(variables[f"indices_img_{split}"]).ravel().astype(int):
            if not 1 <= index <= images or splits[index - 1]:
                raise UserError(f"{path}: image {index} is out of range or listed twice")
            splits[index - 1] = split
    return splits


def read_samples(
    download: Download, images: Images, indices: Path | None, test_people: set[str]
) -> Iterator[Sample]:
    """Read the annotation and the splits; raise an error for a missing image."""
    names, labels, attributes = read_annotation(download)
    splits = read_official_splits(indices, len(names)) if indices else []
    for index, name in enumerate(names):
        if name not in images:
            raise UserError(
                f"image {index + 1} of the annotation, {name}, is not in {images.where}"
            )
        person = PurePosixPath(name).parent.name
        split = splits[index] if splits else split_by_hash(person, SHARES)
        if not split:
            continue
        values = {
            attribute: bool(value)
            for attribute, value in zip(attributes, labels[index], strict=True)
        }
        yield Sample(
            key=name,
            split="test" if person in test_people else split,
            attributes=values,
            identity=person,
            source="lfwa",
            gender=GENDERS[values["Male"]],
        )


def main() -> None:
    """Prepare LFWA as the command line says."""
    parser = dataset_parser(
        __doc__, source=f"folder of the images and {ANNOTATION}.mat (or .txt, .csv)"
    )
    parser.add_argument(
        "--test-people", type=Path, metavar="FILE", help="people to move to test, one name per line"
    )
    arguments = parser.parse_args()
    download = Download(arguments.source)
    images = download.images(*ROOTS, depth=2)
    indices = find_matlab(download, INDICES)
    test_people: set[str] = set()
    splits = OFFICIAL_SPLITS if indices else HASHED_SPLITS
    if arguments.test_people:
        lines = Download(arguments.test_people).lines(arguments.test_people.name)
        test_people = {person for _, person in lines}
        splits += f" {len(test_people):,} people of a list went to test in any case."
    prepare(
        arguments,
        read_samples(download, images, indices, test_people),
        ReadImage(images, arguments.align),
        get_vocabulary("celeba-40"),
        read_description("lfwa", splits=splits),
    )


if __name__ == "__main__":
    run_program(main)
