"""Track the faces of a video and average their attributes over time (`label2label video`)."""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from label2label.data.images import MAX_PIXELS, check_file
from label2label.errors import UserError, printable
from label2label.files import prepare_output
from label2label.prediction.command import check_language
from label2label.prediction.drawing import draw_faces
from label2label.prediction.predictor import AttributePredictor

HALF_LIFE = 1.0  # seconds after which a frame's weight in the average is halved
PATIENCE = 1.0  # seconds that a face may be missing before its track ends
REACH = 0.7  # of a face's size: maximum movement between detections
USUAL_RATE = 25.0  # frames per second, if the video does not state it


class Frame(NamedTuple):
    """A frame of a video."""

    number: int  # from 0
    time: float  # seconds from the start
    pixels: np.ndarray  # uint8 RGB (height, width, 3)


class Track:
    """One face over time.

    Args:
        number: Index of the track, from 0.
        face: First detection: `box`, `score` and `attributes`.
        time: Time of the first detection, in seconds.
    """

    def __init__(self, number: int, face: Mapping[str, Any], time: float) -> None:
        self.number, self.time = number, time
        self.box, self.score = np.array(face["box"]), face["score"]
        self.attributes = dict(face["attributes"])
        self.sights = 1

    def distance(self, box: Sequence[float]) -> float:
        """Return a box's movement and growth since the last box, relative to the mean size."""
        sides = [np.array(b[2:]) - np.array(b[:2]) for b in (self.box, box)]
        size = np.sqrt(np.prod(sides[0]) * np.prod(sides[1])) ** 0.5
        centres = [np.array(b[2:]) + np.array(b[:2]) for b in (self.box, box)]
        moved = np.abs(centres[0] - centres[1]).max() / 2
        return float((moved + np.abs(sides[0] - sides[1]).max() / 2) / max(size, 1.0))

    def see(self, face: Mapping[str, Any], time: float) -> None:
        """Add a detection to the average: the mean at first, then exponentially weighted."""
        self.sights += 1
        weight = max(1 / self.sights, 1 - 0.5 ** ((time - self.time) / HALF_LIFE))
        for name, probability in face["attributes"].items():
            self.attributes[name] += min(weight, 1.0) * (probability - self.attributes[name])
        self.box, self.score, self.time = np.array(face["box"]), face["score"], time


class FaceTracker:
    """Tracker that assigns the faces of each frame to the tracks of earlier frames."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.count = 0

    def update(self, faces: Sequence[Mapping[str, Any]], time: float) -> list[Track]:
        """Return the track of each face of the next frame, at a time in seconds.

        Faces are dictionaries of `box`, `score` and `attributes`.
        """
        self.tracks = [track for track in self.tracks if time - track.time <= PATIENCE]
        pairs = sorted(
            (track.distance(face["box"]), t, f)
            for t, track in enumerate(self.tracks)
            for f, face in enumerate(faces)
        )
        found: dict[int, Track] = {}
        taken = set()
        for distance, t, f in pairs:
            if distance <= REACH and t not in taken and f not in found:
                taken.add(t)
                found[f] = self.tracks[t]
                found[f].see(faces[f], time)
        for f, face in enumerate(faces):
            if f not in found:
                found[f] = Track(self.count, face, time)
                self.tracks.append(found[f])
                self.count += 1
        return [found[f] for f in range(len(faces))]


def video_command(args: argparse.Namespace) -> int:
    """Run `label2label video`; return 0. An interrupted run keeps the frames done so far."""
    check_language(args)
    output, drawn = Path(args.output), Path(args.draw) if args.draw else None
    if output.suffix not in (".csv", ".parquet"):
        raise UserError(f"--output {output}: the table's name ends in .csv or .parquet")
    for path in filter(None, (output, drawn)):
        if path.exists() and Path(args.video).exists() and path.samefile(args.video):
            raise UserError(f"{path} is the video itself: give another file to write")
        prepare_output(path)
    capture = open_video(args.video)
    predictor = AttributePredictor.from_pretrained(args.model, args.backend)
    tracker, frames = FaceTracker(), 0
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if 1 <= rate <= 1000 else USUAL_RATE
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    with ExitStack() as stack:
        stack.callback(capture.release)
        table = FaceTable(output, predictor.backend.preprocessing.attributes)
        stack.callback(table.close)
        bar = stack.enter_context(tqdm(total=max(total, 0) or None, unit="frame", disable=None))
        writer: cv2.VideoWriter | None = None
        try:
            for frame in read_frames(capture, rate, is_camera=args.video.isdigit()):
                tracks = tracker.update(predictor(frame.pixels), frame.time)
                present = [predictor.find_present(track.attributes) for track in tracks]
                shown = list(zip(tracks, present, strict=True))
                table.write(track_row(frame, *pair) for pair in shown)
                if drawn:
                    faces = [
                        {
                            "box": track.box,
                            "attributes": track.attributes,
                            "present": names,
                            "label": str(track.number),
                        }
                        for track, names in shown
                    ]
                    image = np.asarray(draw_faces(frame.pixels, faces, args.language))
                    height, width = (side // 2 * 2 for side in image.shape[:2])
                    if writer is None:
                        writer = open_writer(drawn, rate, (width, height))
                        stack.callback(writer.release)
                    writer.write(cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2BGR))
                frames += 1
                bar.update()
        finally:
            if frames:
                tqdm.write(f"{printable(str(output))}: {frames} frames, {tracker.count} faces")
    if not frames:
        output.unlink()
        raise UserError(f"{args.video} has no frame that can be read")
    return 0


def open_video(name: str) -> cv2.VideoCapture:
    """Open a video file, or a camera by its number; raise UserError if that fails."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # errors are reported in one line
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        if name.isdigit():
            capture = cv2.VideoCapture(int(name))
            problem = f"no camera {name} can be opened"
        else:
            try:
                check_file(Path(name))
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
            capture = cv2.VideoCapture(name)
            problem = f"{name} is not a video that OpenCV can read"
    finally:
        logging.setLogLevel(level)
    if not capture.isOpened():
        raise UserError(problem)
    return capture


