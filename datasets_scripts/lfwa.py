"""LFWA: the images of LFW with CelebA's 40 attributes.

    python datasets_scripts/lfwa.py --source LFWA --output data/lfwa

The folder holds the images (`lfw`, folder or zip) and the annotation: `lfw_att_40.mat`, or a text
file of the same columns (`lfw_att_40.txt` or `.csv`: a line with the attribute names, then a line
per image with its name and a value of 1, 0 or -1 per attribute). Where `indices_train_test.mat` is
there too, its 6,263 training and 6,880 test images are the splits; else people are split by hash.
The images are stored as they are, byte for byte, or with `--align` framed as CelebA's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from label2label.data.preparation.aligning import (
    STORED_AS_THEY_ARE,
    add_align_option,
    describe_alignment,
    image_reader,
    report_alignment,
)
from label2label.data.preparation.cards import DatasetDescription
from label2label.data.preparation.program import dataset_parser, prepare, run_program
from label2label.data.preparation.sources import RawImages, open_images
from label2label.data.preparation.splits import split_by_hash
from label2label.data.preparation.text import open_text
from label2label.data.schema import GENDERS, Sample
from label2label.data.vocabulary import CELEBA_ATTRIBUTES, get_vocabulary
from label2label.errors import UserError
from scipy.io import loadmat

IMAGE_FOLDERS = ("lfw", "lfw-deepfunneled", "lfw-funneled", "lfw_subset")
ANNOTATION = "lfw_att_40"
INDICES = "indices_train_test.mat"

OFFICIAL_SPLITS = (
    f"The splits are the original ones of `{INDICES}`, which has no validation split and in which "
    "no person is on both sides."
)
HASHED_SPLITS = (
    "The splits are 70 % train, 10 % validation and 20 % test of the people, by a hash of the name."
)

DESCRIPTION = DatasetDescription(
    title="LFWA",
    summary="Labeled Faces in the Wild with 40 attributes, in the dataset schema of label2label.",
    origin=(
        "LFW (Huang et al., 2007), <http://vis-www.cs.umass.edu/lfw/>, with the attributes of LFWA "
        "(Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015), "
        "<https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html>."
    ),
    terms=(
        "The attributes are for non-commercial research only and may not be redistributed; the "
        "images are news photographs whose rights belong to their owners."
    ),
    process=(
        f"{STORED_AS_THEY_ARE} LFW's are 250x250 pixels, in which the face is smaller than in "
        "CelebA's. `gender` is the attribute `Male`. {splits}"
    ),
    biases=(
        "People in the news around 2002: mostly men, adults and light-skinned, of the public life "
        "of a few countries. Many attributes were labelled by a model and are noisy."
    ),
    program="datasets_scripts/lfwa.py",
    license_name="lfwa-agreement",
    license_link="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    tags=("lfwa",),
)


def read_matlab(path: Path, *names: str) -> dict[str, Any]:
    """Read variables of a MATLAB file, of version 7.3 (as LFWA is published) or older.

    Args:
        path: The file.
        names: The variables: matrices, or cells of strings.

    Returns:
        Arrays as MATLAB shows them, and lists of strings for cells, by name.

    Raises:
        UserError: If the file is damaged or lacks a variable.
    """
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return {name: _read_hdf5(file, name) for name in names}
        variables = loadmat(path, variable_names=names)
        return {name: _unpack_cells(variables[name]) for name in names}
    except (KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(
            f"{path} is not the MATLAB file expected, with {', '.join(names)}: {error}"
        ) from error


def _read_hdf5(file: Any, name: str) -> Any:
    data = file[name]
    if h5py.check_ref_dtype(data.dtype) is None:
        return data[()].T  # HDF5 holds MATLAB's columns as rows
    return ["".join(map(chr, file[reference][()].ravel())) for reference in data[()].ravel()]


def _unpack_cells(values: np.ndarray) -> Any:
    if values.dtype == object:
        return [str(cell.item() if isinstance(cell, np.ndarray) else cell) for cell in values.flat]
    return [text.strip() for text in values.flat] if values.dtype.kind == "U" else values


def read_annotation(source: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Read the 40 attributes of every image.

    Args:
        source: Folder with `lfw_att_40.mat`, `.txt` or `.csv`.

    Returns:
        Image names with forward slashes, labels (images, attributes) of 0 and 1, and the
        attribute names.

    Raises:
        UserError: If there is no annotation, it is damaged, or a value is out of range.
    """
    matlab = source / f"{ANNOTATION}.mat"
    if matlab.is_file():
        variables = read_matlab(matlab, "name", "label", "AttrName")
        names, labels, attributes = (variables[name] for name in ("name", "label", "AttrName"))
        if labels.shape != (len(names), len(attributes)) or not np.isin(labels, (0, 1)).all():
            raise UserError(f"{matlab}: label must hold 0 or 1 for every name and AttrName")
    else:
        for suffix in (".txt", ".csv"):
            if (source / f"{ANNOTATION}{suffix}").is_file():
                names, labels, attributes = read_text(source / f"{ANNOTATION}{suffix}")
                break
        else:
            raise UserError(f"{source} holds no {ANNOTATION}.mat, .txt or .csv")
    attributes = [name.strip().replace(" ", "_") for name in attributes]
    if sorted(attributes) != sorted(CELEBA_ATTRIBUTES):
        raise UserError(f"the annotation in {source} does not name CelebA's 40 attributes")
    return [name.replace("\\", "/") for name in names], labels, attributes


