"""From photos to the attributes of every face in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image

from label2label.errors import UserError, join_lines
from label2label.faces.alignment import align_face
from label2label.faces.detection import Face, FaceDetector
from label2label.prediction.backends import Backend, load_backend
from label2label.prediction.photos import read_photo
from label2label.prediction.pipeline import map_in_threads, run_ahead

Photo = str | os.PathLike[str] | bytes | Image.Image
Prepared = tuple[dict[str, Any], list[np.ndarray]]


class AttributePredictor:
    """Finds the faces of a photo, aligns them to the model's crop and predicts their attributes.

        from label2label.prediction.predictor import AttributePredictor

        predictor = AttributePredictor.from_pretrained()  # or from_pretrained("model.onnx")
        for face in predictor("photo.jpg"):
            print(face["box"], face["attributes"]["Smiling"])

    Args:
        backend: the attribute model, in PyTorch or ONNX Runtime.
        align: whether to find and align faces; if not, each image is one face's crop.
        batch_size: faces predicted at once; those of several photos share a batch.
        threads: photos that are read and searched for faces at once; by default as many as there
            are cores.

    Raises:
        UserError: the face detector's file is missing or damaged.
    """

    def __init__(
        self,
        backend: Backend,
        align: bool = True,
        batch_size: int = 32,
        threads: int | None = None,
    ) -> None:
        self.backend = backend
        self.detector = FaceDetector() if align else None
        self.batch_size = batch_size
        self.threads = threads or count_cores()

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str] | None = None, align: bool = True, batch_size: int = 32
    ) -> AttributePredictor:
        """Load a model: in PyTorch, on a GPU where there is one, or in ONNX Runtime.

        Args:
            name: a folder, a Hub id or an exported ONNX file; by default the checkpoint that ships
                with the package.
            align: whether to find and align faces; if not, each image is one face's crop.
            batch_size: faces predicted at once.

        Returns:
            The predictor.

        Raises:
            UserError: the model, or the face detector's file, cannot be loaded.
        """
        return cls(load_backend(name), align=align, batch_size=batch_size)

    def __call__(self, photo: Photo) -> list[dict[str, Any]]:
        """Attributes of every face in one photo.

        Args:
            photo: a path or a PIL image of any mode.

        Returns:
            One dictionary a face, from left to right: `box` [x0, y0, x1, y1] in pixels of the
            upright photo, `score` of the detector, 0 to 1, and `attributes`, probability by name.

        Raises:
            UserError: the photo cannot be read.
        """
        (entry,) = self._predict([self._find_faces(photo)])
        if "error" in entry:
            raise UserError(f"{entry['image'] or 'the photo'}: {entry['error']}")
        return entry["faces"]

    def predict_photos(self, photos: Iterable[Photo]) -> Iterator[dict[str, Any]]:
        """Attributes of every face in many photos, at the speed of the slowest stage.

        Several threads read photos, find faces and align them; another one predicts, while the
        caller uses the results. No more than two batches of crops and a photo for each thread are
        held in memory. A stream that is left early, or interrupted, stops them.

        Args:
            photos: paths, encoded images or PIL images; another thread iterates over them.

        Yields:
            One dictionary a photo, in order: `image`, its path (None for an image), and `faces` as
            `__call__` returns them, or `error`, one line, where it cannot be read.
        """
        # While a batch is predicted, the faces of the next one are found.
        ahead = self.batch_size + self.threads
        prepared = map_in_threads(self._find_faces, photos, self.threads, ahead)
        yield from run_ahead(self._predict(prepared), self.batch_size)

    def _find_faces(self, photo: Photo) -> Prepared:
        """The entry of one photo, its faces still without attributes, and their crops."""
        path = None if isinstance(photo, Image.Image | bytes) else os.fspath(photo)
        asked = self.backend.preprocessing
        try:
            pixels = read_photo(photo)
            if self.detector is None:
                height, width = pixels.shape[:2]
                faces = [Face((0.0, 0.0, float(width), float(height)), 1.0)]
                # Copied, or a view would keep the whole photo.
                crops = [asked.crop(pixels).copy()]
            else:
                faces = self.detector(pixels)
                template, size = asked.alignment_template, asked.crop_size
                crops = [align_face(pixels, face, template, size) for face in faces]
        except UserError as error:
            return {"image": path, "error": str(error)}, []
        except (cv2.error, MemoryError, ValueError) as error:
            return {"image": path, "error": f"no face can be looked for: {join_lines(error)}"}, []
        entry = {
            "image": path,
            "faces": [
                {"box": [round(x, 1) for x in face.box], "score": round(face.score, 4)}
                for face in faces
            ],
        }
        return entry, crops

    def _predict(self, prepared: Iterable[Prepared]) -> Iterator[dict[str, Any]]:
        """Gather crops to batches and yield the entries, in order and with attributes."""
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
        crops = [crop for _, crops in waiting for crop in crops]
        probabilities: list[list[float]] = []
        for start in range(0, len(crops), self.batch_size):
            batch = np.stack(crops[start : start + self.batch_size])
            probabilities += self.backend.predict(batch).tolist()
        values = iter(probabilities)
        for entry, _ in waiting:
            for face in entry.get("faces", []):
                face["attributes"] = {
                    name: round(p, 4)
                    for name, p in zip(
                        self.backend.preprocessing.attributes, next(values), strict=True
                    )
                }
            yield entry


def count_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
