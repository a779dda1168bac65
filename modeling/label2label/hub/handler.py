"""What Inference Endpoints serve: an image in, attributes and their probabilities out.

Their toolkit installs the repository's `requirements.txt`, imports this file and calls
`EndpointHandler(folder)(request)`. It runs from a checkout of a model repository alone: the package
label2label need not be installed, since `label2label/` beside this file is the part of it that
reads photos and finds faces (where the package is installed, Python takes that one).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import http.client
import io
import ipaddress
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

sys.path.append(str(Path(__file__).resolve().parent))

MAX_BYTES = 20_000_000  # of an image that is fetched
MAX_PIXELS = 50_000_000
MAX_FACES = 32
TIMEOUT = 10.0  # seconds, to fetch an image, redirects included
REDIRECTS = 3
UNQUOTED = "!#$%&'()*+,/:;=?@[]~"  # what an address is made of, and what is quoted already
UNKNOWN = -100  # a label that is not known

# IPv6 addresses that carry an IPv4 one, to which a gateway may pass on: IPv4-compatible and -mapped
# ones, NAT64, Teredo and 6to4.
_CARRIERS = [
    ipaddress.ip_network(network)
    for network in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "2001::/32", "2002::/16")
]


class EndpointHandler:
    """Tells the attributes of faces; the interface is that of Inference Endpoints' toolkit.

    Args:
        path: folder of the model repository.
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
        """Answer one request.

        Args:
            data: `inputs`, an image, or a list of images: a PIL image (as the toolkit passes a body
                of type image/*), its bytes, their base64 text (with or without a data URL's head)
                or an http(s) address. `parameters`, all optional: `top_k`, how many attributes to
                tell; `threshold`, least score to tell, 0 to 1; `detect_faces`, to find the faces of
                a photo first; `known_labels`, `{attribute: true or false}` that the caller knows
                and that condition the others (where the model's head is `label2label`).

        Returns:
            `[{"label": name, "score": probability}]`, highest first. With `detect_faces` one
            dictionary a face, from left to right: `{"box": {"xmin", "ymin", "xmax", "ymax"},
            "score": the detector's, "labels": the list above}`. For a list of images, a list of
            these.

        Raises:
            ValueError: one line for whoever called, which the toolkit answers with status 400.
        """
        if "inputs" not in data:
            raise ValueError("the request has no `inputs`: an image, its base64 text or its URL")
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ValueError("parameters is an object, of names and values")
        options = _Options(dict(parameters), self.labels)
        inputs = data["inputs"]
        images = [_read_image(item) for item in (inputs if isinstance(inputs, list) else [inputs])]
        answer = self._with_faces if options.detect_faces else self._whole_images
        results = answer(images, options) if images else []
        return results if isinstance(inputs, list) else results[0]

    def _whole_images(self, images: list[Image.Image], options: _Options) -> list[Any]:
        """Each image as one face's crop."""
        return [options.select(scores) for scores in self._predict(images, options.known_labels)]

    def _with_faces(self, images: list[Image.Image], options: _Options) -> list[Any]:
        """Every face of each image, aligned to the model's crop."""
        try:
            from label2label.faces.alignment import align_face
            from label2label.faces.detection import FaceDetector
        except ImportError as error:
            raise ValueError(f"this endpoint cannot find faces: {error}") from error
        self._detector = self._detector or FaceDetector()
        template, size = self.processor.alignment_template, self.processor.crop_size["height"]
        results = []
        for image in images:
            pixels = np.asarray(image)
            faces = self._detector(pixels)[:MAX_FACES]
            crops = [Image.fromarray(align_face(pixels, face, template, size)) for face in faces]
            scores = np.empty((0, 0))
            if crops:
                scores = self._predict(crops, options.known_labels, aligned=True)
            results.append(
                [
                    {
                        "box": dict(
                            zip(
                                ("xmin", "ymin", "xmax", "ymax"),
                                [round(x) for x in face.box],
                                strict=True,
                            )
                        ),
                        "score": face.score,
                        "labels": options.select(values),
                    }
                    for face, values in zip(faces, scores, strict=True)
                ]
            )
        return results

    def _predict(
        self, images: list[Image.Image], known_labels: list[int] | None, aligned: bool = False
    ) -> np.ndarray:
        """Probabilities (images, attributes) of images, or of faces aligned to the model's crop."""
        as_it_is = {"do_resize": False, "do_center_crop": False} if aligned else {}
        inputs = self.processor(images, return_tensors="pt", **as_it_is).to(self.model.device)
        if known_labels is not None:
            known = torch.tensor([known_labels] * len(images), device=self.model.device)
            inputs["known_labels"] = known
        with torch.inference_mode():
            return self.model(**inputs).logits.float().sigmoid().cpu().numpy()


