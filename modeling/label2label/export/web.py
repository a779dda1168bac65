"""Files that the browser page `spaces_app/on_device/` needs beside a model."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from label2label.data.vocabulary import ATTRIBUTE_GROUPS
from label2label.errors import UserError, join_lines
from label2label.faces import detection, face
from label2label.files import sha256
from label2label.prediction import predictor
from label2label.prediction.backends import Preprocessing
from label2label.prediction.drawing import LANGUAGES, display_name

PAGE_FILE = "page.json"
DETECTOR_FILE = "face_detector.onnx"
RUNTIME = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"
RUNTIME_MODULE = "ort.wasm.bundle.min.mjs"
RUNTIME_WASM = "ort-wasm-simd-threaded.wasm"
# Pinned, as the page runs these files.
RUNTIME_SHA256 = {
    RUNTIME_MODULE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    RUNTIME_WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
# The page finds faces by the same constants.
DETECTOR_SETTINGS = (
    *("SCORE_THRESHOLD", "HINT", "NMS_THRESHOLD", "SAME_FACE_OVERLAP"),
    *("FIRST_SIDE", "ENOUGH_SIDE", "TURNED_SIDE", "REDUCED_SIDE", "LEAST_PART"),
    *("TILE_SIDE", "TILE_OVERLAP"),
    *("SMALL_FACE", "SMALL_HINT", "CLOSE_SIDE", "CLOSE_FACE", "STEADY_ROLLS"),
    *("SURE", "FAIR", "TURNED_ROLL", "TURNED_SURE", "TURNED_LEAD", "FAINT"),
)
GLANCE_SETTINGS = ("GLANCE_PIXELS", "GLANCE_FACE", "GLANCE_SCORE")
FACE_SETTINGS = ("ARCFACE_TEMPLATE", "SMALL_FACE", "TURNED_AWAY", "CUT_MARGIN", "NOSE_DEPTH")
WEB_FILES = (PAGE_FILE, DETECTOR_FILE, *RUNTIME_SHA256)


def fetch_web_files(folder: Path, preprocessing: Preprocessing, earlier: Path) -> None:
    """Download the face detector and onnxruntime-web to a folder.

    The runtime of an earlier export in the folder `earlier`, which need not exist, is reused.

    Raises:
        UserError: The model resizes its crops, or a download fails.
    """
    if preprocessing.shortest_edge != preprocessing.crop_size:
        raise UserError(
            f"the page aligns faces directly to the crop, but this model resizes them to "
            f"{preprocessing.shortest_edge} pixels before it crops {preprocessing.crop_size}"
        )
    detector = detection.find_detector_file()
    if detector is None:
        raise UserError(
            f"the page needs {detection.DETECTOR_FILE}, and the Hub cannot be reached: "
            f"set {detection.DETECTOR_VARIABLE} to the file's path"
        )
    shutil.copyfile(detector, folder / DETECTOR_FILE)
    if has_runtime(earlier):
        for name in RUNTIME_SHA256:
            shutil.copyfile(earlier / name, folder / name)
    else:
        download_runtime(folder)


def describe_page(folder: Path, model: str, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of `page.json`, the page's configuration.

    Args:
        folder: Folder with the files that it names.
        model: Name of the model's file, which takes uint8 pixels.
        preprocessing: That of the model.

    Returns:
        `model`, `detector` and `runtime`, each with `file` and `bytes`, the detector with its
        settings; `glance`, when a reduced JPEG shows enough; `face`, by which a face's roll and
        flaws are told; `attributes` and `thresholds` in the order of the model's outputs;
        `exclusive_answers`, the rules that no decision breaks; `names`, display names by language
        and attribute; `groups`, attributes by group;
        `crop_size` in pixels and `alignment_template`.
    """

    def describe(name: str) -> dict[str, Any]:
        return {"file": name, "bytes": (folder / name).stat().st_size}

    known = preprocessing.attributes
    groups = {
        group: [name for name in names if name in known]
        for group, names in ATTRIBUTE_GROUPS.items()
    }
    grouped = {name for names in groups.values() for name in names}
    groups["other"] = [name for name in known if name not in grouped]
    return {
        "model": describe(model),
        "detector": {
            **describe(DETECTOR_FILE),
            **{name.lower(): getattr(detection, name) for name in DETECTOR_SETTINGS},
        },
        "glance": {name.lower(): getattr(predictor, name) for name in GLANCE_SETTINGS},
        "face": {name.lower(): getattr(face, name) for name in FACE_SETTINGS},
        "runtime": {
            **describe(RUNTIME_WASM),
            "module": RUNTIME_MODULE,
            "name": RUNTIME,
            "version": RUNTIME_VERSION,
        },
        "attributes": preprocessing.attributes,
        "thresholds": preprocessing.thresholds,
        "exclusive_answers": preprocessing.exclusive_answers,
        "names": {
            language: {name: display_name(name, language) for name in known}
            for language in LANGUAGES
        },
        "groups": {group: names for group, names in groups.items() if names},
        "crop_size": preprocessing.crop_size,
        "alignment_template": preprocessing.alignment_template,
    }


def has_runtime(folder: Path) -> bool:
    """Return whether a folder holds the pinned files of onnxruntime-web."""
    return all(
        (folder / name).is_file() and sha256(folder / name) == digest
        for name, digest in RUNTIME_SHA256.items()
    )


def download_runtime(folder: Path) -> None:
    """Download onnxruntime-web's files to a folder, from npm's configured registry."""
    package = f"{RUNTIME}@{RUNTIME_VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the page's runtime, {package}, comes from npm: install Node.js and npm")
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run(
            [npm, "pack", "--silent", package], cwd=scratch, capture_output=True, text=True
        )
        archives = list(Path(scratch).glob("*.tgz"))
        if packed.returncode != 0 or not archives:
            reason = join_lines(Exception(packed.stderr or packed.stdout))
            raise UserError(f"npm cannot get {package}: {reason}")
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                name = member.name.removeprefix("package/dist/")
                if name in RUNTIME_SHA256 and (content := archive.extractfile(member)):
                    (folder / name).write_bytes(content.read())
    if not has_runtime(folder):
        raise UserError(f"npm's {package} differs from the files that the page was tested with")
