"""Find faces in a photo by YuNet, or by OpenCV's Haar cascade if YuNet's file is missing."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from label2label.errors import UserError, join_lines
from label2label.faces.alignment import warp_photo
from label2label.faces.face import Face

DETECTOR_VARIABLE = "LABEL2LABEL_FACE_DETECTOR"
DETECTOR_REPOSITORY = "opencv/face_detection_yunet"
DETECTOR_FILE = "face_detection_yunet_2026may.onnx"
# Of the file that results were measured with: the Hub's branch may change.
DETECTOR_SHA256 = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
HUB_TIMEOUT = 3.0  # seconds

SCORE_THRESHOLD = 0.7  # minimum confidence of a face
HINT = 0.5  # minimum confidence of a candidate for a second, closer look
NMS_THRESHOLD = 0.3  # intersection over union of two boxes
SAME_FACE_OVERLAP = 0.5  # intersection over the smaller box's area

# The whole photo is searched on canvases whose mean side (square root of the area, in pixels)
# doubles from FIRST_SIDE on, until no small face is found.
FIRST_SIDE, ENOUGH_SIDE, TURNED_SIDE = 160, 1280, 320
REDUCED_SIDE = 640  # canvases up to this side are resized from one reduced copy
TILE_SIDE, TILE_OVERLAP = 1792, 96  # larger canvases are searched in tiles, to bound memory
LEAST_PART = 5.5  # a photo is searched at least at this reduction of its sides
SMALL_FACE = 24  # pixels on a canvas; with a smaller face, a larger canvas is searched too
SMALL_HINT = 0.3  # minimum confidence of a possible small face

# YuNet's landmarks underestimate the roll of small faces: for 15 degrees they give 5 at 80 pixels
# and 13 at 180. So every face is detected again, enlarged and rotated upright.
CLOSE_SIDE, CLOSE_FACE = 288, 200
STEADY_ROLLS = (12.0, 6.0)  # degrees; a larger residual roll is refined, at most twice

# Upside down, 1 face in 250 scores above SURE; upright, 199 in 200 of LFW's do, and 3 in 4 of
# FairFace's tight crops. With a FAIR upright face, the rotated photo is not searched.
SURE, FAIR = 0.92, 0.88
TURNED_ROLL = 60.0  # degrees; a larger roll must score higher than the upright view
TURNED_SURE, TURNED_LEAD, FAINT = 0.9, 0.08, 0.75

STRIDES = (8, 16, 32)  # pixels between the cells of YuNet's three grids


class FaceDetector:
    """Face detector for any size and roll, from a thumbnail filled by one face to a crowd.

    It uses YuNet (see `find_detector_file`). If YuNet's file is unavailable, it warns once and uses
    OpenCV's Haar cascade, which finds only upright frontal faces and no landmarks. Threads can
    share a detector. Its `name` is `"yunet"` or `"haar"`.

    Raises:
        UserError: The file in the environment variable is missing or not a YuNet model.
    """

    def __init__(self) -> None:
        path = find_detector_file()
        if path is None:
            warnings.warn(
                f"cannot get {DETECTOR_FILE} from the Hub ({DETECTOR_REPOSITORY}): faces are found "
                f"by OpenCV's Haar cascade, which misses more of them; set {DETECTOR_VARIABLE} to "
                "the file's path",
                stacklevel=2,
            )
            self.name = "haar"
            self._find: Callable[[np.ndarray], list[Face]] = Cascade()
        else:
            self.name = "yunet"
            self._yunet = YuNet(path)
            self._find = self._find_by_yunet

    def __call__(self, photo: np.ndarray) -> list[Face]:
        """Find the faces of one photo.

        Args:
            photo: RGB image (height, width, 3), uint8, 0 to 255.

        Returns:
            The faces from left to right, possibly none.
        """
        return sorted(keep_distinct_faces(self._find(photo)), key=lambda face: face.box[0])

    def _find_by_yunet(self, photo: np.ndarray) -> list[Face]:
        """Return the faces of a photo, possibly with duplicates."""
        scale = REDUCED_SIDE / math.sqrt(photo.shape[0] * photo.shape[1])
        reduced = resize_by(photo, scale) if scale < 0.5 else photo
        upright = self._look(photo, reduced, ENOUGH_SIDE)
        found = self._look_closely(photo, upright)
        if any(face.score >= FAIR and abs(face.roll) < TURNED_ROLL for face in found):
            return found
        # No confident upright face: the photo itself may be rotated.
        hints: list[Face] = []
        for turns in (1, 2, 3):
            hints += self._look(photo, reduced, TURNED_SIDE, turns)
        found += self._look_closely(photo, hints)
        # The close-ups miss profiles that fill the photo.
        return found or [face for face in upright if face.score >= SCORE_THRESHOLD]

    def _look(
        self, photo: np.ndarray, reduced: np.ndarray, enough: int, turns: int = 0
    ) -> list[Face]:
        """Return candidate faces in the whole photo, from canvases of increasing size."""
        mean_side = math.sqrt(photo.shape[0] * photo.shape[1])
        # So faces of 60 pixels in a photo of 48 megapixels are found beside larger ones too.
        least = 0 if turns else min(ENOUGH_SIDE, mean_side / LEAST_PART)
        found: list[Face] = []
        side, scale = FIRST_SIDE, 0.0
        while True:
            before, scale = scale, side / mean_side
            scale = scale if side == FIRST_SIDE else min(1.0, scale)
            if scale <= before:
                return found
            source = reduced if side <= REDUCED_SIDE else photo
            faces = self._look_at(photo, source, scale, turns)
            found += [face for face in faces if face.score >= HINT]
            sure = any(face.score >= FAIR for face in found)
            small = any(face.size * scale < SMALL_FACE for face in faces)
            if not small and (sure or side >= enough) and side >= least:
                return found
            side *= 2

    def _look_at(
        self, photo: np.ndarray, source: np.ndarray, scale: float, turns: int
    ) -> list[Face]:
        """Run YuNet on the photo, scaled and rotated by quarter turns; return photo coordinates.

        A larger canvas is never in memory as a whole: its tiles overlap by more than the faces that
        smaller canvases missed.
        """
        to_photo = np.array(photo.shape[1::-1]) / source.shape[1::-1]
        zoom = scale * to_photo[0]
        faces = []
        for rows, columns in itertools.product(
            *(split_side(side, TILE_SIDE / zoom, TILE_OVERLAP / zoom) for side in source.shape[:2])
        ):
            tile = source[rows, columns]
            canvas = resize_by(tile, zoom)
            height, width = canvas.shape[:2]
            to_source = np.array(tile.shape[1::-1]) / [width, height]
            canvas = np.ascontiguousarray(np.rot90(canvas, turns))
            for corners, score, landmarks in self._yunet(canvas, SMALL_HINT):
                points = np.vstack([corners, landmarks])
                for turn in range(turns, 0, -1):
                    # The right edge before a turn is the top edge after it.
                    edge = (width, height)[(turn - 1) % 2]
                    points = np.column_stack([edge - points[:, 1], points[:, 0]])
                points = (points * to_source + [columns.start, rows.start]) * to_photo
                faces += clip_face(np.sort(points[:2], axis=0), score, points[2:], photo)
        return faces

    def _look_closely(self, photo: np.ndarray, hints: list[Face]) -> list[Face]:
        """Return the candidates that are faces, with exact landmarks."""
        faces: list[Face] = []
        for hint in keep_distinct_faces(hints):
            # With a confident upright face in the photo, doubtful candidates are not rotated.
            turn = not any(face.score >= SURE and abs(face.roll) < TURNED_ROLL for face in faces)
            face = self._look_closely_at(photo, hint, turn)
            if face and face.score >= SCORE_THRESHOLD:
                faces.append(face)
        return faces

    def _look_closely_at(self, photo: np.ndarray, hint: Face, turn: bool) -> Face | None:
        """Return a candidate's face, from an upright close-up large enough for exact landmarks."""
        views, quarter = [self._see(photo, hint, hint.roll)], 90 * round(hint.roll / 90)
        doubtful = views[0] is None or views[0].score < SCORE_THRESHOLD
        for degrees in (180, 90, -90) if turn or not doubtful else ():
            if any(face and face.score >= SURE for face in views):
                break
            views.append(self._see(photo, hint, quarter + degrees))
        faces = sorted(filter(None, views), key=lambda face: -face.score)
        upright = next((face for face in faces if abs(face.roll) < TURNED_ROLL), None)
        if not faces or faces[0] is upright:
            return upright
        # YuNet finds profiles upside down too, but with lower scores than inverted faces.
        score = upright.score if upright else 0.0
        sure = faces[0].score >= TURNED_SURE
        return faces[0] if sure or faces[0].score >= max(score, FAINT) + TURNED_LEAD else upright

    def _see(self, photo: np.ndarray, hint: Face, roll: float) -> Face | None:
        """Return a candidate's face, after rotation by its roll, and refine the roll."""
        face = self._see_turned(photo, hint, roll)
        for steady in STEADY_ROLLS:
            if face is None or abs((roll - face.roll + 180) % 360 - 180) <= steady:
                break
            roll = face.roll
            face = self._see_turned(photo, face, roll) or face
        return face

    def _see_turned(self, photo: np.ndarray, hint: Face, roll: float) -> Face | None:
        """Return a candidate's face, after rotation by a roll in degrees."""
        scale = CLOSE_FACE / hint.size
        sine, cosine = math.sin(math.radians(roll)), math.cos(math.radians(roll))
        linear = scale * np.array([[cosine, sine], [-sine, cosine]])
        middle = np.full(2, CLOSE_SIDE / 2)
        transform = np.column_stack([linear, middle - linear @ hint.centre])
        canvas = warp_photo(photo, transform, CLOSE_SIDE, cv2.BORDER_CONSTANT)
        back = np.linalg.inv(linear)
        for corners, score, landmarks in self._yunet(canvas, SMALL_HINT):
            offset, size = corners.mean(axis=0) - middle, corners[1] - corners[0]
            if np.abs(offset).max() > CLOSE_FACE / 3 or not 0.5 < size.mean() / CLOSE_FACE < 2:
                continue  # another face, beside the candidate
            # Bounding box of the ellipse inscribed in the rotated box.
            half = np.hypot(*(back * (size / 2)).T)
            centre = back @ offset + hint.centre
            landmarks = (landmarks - middle) @ back.T + hint.centre
            box = np.array([centre - half, centre + half])
            return next(iter(clip_face(box, score, landmarks, photo)), None)
        return None


