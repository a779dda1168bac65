"""Find faces in a photo by YuNet, or by OpenCV's Haar cascade if YuNet's file is missing."""

from __future__ import annotations

import hashlib
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
# Pinned, so that results do not change when the Hub's branch does.
DETECTOR_REVISION = "main"
DETECTOR_SHA256 = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
HUB_TIMEOUT = 3.0  # seconds

SCORE_THRESHOLD = 0.7  # least confidence of a face
HINT = 0.5  # least confidence of a candidate that is examined again
NMS_THRESHOLD = 0.3  # of the area that two of YuNet's boxes cover together
SAME_FACE_OVERLAP = 0.5  # of the smaller box's area

# The whole photo is looked at on canvases of so many pixels, squared, each twice as wide as the
# one before, until nothing small is left to see.
FIRST_SIDE, ENOUGH_SIDE, TURNED_SIDE = 160, 1280, 320
REDUCED_SIDE = 640  # up to here a large photo is seen in a copy, reduced once
LEAST_PART = 5.5  # how many times smaller than the photo the largest canvas may be
SMALL_FACE = 24  # pixels on a canvas: where there is one, there may be smaller ones
SMALL_HINT = 0.3  # least confidence of what may be a small face

# YuNet's landmarks follow a face's roll only where it is large: of 15 degrees they tell 5 at 80
# pixels and 13 at 180. So every face is looked at once more, at that size and turned upright.
CLOSE_SIDE, CLOSE_FACE = 288, 200
STEADY_ROLLS = (12.0, 6.0)  # degrees; found further from upright, it is looked at again, twice

# Upside down 1 face in 250 scores more than SURE; the right way up all but 1 in 200 of LFW's do and
# 3 in 4 of FairFace's tight crops. A face that is FAIR is worth no look at the whole photo turned.
SURE, FAIR = 0.92, 0.88
TURNED_ROLL = 60.0  # degrees; a face turned further must be surer than it is upright
TURNED_SURE, TURNED_LEAD, FAINT = 0.9, 0.08, 0.75

STRIDES = (8, 16, 32)  # pixels between the cells of YuNet's three grids


class FaceDetector:
    """Finds faces of any size and turn, from one that fills a thumbnail to one in a crowd.

    Uses YuNet (`find_detector_file` says from where), and without its file the Haar cascade that
    OpenCV ships, after one warning: it finds upright frontal faces only, and no landmarks. Several
    threads may share one; `name` is `"yunet"` or `"haar"`.

    Args:
        score_threshold: least confidence of a face that YuNet reports, 0 to 1.

    Raises:
        UserError: the file that the environment variable names is missing or no YuNet model.
    """

    def __init__(self, score_threshold: float = SCORE_THRESHOLD) -> None:
        self._score_threshold = score_threshold
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
            photo: uint8 RGB image (height, width, 3), 0 to 255.

        Returns:
            The faces from left to right; none is an empty list.
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
        # Nothing that is surely upright: the photo itself may be turned.
        hints: list[Face] = []
        for turns in (1, 2, 3):
            hints += self._look(photo, reduced, TURNED_SIDE, turns)
        found += self._look_closely(photo, hints)
        # Profiles that fill the photo are lost from near.
        return found or [face for face in upright if face.score >= self._score_threshold]

    def _look(
        self, photo: np.ndarray, reduced: np.ndarray, enough: int, turns: int = 0
    ) -> list[Face]:
        """Return candidate faces in the whole photo, from canvases of increasing size."""
        mean_side = math.sqrt(photo.shape[0] * photo.shape[1])
        # In a photo of 48 megapixels faces of 60 pixels are seen, whatever else is found.
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
        """Run YuNet on the photo, scaled and rotated by quarter turns; return photo coordinates."""
        canvas = resize_by(source, scale * photo.shape[1] / source.shape[1])
        rows, columns = canvas.shape[:2]
        to_photo = np.array([photo.shape[1] / columns, photo.shape[0] / rows])
        faces = []
        canvas = np.ascontiguousarray(np.rot90(canvas, turns))
        for corners, score, landmarks in self._yunet(canvas, SMALL_HINT):
            points = np.vstack([corners, landmarks])
            for turn in range(turns, 0, -1):
                # The right edge before a turn is the top edge after it.
                width = (columns, rows)[(turn - 1) % 2]
                points = np.column_stack([width - points[:, 1], points[:, 0]])
            points *= to_photo
            faces += clip_face(np.sort(points[:2], axis=0), score, points[2:], photo)
        return faces

    def _look_closely(self, photo: np.ndarray, hints: list[Face]) -> list[Face]:
        """Return the candidates that are faces, with exact landmarks."""
        faces: list[Face] = []
        for hint in keep_distinct_faces(hints):
            # Beside a face that is surely upright no doubtful place is turned to see more in it.
            turn = not any(face.score >= SURE and abs(face.roll) < TURNED_ROLL for face in faces)
            face = self._look_closely_at(photo, hint, turn)
            if face and face.score >= self._score_threshold:
                faces.append(face)
        return faces

    def _look_closely_at(self, photo: np.ndarray, hint: Face, turn: bool) -> Face | None:
        """Return a candidate's face, from an upright close-up large enough for exact landmarks."""
        views, quarter = [self._see(photo, hint, hint.roll)], 90 * round(hint.roll / 90)
        doubtful = views[0] is None or views[0].score < self._score_threshold
        for degrees in (180, 90, -90) if turn or not doubtful else ():
            if any(face and face.score >= SURE for face in views):
                break
            views.append(self._see(photo, hint, quarter + degrees))
        faces = sorted(filter(None, views), key=lambda face: -face.score)
        upright = next((face for face in faces if abs(face.roll) < TURNED_ROLL), None)
        if not faces or faces[0] is upright:
            return upright
        # Faces in profile are found upside down too, though less surely than one that is.
        score = upright.score if upright else 0.0
        sure = faces[0].score >= TURNED_SURE
        return faces[0] if sure or faces[0].score >= max(score, FAINT) + TURNED_LEAD else upright

    def _see(self, photo: np.ndarray, hint: Face, roll: float) -> Face | None:
        """Return a candidate's face, after rotation by its roll, which is refined."""
        face = self._see_turned(photo, hint, roll)
        for steady in STEADY_ROLLS:
            if face is None or abs(turn_between(face.roll, roll)) <= steady:
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
                continue  # another one, beside it
            # The box around the ellipse that the turned box frames.
            half = np.hypot(*(back * (size / 2)).T)
            centre = back @ offset + hint.centre
            landmarks = (landmarks - middle) @ back.T + hint.centre
            box = np.array([centre - half, centre + half])
            return next(iter(clip_face(box, score, landmarks, photo)), None)
        return None


