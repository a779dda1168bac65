"""Predict the attributes of every face in photos."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np

from label2label.errors import UserError, join_lines
from label2label.faces.alignment import align_face
from label2label.faces.detection import FaceDetector
from label2label.faces.face import Face
from label2label.prediction.backends import Backend, load_backend
from label2label.prediction.photos import ImageError, LoadedImage, Photo, load_photo

Prepared = tuple[dict[str, Any], list[np.ndarray]]
Item = TypeVar("Item")
Result = TypeVar("Result")

# A JPEG is first decoded at the least size of so many pixels: most photos show a few large faces.
# Where a face is small there, or not surely found, the photo is decoded as a whole.
GLANCE_PIXELS = 600_000
GLANCE_FACE, GLANCE_SCORE = 64, 0.88  # least side in pixels, so that no crop is enlarged, and score


class AttributePredictor:
    """Find the faces of a photo, align them to the model's crop and predict their attributes.

        from label2label import AttributePredictor

        predictor = AttributePredictor.from_pretrained()
        for face in predictor("photo.jpg"):
            print(face["box"], face["attributes"]["Smiling"])

    Args:
        backend: the attribute model, in ONNX Runtime or PyTorch.
        align: whether to find and align faces; if not, each image is one face's crop.
        batch_size: faces predicted at once; those of several photos share a batch.
        threads: photos that are read and searched for faces at once; by default as many as there
            are cores.
        threshold: probability from which every attribute counts as present, 0 to 1, in place of
            the model's own thresholds.

    Raises:
        UserError: the face detector's file is missing or damaged.
    """

    def __init__(
        self,
        backend: Backend,
        align: bool = True,
        batch_size: int = 32,
        threads: int | None = None,
        threshold: float | None = None,
    ) -> None:
        self.backend = backend
        self.detector = FaceDetector() if align else None
        self.batch_size = batch_size
        self.threads = threads or count_cores()
        self.threshold = threshold

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        align: bool = True,
        batch_size: int = 32,
        threshold: float | None = None,
        threads: int | None = None,
    ) -> AttributePredictor:
        """Load a model.

        Args:
            name: a folder, a Hub id, an exported ONNX file or the name of a model that ships; by
                default the first of those.
            backend: `"onnx"` or `"torch"`; by default ONNX Runtime where the model has an ONNX
                file, else PyTorch, on a GPU where there is one.
            align: whether to find and align faces; if not, each image is one face's crop.
            batch_size: faces predicted at once.
            threshold: probability from which every attribute counts as present, 0 to 1; by default
                the model's own thresholds.
            threads: photos read at once, and threads of one inference by ONNX Runtime; by default
                as many as there are cores.

        Raises:
            UserError: the model, or the face detector's file, cannot be loaded.
        """
        loaded = load_backend(name, backend, threads or 0)
        return cls(loaded, align, batch_size, threads, threshold)

    def __call__(self, photo: Photo) -> list[dict[str, Any]]:
        """Predict the attributes of every face in one photo.

        Args:
            photo: a path, the bytes of an image file, a PIL image of any mode or a uint8 RGB array
                (height, width, 3).

        Returns:
            One dictionary a face, from left to right: `box` [x0, y0, x1, y1] in pixels of the
            upright photo, `score` of the detector, 0 to 1, `size` of the face in pixels, `roll`,
            degrees by which it is turned clockwise, `warnings` (as `Face.find_flaws` returns them),
            `attributes`, probability by name, and `present`, the names of those that are present,
            surest first: they reach their thresholds and do not contradict each other
            (`Preprocessing.decide`).

        Raises:
            UserError: the photo cannot be read.
            TypeError: the argument is not a photo.
        """
        (entry,) = self._predict([self._find_faces(photo)])
        if "error" in entry:
            raise UserError(f"{entry['image'] or 'the photo'}: {entry['error']}")
        return entry["faces"]

    def predict_photos(self, photos: Iterable[Photo]) -> Iterator[dict[str, Any]]:
        """Predict the attributes of every face in many photos.

        Threads read the next photos and find their faces while a batch is predicted. No more than
        two batches of crops and a photo for each thread are in memory. A stream that is left early,
        or interrupted, stops them.

        Args:
            photos: as `__call__` takes them.

        Yields:
            One dictionary a photo, in order: `image`, its path (None for others), and `faces` as
            `__call__` returns them, or `error`, one line, where it cannot be read.
        """
        ahead = self.batch_size + self.threads
        with closing(map_in_threads(self._find_faces, photos, self.threads, ahead)) as prepared:
            yield from self._predict(prepared)

    def predict_crops(self, crops: list[np.ndarray]) -> list[dict[str, float]]:
        """Predict the attributes of aligned crops, uint8 RGB (crop_size, crop_size, 3).

        Returns:
            Probability by name, of each crop.
        """
        probabilities: list[list[float]] = []
        for start in range(0, len(crops), self.batch_size):
            batch = np.stack(crops[start : start + self.batch_size])
            probabilities += self.backend.predict(batch).tolist()
        names = self.backend.preprocessing.attributes
        return [
            {name: round(p, 4) for name, p in zip(names, row, strict=True)} for row in probabilities
        ]

    def find_present(self, attributes: Mapping[str, float]) -> list[str]:
        """Return the names of present attributes, from probabilities by name; surest first."""
        asked = self.backend.preprocessing
        row = np.array([[attributes[name] for name in asked.attributes]])
        (decisions,) = asked.decide(row, self.threshold)
        names = [name for name, present in zip(asked.attributes, decisions, strict=True) if present]
        return sorted(names, key=lambda name: -attributes[name])

    def crop_faces(self, pixels: np.ndarray, faces: list[Face]) -> list[np.ndarray]:
        """Align faces of a photo, uint8 RGB, to the model's crop."""
        asked = self.backend.preprocessing
        return [
            align_face(pixels, face, asked.alignment_template, asked.crop_size) for face in faces
        ]

    def _find_faces(self, photo: Photo) -> Prepared:
        """Return a photo's entry, with faces not yet predicted, and their crops."""
        path = os.fspath(photo) if isinstance(photo, str | os.PathLike) else None
        try:
            if self.detector is None:
                loaded = load_photo(photo)
                size, asked = loaded.size, self.backend.preprocessing
                faces = [Face((0.0, 0.0, float(size[0]), float(size[1])), 1.0)]
                # Copied, or a view would keep the whole photo.
                crops = [asked.crop(loaded.pixels).copy()]
            else:
                faces, crops, size = self._detect(photo)
        except ImageError as error:
            return {"image": path, "error": str(error)}, []
        except (cv2.error, MemoryError, ValueError) as error:
            return {"image": path, "error": f"no face can be looked for: {join_lines(error)}"}, []
        return {"image": path, "faces": [describe_face(face, *size) for face in faces]}, crops

    def _detect(self, photo: Photo) -> tuple[list[Face], list[np.ndarray], tuple[int, int]]:
        """Return faces in pixels of the whole photo, their crops, and its width and height."""
        assert self.detector is not None
        loaded, faces = find_faces(self.detector, partial(load_photo, photo))
        crops = self.crop_faces(loaded.pixels, faces)
        return [scale_face(face, loaded) for face in faces], crops, loaded.size

    def _predict(self, prepared: Iterable[Prepared]) -> Iterator[dict[str, Any]]:
        """Batch crops and yield the entries, in order, with attributes."""
        waiting: list[Prepared] = []
        for entry, crops in prepared:
            waiting.append((entry, crops))
            if sum(len(crops) for _, crops in waiting) >= self.batch_size:
                yield from self._predict_batch(waiting)
                waiting = []
            elif not waiting[0][1]:
                # Nothing to predict in it, and nothing before it: no reason to wait.
                yield waiting.pop(0)[0]
        yield from self._predict_batch(waiting)

    def _predict_batch(self, waiting: list[Prepared]) -> Iterator[dict[str, Any]]:
        """Fill in the attributes of waiting entries and yield them."""
        predicted = iter(self.predict_crops([crop for _, crops in waiting for crop in crops]))
        for entry, _ in waiting:
            for face in entry.get("faces", []):
                face["attributes"] = next(predicted)
                face["present"] = self.find_present(face["attributes"])
            yield entry