class _Options:
    """The parameters of one request, checked.

    Args:
        parameters: as the request gave them; text where they came from the address.
        labels: the model's attributes.

    Raises:
        ValueError: one is unknown or out of its range.
    """

    def __init__(self, parameters: dict[str, Any], labels: list[str]) -> None:
        self.labels = labels
        try:
            top_k = parameters.pop("top_k", None)
            self.top_k = len(labels) if top_k is None else int(top_k)
            self.threshold = float(parameters.pop("threshold", 0.0))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"top_k and threshold are numbers: {error}") from error
        if self.top_k < 1 or not 0 <= self.threshold <= 1:
            raise ValueError("top_k is 1 or more, and threshold from 0 to 1")
        detect_faces = str(parameters.pop("detect_faces", False)).lower()
        if detect_faces not in ("true", "false", "1", "0"):
            raise ValueError("detect_faces is true or false")
        self.detect_faces = detect_faces in ("true", "1")
        known = parameters.pop("known_labels", None)
        self.known_labels = None if known is None else self._known_labels(known)
        if parameters:
            raise ValueError(f"unknown parameter {sorted(parameters)[0]!r}")

    def _known_labels(self, known: Any) -> list[int]:
        if not isinstance(known, dict):
            raise ValueError("known_labels is an object of attributes, true or false each")
        unknown = sorted(set(known) - set(self.labels))
        if unknown:
            raise ValueError(f"the model has no attribute {unknown[0]!r}")
        if not all(isinstance(value, bool) for value in known.values()):
            raise ValueError("the values of known_labels are true or false")
        return [int(known[label]) if label in known else UNKNOWN for label in self.labels]

    def select(self, scores: np.ndarray) -> list[dict[str, Any]]:
        """Labels and scores to tell, highest first."""
        order = np.argsort(-scores, kind="stable")[: self.top_k]
        return [
            {"label": self.labels[i], "score": float(scores[i])}
            for i in order
            if scores[i] >= self.threshold
        ]