class YuNet:
    """YuNet (Wu et al., "YuNet: A tiny millisecond-level face detector", 2023) in ONNX Runtime.

    Args:
        path: YuNet's ONNX file.

    Raises:
        UserError: The file is not a YuNet model.
    """

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._outputs = [f"{kind}_{s}" for s in STRIDES for kind in ("cls", "obj", "bbox", "kps")]
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            self._run(np.zeros((32, 32, 3), np.uint8))
        except Exception as error:  # ONNX Runtime's own exceptions share no public base
            raise UserError(
                f"{path} is not a YuNet model that ONNX Runtime can run ({join_lines(error)}): "
                f"set {DETECTOR_VARIABLE} to an intact {DETECTOR_FILE}"
            ) from error

    def __call__(
        self, canvas: np.ndarray, threshold: float
    ) -> list[tuple[np.ndarray, float, np.ndarray]]:
        """Find upright faces of 10 to 300 pixels.

        Args:
            canvas: RGB image (height, width, 3), uint8, 0 to 255.
            threshold: Minimum score, 0 to 1.

        Returns:
            Corners (2, 2) of the box, score and landmarks (5, 2) of each face, best first.
        """
        height, width = (side + -side % STRIDES[-1] for side in canvas.shape[:2])
        below, beside = height - canvas.shape[0], width - canvas.shape[1]
        if below or beside:
            canvas = cv2.copyMakeBorder(canvas, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        found, outputs = [], self._run(canvas)
        for i, stride in enumerate(STRIDES):
            cls, obj, bbox, kps = (output[0] for output in outputs[4 * i : 4 * i + 4])
            score = np.sqrt(cls[:, 0].clip(0, 1) * obj[:, 0].clip(0, 1))
            (cells,) = np.nonzero(score >= threshold)
            if len(cells):
                corner = np.stack([cells % (width // stride), cells // (width // stride)], axis=1)
                centre = (corner + bbox[cells, :2]) * stride
                half = np.exp(bbox[cells, 2:]) * (stride / 2)
                points = (corner[:, None] + kps[cells].reshape(-1, 5, 2)) * stride
                found.append(
                    (np.stack([centre - half, centre + half], axis=1), score[cells], points)
                )
        if not found:
            return []
        boxes, scores, landmarks = map(np.concatenate, zip(*found, strict=True))
        rectangles = np.hstack([boxes[:, 0], boxes[:, 1] - boxes[:, 0]])
        kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, NMS_THRESHOLD)
        return [(boxes[i], float(scores[i]), landmarks[i]) for i in kept]

    def _run(self, canvas: np.ndarray) -> list[np.ndarray]:
        pixels = np.stack(cv2.split(canvas)[::-1])[None].astype(np.float32)  # BGR, 0 to 255
        return self._session.run(self._outputs, {"input": pixels})


class Cascade:
    """OpenCV's Haar cascade, on the photo at the sizes of a close-up and of a group."""

    def __init__(self) -> None:
        self._path = str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml")
        self._local = threading.local()  # a cascade has state: one per thread

    def __call__(self, photo: np.ndarray) -> list[Face]:
        """Return faces without landmarks, possibly with duplicates."""
        if not hasattr(self._local, "cascade"):
            self._local.cascade = cv2.CascadeClassifier(self._path)
        gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
        height, width = gray.shape
        faces = []
        for side, margin in ((480, 120), (1280, 0)):
            scale = side / max(width, height)
            if scale >= 1 and side > 480:
                continue
            columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
            interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            canvas = cv2.resize(gray, (columns, rows), interpolation=interpolation)
            canvas = cv2.copyMakeBorder(canvas, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
            boxes, _, weights = self._local.cascade.detectMultiScale3(
                canvas, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24), outputRejectLevels=True
            )
            for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True):
                corners = np.array([[x, y], [x + w, y + h]]) - margin
                corners = corners * [width / columns, height / rows]
                # The last stage's sum is unbounded; the logistic function maps it to a confidence.
                faces += clip_face(corners, float(1 / (1 + np.exp(-weight))), None, photo)
        return faces


def clip_face(
    corners: np.ndarray, score: float, landmarks: np.ndarray | None, photo: np.ndarray
) -> list[Face]:
    """Return the face of a box (2, 2) clipped to the photo, or no face if it lies outside."""
    (x0, y0), (x1, y1) = corners.clip(0, photo.shape[1::-1]).tolist()
    return [Face((x0, y0, x1, y1), score, landmarks)] if x1 > x0 and y1 > y0 else []


def resize_by(photo: np.ndarray, scale: float) -> np.ndarray:
    """Resize a photo by a factor, to at least one pixel, without aliasing."""
    height, width = photo.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return photo
    return cv2.resize(
        photo, size, interpolation=cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    )


def split_side(side: int, most: float, overlap: float) -> list[slice]:
    """Split a photo's side into equal overlapping parts, each of at most `most` pixels."""
    count = max(1, math.ceil((side - overlap) / (most - overlap)))
    step = (side - overlap) / count
    return [
        slice(round(i * step), min(side, math.ceil((i + 1) * step + overlap))) for i in range(count)
    ]


def keep_distinct_faces(faces: list[Face]) -> list[Face]:
    """Keep the face with the highest score among overlapping ones; return them best first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(overlap_of(face.box, other.box) <= SAME_FACE_OVERLAP for other in kept):
            kept.append(face)
    return kept


def overlap_of(
    box: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> float:
    """Return the intersection of two boxes (x0, y0, x1, y1) over the smaller area, 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return max(width, 0.0) * max(height, 0.0) / min(areas)


def find_detector_file() -> str | None:
    """Find YuNet's ONNX file: in the environment variable, the Hub's cache or the Hub.

    Returns:
        The path, or None if the file is not cached and the Hub cannot be reached.

    Raises:
        UserError: The file in the environment variable does not exist.
    """
    given = os.environ.get(DETECTOR_VARIABLE)
    if given:
        if not Path(given).is_file():
            raise UserError(
                f"{DETECTOR_VARIABLE} names {given}, which is not a file: "
                f"give the path of {DETECTOR_FILE} or unset it"
            )
        return given
    cached = find_cached_detector()
    if cached:
        return cached
    # On any failure (no network, a proxy's login page, a full disk) the cascade is used. One
    # request goes first, as hf_hub_download retries for 23 s when offline.
    try:
        from huggingface_hub import get_session, hf_hub_download, hf_hub_url

        get_session().head(hf_hub_url(DETECTOR_REPOSITORY, DETECTOR_FILE), timeout=HUB_TIMEOUT)
        path = hf_hub_download(DETECTOR_REPOSITORY, DETECTOR_FILE, etag_timeout=HUB_TIMEOUT)
    except Exception:
        return None
    return path if is_detector_file(path) else None


def find_cached_detector() -> str | None:
    """Return the path of YuNet's file in the Hub's cache, or None.

    The Hub's client is not used: its import takes longer than predicting the first photo.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, "models--" + DETECTOR_REPOSITORY.replace("/", "--"))
    files = map(str, folder.glob(f"snapshots/*/{DETECTOR_FILE}"))
    return next(filter(is_detector_file, files), None)


def is_detector_file(path: str) -> bool:
    """Return whether a file is the pinned YuNet, byte for byte."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == DETECTOR_SHA256
