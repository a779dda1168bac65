"""What must not leave this machine: secrets, pickles, and images from datasets that forbid it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from huggingface_hub import get_token
from PIL import Image

from label2label.errors import UserError

Content = Path | bytes
"""A file to upload: where it lies, or its bytes."""

_SECRET_NAMES = re.compile(
    r"\.env(\..+)?|\.netrc|\.npmrc|\.pypirc|\.git-credentials|\.htpasswd|id_(rsa|dsa|ecdsa|ed25519)"
    r"|(stored_)?tokens?(\.(txt|json))?|credentials?(\..+)?|secrets?(\..+)?"
    r"|.+\.(pem|key|p12|pfx|jks|keystore|kdbx|ovpn)",
    re.IGNORECASE,
)
_SECRET_CONTENTS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}\b",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "an AWS access key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})\b",
    "a Google API key": rb"\bAIza[0-9A-Za-z_\-]{35}\b",
    "a Slack token": rb"\bxox[abprs]-[0-9A-Za-z\-]{10,}",
    "an API key": rb"\bsk-[A-Za-z0-9_\-]{32,}",
    "a password in a URL": rb"\b[a-z][a-z0-9+.\-]*://[^\s/:@\"'<>]+:[^\s/:@\"'<>{}$]{6,}@",
}
# Not text: a token in them would be there by chance. They are checked for being what they say.
_BINARY_SUFFIXES = (".safetensors", ".onnx", ".parquet", ".tflite", ".ort", ".wasm")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_PICKLE_SUFFIXES = (
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".mar"),
    *(".h5", ".keras", ".npy", ".npz"),  # these too can hold code that runs when they are read
)
_DATA_SUFFIXES = (".parquet", ".arrow", ".tfrecord", ".lmdb", ".zip", ".tar", ".gz", ".7z")

# Names and sizes by which images of these sets are known wherever they were copied to.
_RESTRICTED_IMAGES = {
    "CelebA": re.compile(r"\d{6}\.(jpg|png)", re.IGNORECASE),
    "UTKFace": re.compile(r"\d{1,3}_[01]_[0-4]_\d{14,}.*\.(jpg|png)", re.IGNORECASE),
    "LFW": re.compile(r"[A-Z][A-Za-z\-]+(_[A-Za-z\-]+)*_\d{4}\.jpg"),
    "K-FACE": re.compile(r"(?:.*_)?S\d{3}_?L\d+_?E\d{2}_?C\d+.*\.jpg", re.IGNORECASE),
}
_RESTRICTED_SIZES = {(178, 218): "CelebA", (89, 109): "CelebA"}  # of its aligned images, and halves


def refuse_unsafe_files(files: Mapping[str, Content], *, data: bool = False) -> None:
    """Refuse an upload that holds a secret, a pickle or an image of a restricted set.

    Args:
        files: what is to be uploaded, by path in the repository.
        data: whether this is a dataset repository, whose purpose is its shards.

    Raises:
        UserError: one line that names the first such file and says what it is.
    """
    for path, content in files.items():
        name = PurePosixPath(path).name
        problem = (
            _secret(name, content)
            or _pickle(name, content, beside=files, path=path)
            or (None if data else _data(name))
            or _restricted_image(name, content)
        )
        if problem:
            place = path if isinstance(content, bytes) else content
            raise UserError(f"{place} {problem}: nothing was uploaded")


def _secret(name: str, content: Content) -> str | None:
    if _SECRET_NAMES.fullmatch(name):
        return "looks like a secret by its name; remove it from the folder"
    if name.lower().endswith((*_BINARY_SUFFIXES, *_IMAGE_SUFFIXES)):
        return None
    text = content if isinstance(content, bytes) else content.read_bytes()
    token = get_token()
    if token and len(token) >= 8 and token.encode() in text:
        return "holds your own access token; remove it"
    for title, pattern in _SECRET_CONTENTS.items():
        if re.search(pattern, text):
            return f"holds what looks like {title}; remove it, and revoke it if it was real"
    return None


def _pickle(name: str, content: Content, beside: Mapping[str, Content], path: str) -> str | None:
    suffix = PurePosixPath(name).suffix.lower()
    is_openvino = suffix == ".bin" and str(PurePosixPath(path).with_suffix(".xml")) in beside
    if suffix in _PICKLE_SUFFIXES and not is_openvino:
        return f"is of a kind that can run code when it is read ({suffix}); upload safetensors only"
    head = content[:8192] if isinstance(content, bytes) else _read_head(content)
    # Protocols 2 to 5 start with PROTO and its number; torch.save's zip archive holds data.pkl.
    is_pickle = len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5
    if is_pickle or (head.startswith(b"PK\x03\x04") and b"data.pkl" in head):
        return "is a pickle under another name; upload safetensors only"
    return None


def _data(name: str) -> str | None:
    if name.lower().endswith(_DATA_SUFFIXES):
        return "is data, which belongs in a dataset repository (--dataset); remove it"
    return None


def _restricted_image(name: str, content: Content) -> str | None:
    if not name.lower().endswith(_IMAGE_SUFFIXES):
        return None
    for title, pattern in _RESTRICTED_IMAGES.items():
        if pattern.fullmatch(name):
            return f"is named like an image of {title}, which may not be redistributed; remove it"
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            title = _RESTRICTED_SIZES.get(image.size, "")
    except (OSError, ValueError, Image.DecompressionBombError):
        return "is no image that can be read; remove it"
    if title:
        return f"has the size of an image of {title}, which may not be redistributed; remove it"
    return None


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8192)