def read_text(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Read the annotation from a text file.

    Args:
        path: A file of a line with the attribute names (after the number of images, or a name for
            the first column, which are left out), then a line per image; words are separated by
            spaces, tabs or commas.

    Returns:
        Image names, labels (images, attributes) of 0 and 1, and the attribute names.

    Raises:
        UserError: If a line does not have 40 values of 1, 0 or -1.
    """
    attributes: list[str] = []
    names = []
    labels = []
    with open_text(path) as file:
        lines = file.read().splitlines()
    for number, line in enumerate(lines, start=1):
        words = re.split(r"[,\t]\s*" if "," in line or "\t" in line else r"\s+", line.strip())
        if not attributes:
            if len(words) >= len(CELEBA_ATTRIBUTES):
                attributes = words[-len(CELEBA_ATTRIBUTES) :]
            continue
        name, *values = words
        if len(values) != len(attributes) or not {"1", "0", "-1"}.issuperset(values):
            raise UserError(
                f"{path}, line {number}: expected a name and {len(attributes)} values of 1, 0 or -1"
            )
        names.append(name)
        labels.append([value == "1" for value in values])
    return names, np.array(labels, dtype=np.int64), attributes


def read_official_splits(path: Path, images: int) -> list[str]:
    """Read the original protocol.

    Args:
        path: `indices_train_test.mat`; its indices count from 1.
        images: Number of images that the annotation names.

    Returns:
        `train` or `test` for every image; an image in neither list gets an empty text.

    Raises:
        UserError: If an index is out of range or in both lists.
    """
    splits = [""] * images
    variables = read_matlab(path, "indices_img_train", "indices_img_test")
    for split in ("train", "test"):
        for index in np.asarray(variables[f"indices_img_{split}"]).ravel().astype(int):
            if not 1 <= index <= images or splits[index - 1]:
                raise UserError(f"{path}: image {index} is out of range or listed twice")
            splits[index - 1] = split
    return splits


def read_samples(source: Path, images: RawImages, official: bool) -> Iterator[Sample]:
    """Read the annotation and the splits.

    Args:
        source: Folder of the annotation.
        images: The images that it must name.
        official: Whether the splits are those of the original index list.

    Yields:
        A sample per image, in the annotation's order.

    Raises:
        UserError: If an annotation is damaged, an image is missing, or a person is in two splits.
    """
    names, labels, attributes = read_annotation(source)
    splits = read_official_splits(source / INDICES, len(names)) if official else []
    split_of_person: dict[str, str] = {}
    for index, name in enumerate(names):
        if name not in images:
            raise UserError(f"image {index + 1} of the annotation, {name}, is not in {images.path}")
        person = PurePosixPath(name).parent.name
        split = splits[index] if official else split_by_hash(person)
        if not split:
            continue
        if split_of_person.setdefault(person, split) != split:
            raise UserError(f"{source / INDICES} puts images of {person} into two splits")
        values = {
            attribute: bool(value)
            for attribute, value in zip(attributes, labels[index], strict=True)
        }
        yield Sample(
            key=name,
            split=split,
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
    add_align_option(parser)
    arguments = parser.parse_args()
    images = open_images(arguments.source, *IMAGE_FOLDERS)
    official = (arguments.source / INDICES).is_file()
    splits = OFFICIAL_SPLITS if official else HASHED_SPLITS
    description = replace(DESCRIPTION, process=DESCRIPTION.process.format(splits=splits))
    counts = prepare(
        arguments,
        read_samples(arguments.source, images, official),
        image_reader(images, arguments.align),
        get_vocabulary("celeba-40"),
        describe_alignment(description, arguments.align),
        settings={"align": arguments.align},
    )
    if arguments.align:
        report_alignment(counts)


if __name__ == "__main__":
    run_program(main)
