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

from label2label.data.images import ImageError, LoadedImage
from label2label.errors import UserError, join_lines
from label2label.faces.alignment import align_face
from label2label.faces.detection import FaceDetector
from label2label.faces.face import Face
from label2label.prediction.backends import Backend, load_backend
from label2label.prediction.photos import Photo, load_photo

Prepared = tuple[dict[str, Any], list[np.ndarray]]
Item = TypeVar("Item")
Result = TypeVar("Result")

# A large JPEG is first decoded at the smallest size with this many pixels, as most photos show a
# few large faces. If a face is small or uncertain there, the photo is decoded at full size.
GLANCE_PIXELS = 600_000
GLANCE_FACE, GLANCE_SCORE = 64, 0.88  # minimum side in pixels (no crop is enlarged) and score


class AttributePredictor:
    """Find the faces of a photo, align them to the model's crop and predict their attributes.

        from label2label import AttributePredictor

        predictor = AttributePredictor.from_pretrained()
        for face in predictor("photo.jpg"):
            print(face["box"], face["attributes"]["Smiling"])

    Arguments that are not described here are those of `from_pretrained`.

    Args:
        backend: The attribute model, in ONNX Runtime or PyTorch.
        threads: Photos that are read and searched for faces at once; by default the number of
            cores.

    Raises:
        UserError: The face detector's file is missing or damaged.
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
            name: Folder, Hub id, exported ONNX file or name of a model in the package; by default
                the package's first model.
            backend: `"onnx"` or `"torch"`; by default ONNX Runtime if the model has an ONNX file,
                else PyTorch, on a GPU if available.
            align: Whether to find and align faces; if not, each image is the crop of one face.
            batch_size: Faces per batch, across photos.
            threshold: Minimum probability of every attribute to count as present, 0 to 1; by
                default the model's thresholds.
            threads: Photos read at once, and threads per inference in ONNX Runtime; by default the
                number of cores.

        Raises:
            UserError: The model or the face detector's file cannot be loaded.
        """
        loaded = load_backend(name, backend, threads or 0)
        return cls(loaded, align, batch_size, threads, threshold)

    def __call__(self, photo: Photo) -> list[dict[str, Any]]:
        """Predict the attributes of every face in one photo.

        Args:
            photo: Path or content of an image file, PIL image of any mode, or uint8 RGB array
                (height, width, 3).

        Returns:
            One dictionary per face, from left to right: `box` [x0, y0, x1, y1] in pixels of the
            upright photo; `score` of the detector, 0 to 1; `size` in pixels; `roll`, clockwise in
            degrees; `warnings`, as in `Face.find_flaws`; `attributes`, probability by name; and
            `present`, the names of present attributes by descending probability, which reach their
            thresholds and do not contradict each other (`Preprocessing.decide`).

        Raises:
            UserError: The photo cannot be read.
            TypeError: The argument is not a photo.
        """
        (entry,) = self._predict([self._find_faces(photo)])
        if "error" in entry:
            raise UserError(f"{entry['image'] or 'the photo'}: {entry['error']}")
        return entry["faces"]

    def predict_photos(self, photos: Iterable[Photo]) -> Iterator[dict[str, Any]]:
        """Predict the attributes of every face in many photos.

        While a batch is predicted, threads read the next photos and find their faces. Closing the
        generator stops them. In memory are one photo per thread, and the crops of at most
        `batch_size` + `threads` photos beside those of a batch.

        Args:
            photos: Photos as in `__call__`.

        Yields:
            One dictionary per photo, in order: `image`, its path or None, and `faces` as in
            `__call__`, or `error`, one line, if the photo cannot be read.

        Raises:
            TypeError: The argument is one photo or folder, or one of its elements is not a photo.
        """
        if isinstance(photos, str | bytes | bytearray | os.PathLike | np.ndarray):
            raise TypeError(
                "predict_photos takes several photos, such as [photo] or Path(folder).iterdir(), "
                f"not one {type(photos).__name__}"
            )
        ahead = self.batch_size + self.threads
        with closing(map_in_threads(self._find_faces, photos, self.threads, ahead)) as prepared:
            yield from self._predict(prepared)

    def predict_crops(self, crops: list[np.ndarray]) -> list[dict[str, float]]:
        """Predict the attributes of aligned crops, uint8 RGB (crop_size, crop_size, 3).

        Returns:
            Probability by name, per crop.
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
        """Return the present attributes, by descending probability; takes probability by name."""
        names = self.backend.preprocessing.attributes
        row = np.array([[attributes[name] for name in names]])
        (decisions,) = self.backend.preprocessing.decide(row, self.threshold)
        present = [name for name, decision in zip(names, decisions, strict=True) if decision]
        return sorted(present, key=lambda name: -attributes[name])

    def crop_faces(self, pixels: np.ndarray, faces: list[Face]) -> list[np.ndarray]:
        """Align a photo's faces, as `detector(pixels)` found them, to the model's crop (uint8)."""
        template = self.backend.preprocessing.alignment_template
        size = self.backend.preprocessing.crop_size
        return [align_face(pixels, face, template, size) for face in faces]

    def _find_faces(self, photo: Photo) -> Prepared:
        """Return a photo's entry, with faces not yet predicted, and their crops."""
        path = os.fspath(photo) if isinstance(photo, str | os.PathLike) else None
        try:
            if self.detector is None:
                loaded = load_photo(photo)
                size = loaded.size
                faces = [Face((0.0, 0.0, float(size[0]), float(size[1])), 1.0)]
                # Copied, as a view would keep the whole photo in memory.
                crops = [self.backend.preprocessing.crop(loaded.pixels).copy()]
            else:
                loaded, found = find_faces(self.detector, partial(load_photo, photo))
                size, crops = loaded.size, self.crop_faces(loaded.pixels, found)
                faces = [scale_face(face, loaded) for face in found]
        except ImageError as error:
            return {"image": path, "error": str(error)}, []
        except (cv2.error, MemoryError, ValueError) as error:
            return {"image": path, "error": f"face detection failed: {join_lines(error)}"}, []
        return {"image": path, "faces": [describe_face(face, *size) for face in faces]}, crops

    def _predict(self, prepared: Iterable[Prepared]) -> Iterator[dict[str, Any]]:
        """Batch crops and yield the entries, in order, with attributes."""
        waiting: list[Prepared] = []
        for entry, crops in prepared:
            waiting.append((entry, crops))
            if sum(len(crops) for _, crops in waiting) >= self.batch_size:
                yield from self._predict_batch(waiting)
                waiting = []
            elif not waiting[0][1]:
                # The first waiting photo has no faces: no batch is needed.
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
    """Describe a face of a photo of this size as JSON values, without attributes."""
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
    """Find the faces of a photo, decoding it at full size only if needed.

    `load` decodes it to at least the given number of pixels, or at full size for None. Return the
    decoded photo, and the faces in its pixels.
    """
    loaded = load(GLANCE_PIXELS)
    faces = detector(loaded.pixels)
    reduced = loaded.pixels.shape[1] != loaded.size[0]
    if reduced and not (faces and all(map(is_clear, faces))):
        loaded = load(None)
        faces = detector(loaded.pixels)
    return loaded, faces


def is_clear(face: Face) -> bool:
    """Return whether a face is large and certain enough to skip decoding at full size."""
    x0, y0, x1, y1 = face.box
    return face.score >= GLANCE_SCORE and min(x1 - x0, y1 - y0) >= GLANCE_FACE


def scale_face(face: Face, photo: LoadedImage) -> Face:
    """Scale a face from pixels of the decoded photo to pixels of the full-size photo."""
    scale = np.array(photo.size) / photo.pixels.shape[1::-1]
    if (scale == 1).all():
        return face
    x0, y0, x1, y1 = (np.array(face.box) * np.tile(scale, 2)).tolist()
    landmarks = None if face.landmarks is None else face.landmarks * scale
    return replace(face, box=(x0, y0, x1, y1), landmarks=landmarks)


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Generator[Result, None, None]:
    """Apply a function to a stream of items by threads, and yield the results in order.

    At most `ahead` items are in progress, or finished and not yet yielded. Closing the generator
    cancels pending items.
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