def _read_image(value: Any) -> Image.Image:
    """An image of any kind that a request can hold, as upright 8-bit RGB."""
    from label2label.errors import UserError
    from label2label.prediction.photos import IMAGE_FORMATS, convert_to_rgb

    if isinstance(value, str):
        is_address = value.lower().startswith(("http://", "https://"))
        try:
            value = _fetch(value) if is_address else _decode_base64(value)
        except UnicodeError as error:
            raise ValueError("the image's address is no URL") from error
    try:
        if isinstance(value, bytes | bytearray):
            Image.init()
            formats = [name for name in IMAGE_FORMATS if name in Image.OPEN]
            value = Image.open(io.BytesIO(value), formats=formats)
        if not isinstance(value, Image.Image):
            raise ValueError("an image is its bytes, their base64 text or an http(s) address")
        if value.width * value.height > MAX_PIXELS:
            raise ValueError(f"the image has more than {MAX_PIXELS // 10**6} megapixels")
        return Image.fromarray(convert_to_rgb(value))
    except (UserError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    except (OSError, SyntaxError, EOFError) as error:  # what Pillow raises on damaged files
        raise ValueError("the image cannot be read: it is damaged, or no image") from error


def _decode_base64(text: str) -> bytes:
    head, comma, body = text.partition(",")
    if comma and not head.startswith("data:"):
        raise ValueError("the text is neither base64 nor an http(s) address")
    try:
        return base64.b64decode("".join((body if comma else text).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the text is neither base64 nor an http(s) address") from error


def _seconds_left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


class _TimedReader(io.RawIOBase):
    """What a socket receives until a deadline, which a server that drips bytes cannot put off."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_seconds_left(self._deadline))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose head and body are read until a deadline."""

    def __init__(self, sock: socket.socket, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock, deadline))


class _Connection(http.client.HTTPConnection):
    """A connection to addresses that were checked, whatever the host's name leads to by now.

    Args:
        host: its name, for the request's head and for TLS.
        port: of the address; that of the scheme by default.
        secure: whether to speak TLS.
        addresses: IP addresses of the host, the first of which that answers is taken.
        deadline: by which the answer must be read, in seconds of `time.monotonic`.
    """

    def __init__(
        self, host: str, port: int | None, secure: bool, addresses: list[str], deadline: float
    ) -> None:
        self.default_port = 443 if secure else 80
        super().__init__(host, port or self.default_port)
        self._secure, self._addresses, self._deadline = secure, addresses, deadline
        self.response_class = functools.partial(  # type: ignore[assignment]
            _Response, deadline=deadline
        )

    def connect(self) -> None:
        """Open the socket; no name is resolved."""
        for address in self._addresses:
            try:
                seconds = _seconds_left(self._deadline)
                self.sock = socket.create_connection((address, self.port), seconds)
                break
            except OSError as error:
                failed = error
        else:
            raise failed
        if self._secure:
            context = ssl.create_default_context()
            self.sock.settimeout(_seconds_left(self._deadline))
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def _fetch(url: str) -> bytes:
    """Bytes behind an address that is public, as are those that it redirects to."""
    deadline = time.monotonic() + TIMEOUT
    for _ in range(REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address of an image starts with http:// or https://")
        # No proxy: behind one, the addresses that are checked would not be those that are asked.
        addresses = _public_addresses(parts.hostname)
        is_secure = parts.scheme == "https"
        connection = _Connection(parts.hostname, parts.port, is_secure, addresses, deadline)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        target = quote(target, safe=UNQUOTED)
        try:
            with contextlib.closing(connection):
                connection.request("GET", target, headers={"User-Agent": "label2label"})
                response = connection.getresponse()
                status, location = response.status, response.headers.get("Location")
                is_answer = 200 <= status < 300
                body = response.read(MAX_BYTES + 1) if is_answer else b""
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"the image's address cannot be reached: {error}") from error
        if status in (301, 302, 303, 307, 308) and location:
            # Its bytes, as which some servers send UTF-8 and http.client reads Latin-1.
            url = urljoin(url, quote(location.encode("latin-1"), safe=UNQUOTED))
            continue
        if not is_answer:
            raise ValueError(f"the image's address answers with status {status}")
        if len(body) > MAX_BYTES:
            raise ValueError(f"the image is larger than {MAX_BYTES // 10**6} MB")
        return body
    raise ValueError("the image's address redirects too often")


def _public_addresses(host: str) -> list[str]:
    """A host's IP addresses; they are refused where one of them is not public.

    This keeps callers from reading, through the endpoint, what only its own network can reach.
    """
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    except OSError as error:
        raise ValueError(f"the image's host {host} cannot be found") from error
    if not all(_is_public(address.partition("%")[0]) for address in found):
        raise ValueError(f"the image's host {host} is not on the public network")
    return list(dict.fromkeys(found))


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return ip.is_global and not any(ip in network for network in _CARRIERS)