def read_frames(capture: cv2.VideoCapture, rate: float, is_camera: bool) -> Iterator[Frame]:
    """Yield the frames of an open video.

    A camera's timestamps are those of the clock. A file's frames without any are `rate` per second.

    Raises:
        UserError: Frames have more than `MAX_PIXELS` pixels.
    """
    index, start, last = 0, time.monotonic(), -1.0
    while True:
        read, bgr = capture.read()
        if not read:
            return
        if bgr.shape[0] * bgr.shape[1] > MAX_PIXELS:
            raise UserError(f"frames of {bgr.shape[1]}x{bgr.shape[0]} pixels are too large")
        seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if is_camera:
            seconds = time.monotonic() - start
        elif seconds <= last:
            seconds = max(index / rate, last)
        last = seconds
        yield Frame(index, round(seconds, 4), cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        index += 1


def track_row(frame: Frame, track: Track, present: list[str]) -> dict[str, Any]:
    """Return a row of the table: a face in a frame, with its averaged and present attributes."""
    x0, y0, x1, y1 = track.box.tolist()
    place = {"frame": frame.number, "time": frame.time, "track": track.number}
    box = {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "score": track.score}
    box["present"] = "; ".join(present)
    return {**place, **box, **{name: round(p, 4) for name, p in track.attributes.items()}}


class FaceTable:
    """Table of one row per face and frame, with the columns of `track_row`.

    Rows are on disk frame by frame, as CSV; a Parquet table is made of them at the end.
    """

    def __init__(self, path: Path, attributes: Sequence[str]) -> None:
        self._path, self._rows = path, path
        if path.suffix == ".parquet":
            import pyarrow  # noqa: F401 - if missing, fail before the work

            self._rows = path.with_name(f".{path.name}.part")
        place = ["frame", "time", "track", "x0", "y0", "x1", "y1", "score", "present"]
        self._columns = [*place, *attributes]
        self._file = open(self._rows, "w", encoding="utf-8", newline="")  # noqa: SIM115 - close
        self._writer = csv.DictWriter(self._file, self._columns)
        self._writer.writeheader()

    def write(self, rows: Iterator[dict[str, Any]]) -> None:
        self._writer.writerows(rows)
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        if self._rows == self._path:
            return
        import pyarrow.csv
        import pyarrow.parquet as pq

        types = dict.fromkeys(self._columns, "float32")
        types |= {"frame": "int64", "track": "int64", "time": "float64", "present": "string"}
        options = pyarrow.csv.ConvertOptions(column_types=types)
        pq.write_table(pyarrow.csv.read_csv(self._rows, convert_options=options), self._path)
        self._rows.unlink()


def open_writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """Open an MPEG-4 video to write, of `rate` frames per second and an even width and height."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
    if not writer.isOpened():
        raise UserError(f"--draw {path}: OpenCV cannot write it; its name ends in .mp4")
    return writer
