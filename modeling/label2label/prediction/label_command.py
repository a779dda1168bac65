"""`label2label label`: an image collection in, Parquet files of attributes out."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from label2label.errors import UserError
from label2label.prediction.backends import load_backend
from label2label.prediction.collection import ImageLocation, read_images
from label2label.prediction.label_card import write_label_card
from label2label.prediction.label_run import (
    LabelRun,
    LabelSettings,
    count_labels,
    digest_model,
    open_run,
)
from label2label.prediction.label_shards import label_rows, label_schema, write_shard
from label2label.prediction.predictor import AttributePredictor, count_cores

# Set by what starts several processes: torchrun, as `accelerate launch` does, and kinds of MPI.
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
PATIENCE = timedelta(days=30)  # of processes that have finished for those that have not


def label_command(args: argparse.Namespace) -> int:
    """Run `label2label label`. Every file of labels appears when it is whole; the same command
    goes on with what is missing.

    Args:
        args: `model` (folder, Hub id, ONNX file or None), `data` (folder or glob), `output`
            (folder), `align`, `batch_size`, `shard_size`.

    Returns:
        The exit code, 0: images that cannot be read are rows with `error`.

    Raises:
        UserError: the model, the face detector, the collection or the output folder will not do.
    """
    state = join_processes()
    rank, processes = (state.process_index, state.num_processes) if state else (0, 1)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    threads = max(1, count_cores() // here)
    predictor = AttributePredictor(
        load_backend(args.model, threads=threads if here > 1 else 0),
        align=args.align,
        batch_size=args.batch_size,
        threads=threads,
    )
    settings = LabelSettings(
        data=absolute(args.data),
        model=digest_model(args.model),
        detector=predictor.detector.name if predictor.detector else None,
        shard_size=args.shard_size,
    )
    output = Path(args.output)
    if rank == 0:
        open_run(output, settings)
    if state:
        state.wait_for_everyone()
    run = open_run(output, settings)
    missing = [index for index in range(run.shards) if not run.shard(index).exists()]
    if state:
        state.wait_for_everyone()  # so that all list the same, before one writes
    start = time.perf_counter()
    label_missing(run, missing[rank::processes], predictor, show=rank == 0)
    if state:
        state.wait_for_everyone()
    if rank == 0:
        seconds = time.perf_counter() - start
        finish(run, predictor.backend.preprocessing.attributes)
        if missing:
            images = sum(map(run.images_in, missing))
            print(
                f"labelled {images} images in {seconds:.1f} s, {images / seconds:.1f} images/s"
                + (f", by {processes} processes" if processes > 1 else "")
            )
    if state:
        state.destroy_process_group()
    return 0


def join_processes() -> Any:
    """Accelerate's state, where a launcher started several processes.

    Returns:
        A `PartialState`; None where there is one process, which then imports no torch for it.
    """
    if all(int(os.environ.get(name) or 1) == 1 for name in WORLD_SIZES):
        return None
    from accelerate import PartialState

    from label2label.prediction.processes import without_accelerator

    return PartialState(cpu=without_accelerator(), timeout=PATIENCE)


def absolute(data: str) -> str:
    """A folder or glob, whatever folder the command is started in."""
    if not data:
        raise UserError("--data is empty: it takes a folder or a glob")
    return os.path.abspath(os.path.expanduser(data))


def label_missing(
    run: LabelRun, shards: list[int], predictor: AttributePredictor, show: bool
) -> None:
    """Write the shards that one process has to.

    Args:
        run: of the shards.
        shards: their indices.
        predictor: finds faces and their attributes.
        show: whether to draw a progress bar.
    """
    schema = label_schema(predictor.backend.preprocessing.attributes)
    mine = set(shards)
    total = sum(map(run.images_in, shards))
    # `disable=None` keeps the bar off what is no terminal.
    with tqdm(total=total, unit="image", desc="label", disable=None if show else True) as bar:
        for shard, images in run.read_shards():
            if shard in mine:
                rows = predict_rows(run.root, images, predictor, bar)
                write_shard(run.shard(shard), schema, rows)


def predict_rows(
    root: Path,
    images: list[tuple[int, ImageLocation]],
    predictor: AttributePredictor,
    bar: tqdm,
) -> Iterator[dict[str, Any]]:
    """Rows of a shard.

    Args:
        root: folder that the images lie in.
        images: the shard's, with their index in the collection.
        predictor: finds faces and their attributes.
        bar: moves a step an image.

    Yields:
        Values by column.
    """
    entries = predictor.predict_photos(read_images(root, (where for _, where in images)))
    for (index, location), entry in zip(images, entries, strict=True):
        yield from label_rows(index, location, entry)
        bar.update()


def finish(run: LabelRun, attributes: list[str]) -> None:
    """Write the card of a run whose shards are all there, and say what they hold.

    Args:
        run: the run.
        attributes: names of the model's attributes.
    """
    counts = count_labels(run)
    write_label_card(run, attributes, counts)
    print(
        f"{run.folder}: {counts['images']} images, {counts['faces']} faces; "
        f"without a face: {counts['without_face']}, not readable: {counts['unreadable']}"
    )
