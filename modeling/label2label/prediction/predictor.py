"""From photos to the attributes of every face in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from label2label.errors import UserError
from label2label.faces.alignment import align_face
from label2label.faces.detection import Face, FaceDetector
from label2label.prediction.backend import Backend, load_backend
from label2label.prediction.photos import convert_to_rgb, read_photo

Photo = str | os.PathLike[str] | Image.Image


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

    Raises:
        UserError: the face detector's file is missing or damaged.
    """

    def __init__(
        self,
        backend: Backend,
        align: bool = True,
        batch_size: int = 32,
    ) -> None:
        self.backend = backend
        self.detector = FaceDetector() if align else None
        self.batch_size = batch_size

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
        (entry,) = self.predict_photos([photo])
        if "error" in entry:
            raise UserError(f"{entry['image']}: {entry['error']}")
        return entry["faces"]

    def predict_photos(self, photos: Iterable[Photo]) -> Iterator[dict[str, Any]]:
        """Attributes of every face in many photos; only a batch of crops is held in memory.

        Args:
            photos: paths or PIL images.

        Yields:
            One dictionary a photo, in order: `image`, its path (None for a PIL image), and `faces`
            as `__call__` returns them, or `error`, one line, where it cannot be read.
        """
        waiting: list[tuple[dict[str, Any], list[np.ndarray]]] = []
        for photo in photos:
            waiting.append(self._find_faces(photo))
            if sum(len(crops) for _, crops in waiting) >= self.batch_size:
                yield from self._predict_crops(waiting)
                waiting = []
            elif not waiting[0][1]:
                # Nothing to predict in it, and nothing before it: no reason to wait.
                yield waiting.pop(0)[0]
        yield from self._predict_crops(waiting)

    def _find_faces(self, photo: Photo) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The entry of one photo, its faces still without attributes, and their crops."""
        path = None if isinstance(photo, Image.Image) else os.fspath(photo)
        try:
            if isinstance(photo, Image.Image):
                pixels = np.asarray(convert_to_rgb(photo))
            else:
                pixels = read_photo(Path(photo))
        except UserError as error:
            return {"image": path, "error": str(error)}, []
        if self.detector is None:
            height, width = pixels.shape[:2]
            faces, crops = [Face((0.0, 0.0, float(width), float(height)), 1.0)], [pixels]
        else:
            faces = self.detector(pixels)
            asked = self.backend.preprocessing
            crops = [
                align_face(pixels, face, asked.alignment_template, asked.crop_size)
                for face in faces
            ]
        entry = {
            "image": path,
            "faces": [
                {"box": [round(x, 1) for x in face.box], "score": round(face.score, 4)}
                for face in faces
            ],
        }
        # Not kept as they are: without alignment they are whole photos.
        return entry, [self.backend.crop(crop) for crop in crops]

    def _predict_crops(
        self, waiting: list[tuple[dict[str, Any], list[np.ndarray]]]
    ) -> Iterator[dict[str, Any]]:
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
