"""Find faces in a photo: YuNet, or OpenCV's Haar cascade where YuNet's file cannot be had."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from label2label.errors import UserError

DETECTOR_VARIABLE = "LABEL2LABEL_FACE_DETECTOR"
DETECTOR_REPOSITORY = "opencv/face_detection_yunet"
DETECTOR_FILE = "face_detection_yunet_2026may.onnx"
# The file's content is pinned, so that a branch that moves on cannot change what is found.
DETECTOR_REVISION = "main"
DETECTOR_SHA256 = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
HUB_TIMEOUT = 3.0  # seconds

# YuNet is surest of faces of 30 to 500 pixels: on close-ups its mean score falls from 0.94 at 480
# pixels to 0.75 at 1280, while a group photo needs every pixel. So large photos are seen twice.
CLOSE_UP_SIDE = 480
WHOLE_SIDE = 1280
MARGIN = 0.25  # of a close-up's longer side, so that a face that the frame cuts has surroundings
SAME_FACE_OVERLAP = 0.5  # of the smaller box's area
SCORE_THRESHOLD = 0.7  # least confidence of a face that YuNet reports
# Pixels: two cells of YuNet's coarsest map. Along a map of one cell OpenCV 4.14 reads memory that
# is not its own, and answers with faces that are not there.
SMALLEST_CANVAS = 64
NMS_THRESHOLD = 0.3  # of the area that two of its boxes cover together: OpenCV's own default


@dataclass(frozen=True, eq=False)
class Face:
    """One face found in a photo, in the photo's own pixels.

    Coordinates are continuous: (0, 0) is the outer corner of the top left pixel, (width, height)
    that of the bottom right one.

    Args:
        box: (x0, y0, x1, y1), left, top, right and bottom, in pixels, inside the photo.
        score: the detector's confidence, 0 to 1.
        landmarks: float array (5, 2) of [x, y]: viewer's left eye, viewer's right eye, nose tip,
            viewer's left and right mouth corners; None from a detector that finds boxes only.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None


