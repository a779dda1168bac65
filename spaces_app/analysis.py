"""From a photo to the attributes of its faces, for the page and for the API."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from catalogue import OfferedModel, Prediction
from label2label.faces.alignment import align_face
from label2label.faces.detection import FaceDetector
from label2label.faces.face import Face
from label2label.prediction.predictor import describe_face, find_faces, scale_face
from photos import PhotoError, encode_data_url, read_photo
from PIL import Image

MAX_FACES = 20
WORKERS = os.cpu_count() or 1  # photos processed in parallel, one thread each


class Analyser:
    """Predictor of the attributes of all faces in a photo; it stores nothing of any photo."""

    def __init__(self, catalogue: Mapping[str, OfferedModel]) -> None:
        self.catalogue = catalogue
        # A fixed pool does all the work, so that the thread-local memory of torch and OpenCV does
        # not add up over Gradio's many threads.
        self._threads = ThreadPoolExecutor(WORKERS)
        self._detector = FaceDetector()

    def analyse(
        self, photo: bytes, keys: Sequence[str], known: Mapping[str, bool] | None = None
    ) -> dict[str, Any]:
        """Predict the attributes of all faces in a photo by one or several models.

        Known attributes are of all faces; names that a model does not have are ignored.

        Returns:
            `width` and `height` in pixels, `notes`, each a `code` and `values` for its text, and
            `faces` from left to right: `box`, `score`, `size`, `roll` and `warnings` (as in
            `AttributePredictor`), `crop`, the first model's input (a data URL), and `predictions`
            by model (`encode_prediction`).

        Raises:
            PhotoError: The photo cannot be read, shows no face, or a model is not offered.
        """
        return self._threads.submit(self._analyse, photo, keys, known or {}).result()

    def _analyse(
        self, photo: bytes, keys: Sequence[str], known: Mapping[str, bool]
    ) -> dict[str, Any]:
        models = [self.find_model(key) for key in keys]
        loaded, found = find_faces(self._detector, partial(read_photo, photo))
        width, height = loaded.size
        if not found:
            raise PhotoError("no_face")
        notes: list[dict[str, Any]] = []
        if loaded.animated:
            notes.append({"code": "animated", "values": {}})
        faces = keep_largest(found, MAX_FACES)
        if len(faces) < len(found):
            counts = {"found": len(found), "shown": len(faces)}
            notes.append({"code": "many_faces", "values": counts})
        entries: list[dict[str, Any]] = [
            {**describe_face(scale_face(face, loaded), width, height), "predictions": {}}
            for face in faces
        ]
        for number, model in enumerate(models):
            template, size = model.preprocessing.alignment_template, model.preprocessing.crop_size
            crops = np.stack([align_face(loaded.pixels, face, template, size) for face in faces])
            for index, encoded in enumerate(encode_prediction(model.predict(crops, known))):
                entries[index]["predictions"][model.key] = encoded
                if number == 0:
                    # Losslessly, so that predicting the crop again gives the same numbers.
                    crop = Image.fromarray(crops[index])
                    entries[index]["crop"] = encode_data_url(crop, "png", compress_level=1)
        return {"width": width, "height": height, "notes": notes, "faces": entries}

    def condition(self, crop: bytes, key: str, known: Mapping[str, bool]) -> dict[str, Any]:
        """Predict the attributes of a face, a crop of `analyse`, given that some are known."""
        return self._threads.submit(self._condition, crop, key, known).result()

    def _condition(self, crop: bytes, key: str, known: Mapping[str, bool]) -> dict[str, Any]:
        model = self.find_model(key)
        if any(not isinstance(value, bool) for value in known.values()):
            raise PhotoError("failed")  # our own page sends only true and false
        pixels = read_photo(crop).pixels
        size = model.preprocessing.crop_size
        if pixels.shape[:2] != (size, size):  # the crop of a model with another crop size
            pixels = model.preprocessing.crop(pixels)
        return encode_prediction(model.predict(pixels[None], known))[0]

    def find_model(self, key: str) -> OfferedModel:
        """Find a model by its key, empty for the default one; raise `PhotoError` if none."""
        try:
            return self.catalogue[key or next(iter(self.catalogue))]
        except (KeyError, TypeError) as error:
            raise PhotoError("no_model", names=", ".join(self.catalogue)) from error


def keep_largest(faces: Sequence[Face], limit: int) -> list[Face]:
    """Return the `limit` largest faces in their original order."""
    kept = sorted(faces, key=lambda face: -face.size)[:limit]
    return [face for face in faces if face in kept]


def encode_prediction(prediction: Prediction) -> list[dict[str, Any]]:
    """Convert a batch's prediction to JSON types.

    Returns:
        One dictionary per face: `probabilities`, 0 to 1, and `present`, the decisions, both in the
        order of the model's attributes, and `maps`: `rows`, `columns` and `data`, base64 of one
        byte per cell (255 is the attribute's maximum), attribute by attribute and row by row; None
        if the model has no maps.
    """
    maps = prediction.maps
    return [
        {
            "probabilities": [round(p, 4) for p in row.tolist()],
            "present": prediction.present[index].tolist(),
            "maps": None if maps is None else encode_maps(maps[index]),
        }
        for index, row in enumerate(prediction.probabilities)
    ]


def encode_maps(maps: np.ndarray) -> dict[str, Any]:
    """Encode maps (attributes, rows, columns) of 0 to 1 as `encode_prediction` describes."""
    data = np.round(maps * 255).astype(np.uint8).tobytes()
    rows, columns = maps.shape[1:]
    return {"rows": rows, "columns": columns, "data": base64.b64encode(data).decode()}