class YuNet:
    """YuNet (Wu et al., "YuNet: A tiny millisecond-level face detector", 2023) in ONNX Runtime.

    Args:
        path: ONNX file of YuNet.

    Raises:
        UserError: the file is not a YuNet model.
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
                f"{path} is no YuNet model that ONNX Runtime can run ({join_lines(error)}): "
                f"set {DETECTOR_VARIABLE} to a whole {DETECTOR_FILE}"
            ) from error

    def __call__(
        self, canvas: np.ndarray, threshold: float
    ) -> list[tuple[np.ndarray, float, np.ndarray]]:
        """Find upright faces of 10 to 300 pixels.

        Args:
            canvas: uint8 RGB image (height, width, 3), 0 to 255.
            threshold: least score.

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
        return [(boxes[i], float(scores[i]), landmarks[i]) for i in suppress(boxes, scores)]

    def _run(self, canvas: np.ndarray) -> list[np.ndarray]:
        pixels = np.stack(cv2.split(canvas)[::-1])[None].astype(np.float32)  # BGR, 0 to 255
        return self._session.run(self._outputs, {"input": pixels})


def suppress(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Suppress overlapping boxes (non-maximum suppression).

    Args:
        boxes: corners (n, 2, 2).
        scores: (n,).

    Returns:
        Indices of the boxes that no better one overlaps, best first.
    """
    order, kept = np.argsort(-scores, kind="stable"), []
    areas = np.prod(boxes[:, 1] - boxes[:, 0], axis=1)
    while len(order):
        best, others = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 1], boxes[others, 1]) - np.maximum(
            boxes[best, 0], boxes[others, 0]
        )
        shared = np.prod(sides.clip(0), axis=1)
        order = others[shared <= NMS_THRESHOLD * (areas[best] + areas[others] - shared)]
    return kept


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
                # The last stage's sum has no bound; the logistic function makes it a confidence.
                faces += clip_face(corners, float(1 / (1 + np.exp(-weight))), None, photo)
        return faces


def clip_face(
    corners: np.ndarray, score: float, landmarks: np.ndarray | None, photo: np.ndarray
) -> list[Face]:
    """Return the face of a box (2, 2) clipped to the photo, or None if it lies outside."""
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


def turn_between(one: float, other: float) -> float:
    """Return the angle in degrees from one direction to another, -180 to 180."""
    return (other - one + 180) % 360 - 180


def keep_distinct_faces(faces: list[Face]) -> list[Face]:
    """Keep the face with the highest score among overlapping ones.

    Args:
        faces: faces of one photo.

    Returns:
        The kept ones, best first.
    """
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
    """Return the path of YuNet's ONNX file: the environment variable's, else the Hub cache's.

    Returns:
        The path, or None if the file is not cached and the Hub cannot be reached.

    Raises:
        UserError: the environment variable names a file that does not exist.
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
    # Imported here, as a detector with a given file does not need the Hub.
    from huggingface_hub import get_session, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = (DETECTOR_REPOSITORY, DETECTOR_FILE)
    try:
        path = hf_hub_download(*where, revision=DETECTOR_REVISION, local_files_only=True)
    except LocalEntryNotFoundError:
        # Whatever keeps the file away (no network, a proxy's login page, a full disk), there is the
        # cascade. One request goes ahead because hf_hub_download retries for 23 s when offline.
        try:
            url = hf_hub_url(*where, revision=DETECTOR_REVISION)
            get_session().head(url, timeout=HUB_TIMEOUT)
            path = hf_hub_download(*where, revision=DETECTOR_REVISION, etag_timeout=HUB_TIMEOUT)
        except Exception:
            return None
    return path if is_detector_file(path) else None


def find_cached_detector() -> str | None:
    """Return the path of YuNet's file in the Hub's cache, or None.

    The Hub's client is not used: its import takes longer than predicting the first photo.

    Returns:
        The path, or None.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, "models--" + DETECTOR_REPOSITORY.replace("/", "--"))
    files = map(str, folder.glob(f"snapshots/*/{DETECTOR_FILE}"))
    return next(filter(is_detector_file, files), None)


def is_detector_file(path: str) -> bool:
    """Return whether a file is the pinned YuNet, byte for byte."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == DETECTOR_SHA256