class FaceDetector:
    """Finds faces of any size, from a face that fills a thumbnail to one in a crowd.

    Uses YuNet (`find_detector_file` says from where), and without its file the Haar cascade that
    OpenCV ships, after one warning: it finds upright frontal faces only, and no landmarks. Several
    threads may share one; `name` is `"yunet"` or `"haar"`.

    Args:
        score_threshold: least confidence of a face that YuNet reports, 0 to 1.
        close_up_side: pixels to which a photo's longer side is brought to look for close-ups; less
            is faster, where every image is known to be one.

    Raises:
        UserError: the file that the environment variable names is missing or no YuNet model.
    """

    def __init__(
        self, score_threshold: float = SCORE_THRESHOLD, *, close_up_side: int = CLOSE_UP_SIDE
    ) -> None:
        path = find_detector_file()
        if path is None:
            warnings.warn(
                f"cannot get {DETECTOR_FILE} from the Hub ({DETECTOR_REPOSITORY}): faces are found "
                f"by OpenCV's Haar cascade, which misses more of them; set {DETECTOR_VARIABLE} to "
                "the file's path",
                stacklevel=2,
            )
            self.name = "haar"
            self._find = self._find_by_cascade
        else:
            self.name = "yunet"
            self._find = self._find_by_yunet
        self._path = path
        self._score_threshold = score_threshold
        self.close_up_side = close_up_side
        # OpenCV's detectors keep the photo that they are at: each thread has its own.
        self._local = threading.local()
        self._detector()

    def __call__(self, photo: np.ndarray) -> list[Face]:
        """Find the faces of one photo.

        Args:
            photo: uint8 RGB image (height, width, 3), 0 to 255.

        Returns:
            The faces from left to right; none is an empty list.
        """
        bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
        longer = max(bgr.shape[:2])
        faces = self._detect_at(bgr, self.close_up_side / longer, MARGIN)
        if longer > CLOSE_UP_SIDE:
            faces += self._detect_at(bgr, min(1.0, WHOLE_SIDE / longer), 0.0)
        return sorted(keep_distinct_faces(faces), key=lambda face: face.box[0])

    def _detect_at(self, bgr: np.ndarray, scale: float, margin: float) -> list[Face]:
        """Faces, in the photo's pixels, found in the photo scaled and surrounded by a margin."""
        height, width = bgr.shape[:2]
        columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        canvas = cv2.resize(bgr, (columns, rows), interpolation=interpolation)
        border = round(margin * max(columns, rows))
        below, beside = (max(border, SMALLEST_CANVAS - side) for side in (rows, columns))
        canvas = cv2.copyMakeBorder(canvas, border, below, border, beside, cv2.BORDER_CONSTANT)
        to_photo = np.array([width / columns, height / rows])
        faces = []
        for corners, score, landmarks in self._find(canvas):
            corners = ((corners - border) * to_photo).clip(0, [width, height])
            (x0, y0), (x1, y1) = corners.tolist()
            if x1 <= x0 or y1 <= y0:
                continue  # found in the margin
            if landmarks is not None:
                landmarks = (landmarks - border) * to_photo
            faces.append(Face((x0, y0, x1, y1), score, landmarks))
        return faces

    def _detector(self) -> Any:
        """This thread's YuNet or cascade."""
        if not hasattr(self._local, "detector"):
            self._local.detector = self._load()
        return self._local.detector

    def _load(self) -> Any:
        if self._path is None:
            cascades = Path(cv2.__file__).parent / "data"
            return cv2.CascadeClassifier(str(cascades / "haarcascade_frontalface_alt2.xml"))
        try:
            return cv2.FaceDetectorYN.create(
                self._path,
                "",
                (CLOSE_UP_SIDE, CLOSE_UP_SIDE),
                score_threshold=self._score_threshold,
                nms_threshold=NMS_THRESHOLD,
            )
        except cv2.error as error:
            raise UserError(
                f"{self._path} is no YuNet model that OpenCV {cv2.__version__} can read: "
                f"set {DETECTOR_VARIABLE} to a whole {DETECTOR_FILE}"
            ) from error

    def _find_by_yunet(self, canvas: np.ndarray) -> list[Found]:
        yunet = self._detector()
        yunet.setInputSize(canvas.shape[1::-1])
        _, rows = yunet.detect(canvas)
        found: list[Found] = []
        for row in [] if rows is None else rows.astype(np.float64):
            corners = np.array([row[:2], row[:2] + row[2:4]])
            # Rows hold x, y, width, height, five points (the viewer's left eye first) and a score.
            found.append((corners, float(row[14].clip(0, 1)), row[4:14].reshape(5, 2)))
        return found

    def _find_by_cascade(self, canvas: np.ndarray) -> list[Found]:
        gray = cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY)
        boxes, _, weights = self._detector().detectMultiScale3(
            gray, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24), outputRejectLevels=True
        )
        found: list[Found] = []
        for (x, y, width, height), weight in zip(boxes, np.ravel(weights), strict=True):
            corners = np.array([[x, y], [x + width, y + height]], dtype=np.float64)
            # The last stage's sum has no upper bound; the logistic function makes it a confidence.
            found.append((corners, float(1 / (1 + np.exp(-weight))), None))
        return found


# Corners (2, 2) of a box, score, landmarks (5, 2) or None.
Found = tuple[np.ndarray, float, np.ndarray | None]


def keep_distinct_faces(faces: list[Face]) -> list[Face]:
    """Of faces that overlap, as one seen at two sizes does, keep the one with the highest score.

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
    """Area that two boxes (x0, y0, x1, y1) share, over the smaller one's area; 0 to 1."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return max(width, 0.0) * max(height, 0.0) / min(areas)


def find_detector_file() -> str | None:
    """Path of YuNet's ONNX file: the environment variable's, else the Hub's (kept after first use).

    Returns:
        The path, or None where the Hub cannot be reached and its cache does not hold the file.

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
    # Imported here because a detector whose file is given needs no Hub.
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
    """Path of YuNet's file in the Hub's cache, found without the Hub's client.

    To import the client takes longer than all else that predicts the first photo.

    Returns:
        The path, or None.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE, "models--" + DETECTOR_REPOSITORY.replace("/", "--"))
    files = map(str, folder.glob(f"snapshots/*/{DETECTOR_FILE}"))
    return next(filter(is_detector_file, files), None)


def is_detector_file(path: str) -> bool:
    """Whether a file is the pinned YuNet, byte for byte."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == DETECTOR_SHA256