def describe_face(face: Face, width: int, height: int) -> dict[str, Any]:
    """A face of a photo of this size as JSON can hold it, still without attributes."""
    return {
        "box": [round(x, 1) for x in face.box],
        "score": round(face.score, 4),
        "size": round(face.size, 1),
        "roll": round(face.roll, 1),
        "warnings": face.find_flaws(width, height),
    }


def find_faces(
    detector: FaceDetector, load: Callable[[int | None], LoadedImage]
) -> tuple[LoadedImage, list[Face]]:
    """Find the faces of a photo, which is decoded no larger than they need.

    Args:
        detector: finds them.
        load: decodes the photo with at least so many pixels, or all of them where `None`.

    Returns:
        The photo, and its faces in pixels of what was decoded.
    """
    loaded = load(GLANCE_PIXELS)
    faces = detector(loaded.pixels)
    reduced = loaded.pixels.shape[1] != loaded.size[0]
    if reduced and not (faces and all(map(is_clear, faces))):
        loaded = load(None)
        faces = detector(loaded.pixels)
    return loaded, faces


def is_clear(face: Face) -> bool:
    """Whether a face is so large and sure that a larger photo would show no more of it."""
    x0, y0, x1, y1 = face.box
    return face.score >= GLANCE_SCORE and min(x1 - x0, y1 - y0) >= GLANCE_FACE


def scale_face(face: Face, photo: LoadedImage) -> Face:
    """A face of a photo, perhaps a JPEG decoded at reduced size, in pixels of the whole one."""
    scale = np.array(photo.size) / photo.pixels.shape[1::-1]
    if (scale == 1).all():
        return face
    x0, y0, x1, y1 = (np.array(face.box) * np.tile(scale, 2)).tolist()
    landmarks = None if face.landmarks is None else face.landmarks * scale
    return replace(face, box=(x0, y0, x1, y1), landmarks=landmarks)


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply a function to a stream of items by several threads.

    Args:
        function: what to apply; it releases the GIL for most of its time, or nothing is won.
        items: the stream; it is read at most `ahead` items beyond the result that is taken.
        threads: number of threads.
        ahead: most items under way or finished and not yet taken.

    Yields:
        The results, in the order of the items. Closing the stream drops the items behind.

    Raises:
        BaseException: what the function raised, in place of its result.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
