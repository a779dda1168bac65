"""Evaluate a model by group on a user's own data, as one HTML page (`label2label audit`)."""

import io
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import datasets
from datasets.arrow_writer import ArrowWriter
from PIL import Image
from tqdm.auto import tqdm

from label2label.data.label_table import read_label_table
from label2label.data.loading import image_name, load_split
from label2label.errors import UserError, printable
from label2label.evaluation.evaluate import (
    load_scored_model,
    read_groups,
    run_evaluation,
    summary,
)
from label2label.evaluation.groups import cells_of
from label2label.evaluation.predictions import Column
from label2label.evaluation.report import html_page
from label2label.faces.alignment import align_face, choose_face
from label2label.faces.detection import FaceDetector
from label2label.files import prepare_output, temporary_folder, write_whole
from label2label.prediction.backends import Preprocessing
from label2label.prediction.photos import load_photo
from label2label.prediction.predictor import find_faces

_NAMES_SHOWN = 5


def audit_command(args: Namespace) -> int:
    """Run `label2label audit`; return 0."""
    output = Path(args.output)
    prepare_output(output)
    notices: list[str] = []
    if Path(args.data).is_file():
        with temporary_folder("audit") as folder:
            dataset, notices, others = _read_photos(args, Path(folder))
            result = run_evaluation(args, dataset, None, others)
    else:
        result = run_evaluation(args, load_split(args.data, args.split), args.split)
    if not result:
        return 0  # only the main process writes the page
    write_whole(output, html_page(result, notices))
    for notice in notices:
        print(f"warning: {printable(notice)}", file=sys.stderr)
    print(summary(result))
    print(f"page: {output}")
    return 0


def prepare_photos(
    table: datasets.Dataset,
    groups: Mapping[str, Column],
    preprocessing: Preprocessing,
    align: bool,
    file: Path,
) -> tuple[datasets.Dataset, list[str]]:
    """Crop the faces in a table's photos.

    Args:
        table: From `read_label_table`.
        groups: Groups by column, from `read_groups`.
        preprocessing: That of the model.
        align: Whether to detect and align the face nearest to the middle; if not, each image must
            be the crop of a face.
        file: Arrow file for the crops, which must exist as long as the dataset is used.

    Returns:
        The table with crops in place of the photos that have a face, and notices for the reader,
        such as how many photos are left out and why.

    Raises:
        UserError: If no photo is left.
    """
    detector = FaceDetector() if align else None
    unreadable: list[str] = []
    without_face: list[int] = []
    crowded = 0
    features = datasets.Features({**table.features, "image": datasets.Image()})
    with ArrowWriter(path=str(file), features=features) as writer:
        for row, values in enumerate(tqdm(table, desc="photos", unit="photo")):
            image = values["image"]
            load = partial(load_photo, image["bytes"] or image["path"])
            try:
                photo, faces = find_faces(detector, load) if detector else (load(), [])
            except UserError as error:
                unreadable.append(f"{image_name(image) or f'row {row + 1}'} ({error})")
                continue
            pixels = photo.pixels
            if detector is not None:
                if not faces:
                    without_face.append(row)
                    continue
                crowded += len(faces) > 1
                pixels = align_face(
                    *(pixels, choose_face(faces, pixels)),
                    *(preprocessing.alignment_template, preprocessing.crop_size),
                )
            png = io.BytesIO()
            Image.fromarray(preprocessing.crop(pixels)).save(png, "PNG")
            writer.write({**values, "image": {"bytes": png.getvalue(), "path": None}})
        writer.finalize()
    notices = []
    if unreadable:
        shown = "; ".join(unreadable[:_NAMES_SHOWN])
        more = ", ..." if len(unreadable) > _NAMES_SHOWN else ""
        notices.append(f"{len(unreadable):,} photos cannot be read and are left out: {shown}{more}")
    if without_face:
        shares = _by_group(groups, without_face)
        notices.append(
            f"No face was found in {len(without_face):,} of {len(table):,} photos, which are left "
            f"out{shares}. If the images are crops of faces already, use --no-align."
        )
    if detector is not None and detector.name == "haar":
        notices.append(
            "Faces were found by OpenCV's Haar cascade, because YuNet's file is missing: it "
            "misses more of them, and aligns them less exactly."
        )
    if crowded:
        notices.append(
            f"{crowded:,} photos show several faces: the one nearest to the middle was taken."
        )
    if len(unreadable) + len(without_face) == len(table):
        raise UserError(f"no photo is left to score: {' '.join(notices)}")
    return datasets.Dataset.from_file(str(file)), notices


def _read_photos(
    args: Namespace, folder: Path
) -> tuple[datasets.Dataset, list[str], datasets.Dataset | None]:
    own = load_scored_model(args.model).preprocessing
    table = read_label_table(Path(args.data), own.attributes, args.group)
    groups = {column: read_groups(table, column) for column in args.group}
    dataset, notices = prepare_photos(table, groups, own, args.align, folder / "crops.arrow")
    others = None
    if args.against:
        other = load_scored_model(args.against).preprocessing
        frame = (own.alignment_template, own.shortest_edge, own.crop_size)
        if frame != (other.alignment_template, other.shortest_edge, other.crop_size):
            # Each model needs crops like those that it was trained on.
            file = folder / "others.arrow"
            others, _ = prepare_photos(table, groups, other, args.align, file)
    return dataset, notices, others


def _by_group(groups: Mapping[str, Column], rows: Sequence[int]) -> str:
    parts = []
    for column, names in groups.items():
        everyone, missed = Counter(names), Counter(names[row] for row in rows)
        shares = (
            f"{group} {missed[group]:,} of {everyone[group]:,} "
            f"({missed[group] / everyone[group]:.1%})"
            for group in cells_of(names)[0]
        )
        parts.append(f"; by {column}: {', '.join(shares)}")
    return "".join(parts)
