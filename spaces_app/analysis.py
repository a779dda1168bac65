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

MAX_FACES = 20
WORKERS = os.cpu_count() or 1  # photos looked at in parallel, with one thread each


class Analyser:
    """Finds the faces of photos and asks models about them; it keeps nothing of any photo.

    Args:
        catalogue: the models that are offered, by key.
    """

    def __init__(self, catalogue: Mapping[str, OfferedModel]) -> None:
        self.catalogue = catalogue
        # The same few threads do all the work, so that what torch and OpenCV keep by thread does
        # not add up over the many threads that Gradio answers from.
        self._threads = ThreadPoolExecutor(WORKERS)
        self._detector = FaceDetector()

    def analyse(
        self, photo: bytes, keys: Sequence[str], known: Mapping[str, bool] | None = None
    ) -> dict[str, Any]:
        """Attributes of every face of a photo, by one or several models.

        Args:
            photo: an image file's bytes.
            keys: of the models asked.
            known: attributes that are known of every face; names that a model does not have are
                left out.

        Returns:
            `width` and `height` in pixels, `notes`, each a `code` and `values` for its text, and
            `faces` from left to right: `box`, `score`, `size`, `roll` and `warnings` (as
            `AttributePredictor` tells them), `crop` as the first model sees it (a data URL), and
            `predictions` by model (`encode_prediction`).

        Raises:
            PhotoError: the photo cannot be read, shows no face, or a model is not offered.
        """
        return self._threads.submit(self._analyse, photo, keys, known or {}).result()

    def _analyse(
        self, photo: bytes, keys: Sequence[str], known: Mapping[str, bool]
    ) -> dict[str, Any]:
        models = [self.find_model(key) for key in keys]
        loaded, found = find_faces(self._detector, partial(read_photo, photo))
        width, height = loaded.size
        notes: list[dict[str, Any]] = (
            [{"code": "animated", "values": {}}] if loaded.animated else []
        )
        if not found:
            raise PhotoError("no_face")
        faces = keep_largest(found, MAX_FACES)
        if len(faces) < len(found):
            counts = {"found": len(found), "shown": len(faces)}
            notes.append({"code": "many_faces", "values": counts})
        entries: list[dict[str, Any]] = [
            {**describe_face(scale_face(face, loaded), width, height), "predictions": {}}
            for face in faces
        ]
        for number, model in enumerate(models):
            crops = np.stack([cut(loaded.pixels, face, model) for face in faces])
            for index, encoded in enumerate(encode_prediction(model.predict(crops, known))):
                entries[index]["predictions"][model.key] = encoded
                if number == 0:
                    entries[index]["crop"] = encode_data_url(crops[index])
        return {"width": width, "height": height, "notes": notes, "faces": entries}

    def condition(self, crop: bytes, key: str, known: Mapping[str, bool]) -> dict[str, Any]:
        """Attributes of one face where some of them are known.

        Args:
            crop: the face as `analyse` returned it, an image file's bytes.
            key: of the model asked.
            known: value by attribute; names that the model does not have are left out.

        Returns:
            One face's prediction (`encode_prediction`).

        Raises:
            PhotoError: the crop cannot be read, or the model is not offered.
        """
        return self._threads.submit(self._condition, crop, key, known).result()

    def _condition(self, crop: bytes, key: str, known: Mapping[str, bool]) -> dict[str, Any]:
        model = self.find_model(key)
        if any(not isinstance(value, bool) for value in known.values()):
            raise PhotoError("failed")  # no page of ours sends anything else
        pixels = read_photo(crop).pixels
        size = model.preprocessing.crop_size
        if pixels.shape[:2] != (size, size):  # that of a model with another crop
            pixels = model.preprocessing.crop(pixels)
        return encode_prediction(model.predict(pixels[None], known))[0]

    def find_model(self, key: str) -> OfferedModel:
        """The model of a key.

        Args:
            key: as `load_catalogue` names them; empty for the first, the one that ships.

        Returns:
            The model.

        Raises:
            PhotoError: it is not offered.
        """
        try:
            return self.catalogue[key or next(iter(self.catalogue))]
        except (KeyError, TypeError) as error:
            raise PhotoError("no_model", names=", ".join(self.catalogue)) from error


def keep_largest(faces: Sequence[Face], limit: int) -> list[Face]:
    """The largest faces, in the order given.

    Args:
        faces: of a photo.
        limit: how many to keep.

    Returns:
        At most so many.
    """

    kept = {id(face) for face in sorted(faces, key=lambda face: -face.size)[:limit]}
    return [face for face in faces if id(face) in kept]


def cut(pixels: np.ndarray, face: Face, model: OfferedModel) -> np.ndarray:
    """One face as a model sees it: uint8 RGB (crop_size, crop_size, 3)."""
    asked = model.preprocessing
    return align_face(pixels, face, asked.alignment_template, asked.crop_size)


def encode_prediction(prediction: Prediction) -> list[dict[str, Any]]:
    """A batch's prediction as JSON can hold it.

    Args:
        prediction: of a batch of faces.

    Returns:
        One dictionary a face: `probabilities`, 0 to 1, and `present`, the decisions, each in the
        order of the model's attributes, and `maps`: `rows`, `columns` and `data`, base64 of one
        byte a cell (255 is the strongest place of its attribute), attribute by attribute and row by
        row; None where the model has none.
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
    """Maps (attributes, rows, columns) of 0..1 as `encode_prediction` describes them."""
    data = np.round(maps * 255).astype(np.uint8).tobytes()
    rows, columns = maps.shape[1:]
    return {"rows": rows, "columns": columns, "data": base64.b64encode(data).decode()}
