"""Handler of Inference Endpoints: images in, probabilities of attributes out.

The endpoints' toolkit installs the repository's `requirements.txt`, imports this file and calls
`EndpointHandler(folder)(request)`. The package label2label need not be installed: the repository
carries the modules that read photos and find faces in `label2label/` beside this file. An installed
package takes precedence.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

sys.path.append(str(Path(__file__).resolve().parent))

from label2label.errors import UserError
from label2label.prediction.photos import read_photo

MAX_ITEMS = 128  # images per request
MAX_PIXELS = 200_000_000  # of all images of a request; `read_photo` limits each single image
MAX_FACES = 32  # per image
CHUNK = 32  # crops per forward pass
UNKNOWN = -100  # label of an unknown attribute


class EndpointHandler:
    """Predict the attributes of faces, with the interface of Inference Endpoints' toolkit.

    Images are decoded one at a time and only the model's input is kept, so that the largest image
    determines the memory that a request takes.

    Args:
        path: Folder of the model repository; this file's folder by default.
    """

    def __init__(self, path: str = "") -> None:
        folder = path or str(Path(__file__).resolve().parent)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
        model = AutoModelForImageClassification.from_pretrained(
            folder, trust_remote_code=True, dtype=torch.float32
        )
        self.model = model.eval().to(device)
        self.labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
        self._detector: Any = None

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        """Answer one request, in the format of the Hub's image-classification task.

        Args:
            data: `inputs`, an image or a list of at most `MAX_ITEMS` images: a PIL image (the
                toolkit passes bodies of type image/* so), its bytes, or their base64 text, with or
                without the prefix of a data URL. `parameters`, all optional: `top_k`, number of
                attributes to return; `function_to_apply`, `sigmoid` (default), `softmax` or `none`;
                `threshold`, minimum score to return, 0 to 1; `detect_faces`, whether to find the
                faces of a photo first; `known_labels`, `{attribute: true or false}`, which
                condition the other attributes (if the model's head is `label2label`).

        Returns:
            `[{"label": name, "score": probability}]`, highest first. With `detect_faces`, one
            dictionary per face, from left to right: `{"box": {"xmin", "ymin", "xmax", "ymax"},
            "score": the detector's, "labels": the list above}`. For a list of images, a list of
            these in the same order, with `{"error": reason}` for each image that cannot be read.

        Raises:
            ValueError: The request, or its only image, is invalid. The toolkit answers with status
                400 and the message, which is one line.
        """
        inputs = data.get("inputs") if isinstance(data, dict) else None
        if inputs is None:
            raise ValueError("the request has no `inputs`: an image, or its base64 text")
        options = _Options(data.get("parameters"), self.labels)
        items = inputs if isinstance(inputs, list) else [inputs]
        if len(items) > MAX_ITEMS:
            raise ValueError(f"the request has {len(items):,} images: send at most {MAX_ITEMS}")
        answers = self._answer(items, options)
        if isinstance(inputs, list):
            return answers
        if isinstance(answers[0], dict):
            raise ValueError(answers[0]["error"])
        return answers[0]

    def _answer(self, items: list[Any], options: _Options) -> list[Any]:
        """Answer each image, in order; run the model on full chunks of crops."""
        answers: list[Any] = [None] * len(items)
        waiting: list[tuple[Any, Any, torch.Tensor]] = []  # container, key, (3, height, width)
        left = MAX_PIXELS
        for index, item in enumerate(items):
            try:
                pixels = _read(item)
            except ValueError as error:
                answers[index] = {"error": str(error)}
                continue
            left -= pixels.shape[0] * pixels.shape[1]
            if left < 0:
                raise ValueError(
                    f"the images have more than {MAX_PIXELS // 10**6} megapixels in all: send "
                    "fewer or smaller ones"
                )
            if options.detect_faces:
                answers[index] = []
                for face, crop in self._find_faces(pixels):
                    answers[index].append(face)
                    waiting.append((face, "labels", self._prepare(crop, aligned=True)))
            else:
                waiting.append((answers, index, self._prepare(pixels)))
            while len(waiting) >= CHUNK:
                self._predict(waiting[:CHUNK], options)
                del waiting[:CHUNK]
        self._predict(waiting, options)
        return answers

    def _find_faces(self, pixels: np.ndarray) -> list[tuple[dict[str, Any], np.ndarray]]:
        """Find faces; return each with its crop, aligned to the model's template."""
        try:
            from label2label.faces.alignment import align_face
            from label2label.faces.detection import FaceDetector
        except ImportError as error:
            raise ValueError(f"this endpoint cannot find faces: {error}") from error
        self._detector = self._detector or FaceDetector()
        template, size = self.processor.alignment_template, self.processor.crop_size["height"]
        sides = ("xmin", "ymin", "xmax", "ymax")
        return [
            (
                {
                    "box": dict(zip(sides, (round(x) for x in face.box), strict=True)),
                    "score": float(face.score),
                    "labels": [],
                },
                align_face(pixels, face, template, size),
            )
            for face in self._detector(pixels)[:MAX_FACES]
        ]

    def _prepare(self, pixels: np.ndarray, aligned: bool = False) -> torch.Tensor:
        """Turn uint8 RGB (height, width, 3) into the model's input (3, crop, crop)."""
        as_it_is = {"do_resize": False, "do_center_crop": False} if aligned else {}
        # Crop long strips to their centre first: resized by the short side, they could be huge.
        side = 8 * min(pixels.shape[:2])
        top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
        image = Image.fromarray(pixels[top : top + side, left : left + side])
        return self.processor(image, return_tensors="pt", **as_it_is)["pixel_values"][0]

    def _predict(self, waiting: list[tuple[Any, Any, torch.Tensor]], options: _Options) -> None:
        """Run the model on one chunk of crops or less, and store the answers."""
        if not waiting:
            return
        inputs = {"pixel_values": torch.stack([crop for *_, crop in waiting])}
        if options.known_labels is not None:
            inputs["known_labels"] = torch.tensor([options.known_labels] * len(waiting))
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        with torch.inference_mode():
            logits = self.model(**inputs).logits.float().cpu()
        for (container, key, _), row in zip(waiting, logits, strict=True):
            container[key] = options.select(row)


class _Options:
    """Parameters of one request, validated.

    Args:
        parameters: As the request gave them; those from the URL's query are text.
        labels: The model's attributes.

    Raises:
        ValueError: A parameter is unknown or out of range.
    """

    def __init__(self, parameters: Any, labels: list[str]) -> None:
        if not isinstance(parameters, dict | None):
            raise ValueError("parameters must be an object of names and values")
        parameters = dict(parameters or {})
        self.labels = labels
        try:
            top_k = parameters.pop("top_k", None)
            self.top_k = len(labels) if top_k is None else int(top_k)
            self.threshold = float(parameters.pop("threshold", None) or 0)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"top_k and threshold must be numbers: {error}") from error
        if self.top_k < 1 or not 0 <= self.threshold <= 1:
            raise ValueError("top_k must be 1 or more, and threshold from 0 to 1")
        self.function = parameters.pop("function_to_apply", None) or "sigmoid"
        if self.function not in ("sigmoid", "softmax", "none"):
            raise ValueError("function_to_apply must be sigmoid, softmax or none")
        detect_faces = str(parameters.pop("detect_faces", None) or False).lower()
        if detect_faces not in ("true", "false", "1", "0"):
            raise ValueError("detect_faces must be true or false")
        self.detect_faces = detect_faces in ("true", "1")
        known = parameters.pop("known_labels", None)
        self.known_labels = None if known is None else self._known_labels(known)
        if parameters:
            raise ValueError(f"unknown parameter {sorted(map(str, parameters))[0]!r}")

    def _known_labels(self, known: Any) -> list[int]:
        if not isinstance(known, dict):
            raise ValueError("known_labels must be an object: attributes, each true or false")
        if unknown := sorted(set(known) - set(self.labels)):
            raise ValueError(f"the model has no attribute {unknown[0]!r}")
        if not all(isinstance(value, bool) for value in known.values()):
            raise ValueError("the values of known_labels must be true or false")
        return [int(known[label]) if label in known else UNKNOWN for label in self.labels]

    def select(self, logits: torch.Tensor) -> list[dict[str, Any]]:
        """Return labels and scores of one image's logits (attributes,), highest score first."""
        if self.function == "sigmoid":
            logits = logits.sigmoid()
        elif self.function == "softmax":
            logits = logits.softmax(0)
        scores = logits.tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[: self.top_k]
        return [
            {"label": self.labels[i], "score": scores[i]}
            for i in order
            if self.threshold == 0 or scores[i] >= self.threshold
        ]


def _read(item: Any) -> np.ndarray:
    """Read an image as upright uint8 RGB (height, width, 3)."""
    if isinstance(item, str):
        item = _decode_base64(item)
    try:
        if isinstance(item, bytes | bytearray | Image.Image):
            return read_photo(item)
    except UserError as error:
        raise ValueError(str(error)) from error
    raise ValueError("give an image as its bytes or their base64 text")


def _decode_base64(text: str) -> bytes:
    head, comma, body = text.partition(",")
    if text[:8].lower().startswith(("http://", "https://")):
        raise ValueError("URLs are not fetched: give an image as its bytes or their base64 text")
    try:
        if comma and not head.startswith("data:"):
            raise ValueError("a comma without the prefix of a data URL")
        return base64.b64decode("".join((body if comma else text).split()), validate=True)
    except ValueError as error:
        raise ValueError("the text is not base64") from error
