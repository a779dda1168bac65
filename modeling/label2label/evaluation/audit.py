"""Evaluate a model by group on a user's own data, as one HTML page (`label2label audit`)."""

import io
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets.arrow_writer import ArrowWriter
from PIL import Image
from tqdm.auto import tqdm

from label2label.data.label_table import LabelTable, read_label_table
from label2label.data.loading import load_split
from label2label.errors import UserError, printable
from label2label.evaluation.evaluate import load_scored_model, run_evaluation, summary
from label2label.evaluation.groups import check_groups
from label2label.evaluation.report import html_page
from label2label.faces.alignment import align_face, choose_face
from label2label.faces.detection import FaceDetector
from label2label.files import prepare_output, temporary_folder, write_whole
from label2label.prediction.backends import Preprocessing
from label2label.prediction.photos import read_photo

_NAMES_SHOWN = 5


def audit_command(args: Namespace) -> int:
    """Run `label2label audit`; return 0.

    Raises:
        UserError: If the output cannot be written, a model or the data cannot be read, a column is
            missing, a group column has fewer than two values, or no image is left to score.
    """
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
    table: LabelTable, preprocessing: Preprocessing, align: bool, file: Path
) -> tuple[datasets.Dataset, list[str]]:
    """Crop the faces in a table's photos; return them with their labels in the dataset schema.

    Args:
        table: Photos with labels and groups.
        preprocessing: Preprocessing of the model, with the template and size of the crops.
        align: Whether to detect and align the face nearest to the middle; if not, each image must
            be the crop of a face.
        file: Arrow file for the crops, which must exist as long as the dataset is used.

    Returns:
        The dataset, and notices for the reader, such as how many photos are left out and why.

    Raises:
        UserError: If no photo is left.
    """
    detector = FaceDetector() if align else None
    columns = {**table.groups, "identity": table.identities, "age": table.ages, **table.labels}
    kinds = {name: "bool" if name in table.labels else "string" for name in columns} | {
        "age": "int32"
    }
    features = {name: datasets.Value(kind) for name, kind in kinds.items()}
    features = datasets.Features({"image": datasets.Image(), **features})
    unreadable: list[str] = []
    without_face: list[int] = []
    crowded = 0
    with ArrowWriter(path=str(file), features=features) as writer:
        for row, source in enumerate(tqdm(table.images, desc="photos", unit="photo")):
            try:
                pixels = read_photo(source)
            except UserError as error:
                name = f"row {row + 1}" if isinstance(source, bytes) else source.name
                unreadable.append(f"{name} ({error})")
                continue
            if detector is not None:
                faces = detector(pixels)
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
            values = {name: values[row] if values else None for name, values in columns.items()}
            writer.write({"image": {"bytes": png.getvalue(), "path": None}, **values})
        writer.finalize()
    notices = []
    if unreadable:
        shown = "; ".join(unreadable[:_NAMES_SHOWN])
        more = ", ..." if len(unreadable) > _NAMES_SHOWN else ""
        notices.append(f"{len(unreadable):,} photos cannot be read and are left out: {shown}{more}")
    if without_face:
        notices.append(
            f"No face was found in {len(without_face):,} of {len(table):,} photos, which are left "
            f"out{_by_group(table, without_face)}. If the images are crops of faces already, use "
            "--no-align."
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
    asked = load_scored_model(args.model).preprocessing
    table = read_label_table(Path(args.data), asked.attributes, args.group)
    for column, values in table.groups.items():
        check_groups(column, values)
    dataset, notices = prepare_photos(table, asked, args.align, folder / "crops.arrow")
    others = None
    if args.against:
        other = load_scored_model(args.against).preprocessing
        frame = (asked.alignment_template, asked.shortest_edge, asked.crop_size)
        if frame != (other.alignment_template, other.shortest_edge, other.crop_size):
            # Each model needs crops like those that it was trained on.
            others, _ = prepare_photos(table, other, args.align, folder / "others.arrow")
    return dataset, notices, others


def _by_group(table: LabelTable, rows: Sequence[int]) -> str:
    parts = []
    for column, values in table.groups.items():
        everyone, missed = Counter(values), Counter(values[row] for row in rows)
        shares = (
            f"{group} {missed[group]:,} of {count:,} ({missed[group] / count:.1%})"
            for group, count in sorted(everyone.items(), key=str)
            if group is not None
        )
        parts.append(f"; by {column}: {', '.join(shares)}")
    return "".join(parts)
