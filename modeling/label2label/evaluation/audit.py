"""Evaluate a model by group on a user's own data, as one HTML page (`label2label audit`)."""

import base64
import io
import json
import re
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import jinja2
import markdown
from accelerate import Accelerator
from datasets.arrow_writer import ArrowWriter
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from label2label.data.label_table import LabelTable, read_label_table
from label2label.data.loading import load_split
from label2label.errors import UserError
from label2label.evaluation.evaluate import evaluate_models, load_scored_model, short_name, summary
from label2label.evaluation.plots import figure_svg, printable
from label2label.evaluation.report import markdown_report, report_figures
from label2label.faces.alignment import align_face, choose_face
from label2label.faces.detection import FaceDetector
from label2label.files import prepare_output, temporary_folder, write_whole
from label2label.prediction.backends import Preprocessing, without_accelerator
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
    accelerator = Accelerator(cpu=without_accelerator())
    notices: list[str] = []
    split, others = args.split, None
    with temporary_folder("audit") as folder:
        if Path(args.data).is_file():
            split = None
            dataset, notices, others = _read_photos(args, Path(folder))
        else:
            dataset = load_split(args.data, args.split)
            plain = dataset.with_format(None)
            named = [column for column in args.group if column in dataset.column_names]
            _check_groups({column: plain[column] for column in named})
        result = evaluate_models(
            args.model,
            dataset,
            against=args.against,
            other_dataset=others,
            group_columns=args.group,
            batch_size=args.batch_size,
            resamples=args.bootstrap or 1000,
            minimum_age=args.minimum_age,
            accelerator=accelerator,
        )
    accelerator.end_training()
    if not result:
        return 0  # only the main process writes the page
    result["dataset"] = {"name": short_name(args.data), "split": split}
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
    _check_groups(table.groups)
    dataset, notices = prepare_photos(table, asked, args.align, folder / "crops.arrow")
    others = None
    if args.against:
        other = load_scored_model(args.against).preprocessing
        frame = (asked.alignment_template, asked.shortest_edge, asked.crop_size)
        if frame != (other.alignment_template, other.shortest_edge, other.crop_size):
            # Each model needs crops like those that it was trained on.
            others, _ = prepare_photos(table, other, args.align, folder / "others.arrow")
    return dataset, notices, others


def _check_groups(groups: Mapping[str, Sequence[Any]]) -> None:
    for column, rows in groups.items():
        values = {value for value in rows if value is not None}
        if not values:
            raise UserError(f"the group column {column!r} is empty throughout: nothing to compare")
        if len(values) == 1:
            raise UserError(
                f"the group column {column!r} has one value, {values.pop()!r}: there is nothing to "
                "compare"
            )


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


def html_page(result: Mapping[str, Any], notices: Sequence[str] = ()) -> str:
    """Render an evaluation as a self-contained page with styles, figures and numbers.

    Args:
        result: Result of `evaluate_models`, with its `dataset` filled in.
        notices: Notices to show before the results.

    Returns:
        An HTML document, in which names from the data are escaped.
    """
    writer = markdown.Markdown(
        extensions=["tables", "toc"], extension_configs={"toc": {"toc_depth": "2-2"}}
    )
    body = writer.convert(markdown_report(result))
    contents: str = writer.toc  # type: ignore[attr-defined]
    body = re.sub("(?s)<table>.*?</table>", lambda match: _scrolling(match.group(), "Table"), body)
    figures = report_figures(result)
    body = re.sub(
        r'<p><img alt="([^"]*)" src="([^"]*)\.svg" /></p>',
        lambda match: _figure(match.group(1), figures[match.group(2)]),
        body,
    )
    head, end, rest = body.partition("</ul>")
    template = Path(__file__).with_name("audit_template.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(template)
    return page.render(
        title=printable(f"{result['model']['name']} on {result['dataset']['name']}"),
        summary=Markup(head + end),
        notices=notices,
        contents=Markup(contents),
        body=Markup(rest),
        numbers=base64.b64encode(json.dumps(result, allow_nan=False).encode()).decode(),
        versions=", ".join(f"{name} {v}" for name, v in result["versions"].items()),
    )


def _figure(title: str, figure: Figure) -> str:
    source = base64.b64encode(figure_svg(figure)).decode()
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    image = (
        f'<img alt="{title}" width="{width}" height="{height}" '
        f'src="data:image/svg+xml;base64,{source}">'
    )
    return f"<figure>{_scrolling(image, title)}<figcaption>{title}</figcaption></figure>"


def _scrolling(inside: str, title: str) -> str:
    # Wide content scrolls in its own box, by keyboard too, so that the page fits a phone.
    return f'<div class="scroll" role="group" aria-label="{title}" tabindex="0">{inside}</div>'
