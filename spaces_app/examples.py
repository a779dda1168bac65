"""Photos that anyone may use, taken from packages that are installed: none is in the repository."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from photos import encode_data_url
from PIL import Image

LONGER_SIDE = 640  # pixels; enough for one face, and small enough to embed in the page

# Both are public-domain portraits by agencies of the United States.
SOURCES = {
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
}


def load_examples() -> list[dict[str, str]]:
    """Load the installed example photos, and one with all of them side by side.

    Each has a `key`, for which the page has texts, and a `url`, a data URL.
    """
    photos = dict(open_photos())
    if len(photos) > 1:
        photos["together"] = side_by_side(list(photos.values()))
    return [
        {"key": key, "url": encode_data_url(photo, "jpeg", quality=88)}
        for key, photo in photos.items()
    ]


def open_photos() -> Iterator[tuple[str, Image.Image]]:
    """Yield key and photo of each installed source, at most `LONGER_SIDE` pixels long."""
    for key, (package, file) in SOURCES.items():
        # Without importing: either package would add seconds to the Space's start.
        spec = find_spec(package)
        path = Path(spec.origin).parent / file if spec and spec.origin else None
        if path and path.is_file():
            photo = Image.open(path).convert("RGB")
            photo.thumbnail((LONGER_SIDE, LONGER_SIDE))
            yield key, photo


def side_by_side(photos: list[Image.Image]) -> Image.Image:
    """Join photos, scaled to equal height, into one."""
    height = min(photo.height for photo in photos)
    scaled = [photo.resize((photo.width * height // photo.height, height)) for photo in photos]
    joined = Image.fromarray(np.hstack([np.asarray(photo) for photo in scaled]))
    joined.thumbnail((LONGER_SIDE * 3 // 2, LONGER_SIDE))
    return joined
