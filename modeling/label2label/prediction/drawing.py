"""Draw faces and their present attributes into photos and frames."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from label2label.errors import UserError, printable
from label2label.prediction.photos import load_photo

_HERE = Path(__file__).parent
# Display names by language and attribute, which the Space uses too.
ATTRIBUTE_NAMES: dict[str, dict[str, str]] = json.loads(
    (_HERE / "attribute_names.json").read_text(encoding="utf-8")
)
LANGUAGES = tuple(ATTRIBUTE_NAMES)
COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (213, 94, 0))
LONGEST_SIDE = 1600  # pixels of a drawing; a larger photo is scaled down
SHORTEST_SIDE = 640  # a smaller one is scaled up, so that its text can be read


def display_name(name: str, language: str = "en") -> str:
    """Return an attribute's display name, or its own name with spaces if it has none."""
    return ATTRIBUTE_NAMES[language].get(name) or printable(name.replace("_", " "))


def draw_faces(
    pixels: np.ndarray,
    faces: Sequence[Mapping[str, Any]],
    language: str = "en",
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw a box around every face and list the attributes that are present beside it.

    Args:
        pixels: RGB photo (height, width, 3), uint8, 0 to 255.
        faces: Dictionaries of `box`, in pixels of a photo of `size`, `attributes` (probability by
            name), `present` (names) and optionally `label`, a title.
        language: Language of the names, one of `LANGUAGES`.
        size: Width and height of the photo that the boxes refer to; by default that of `pixels`.

    Returns:
        Image whose longer side is 640 to 1600 pixels, so that the text is readable.
    """
    height, width = pixels.shape[:2]
    longer = max(width, height)
    scale = min(LONGEST_SIDE, max(SHORTEST_SIDE, longer)) / longer
    image = Image.fromarray(pixels)
    if scale != 1:
        columns, rows = (max(1, round(side * scale)) for side in (width, height))
        image = image.resize((columns, rows), Image.Resampling.BILINEAR)
    ratio = image.width / (size or (width, height))[0]
    draw = ImageDraw.Draw(image)
    font_size = max(12, round(max(image.size) / 60))
    for number, face in enumerate(faces):
        colour = COLOURS[number % len(COLOURS)]
        box = [x * ratio for x in face["box"]]
        draw.rectangle(box, outline=colour, width=max(2, font_size // 7))
        present = [
            f"{display_name(name, language)} {face['attributes'][name]:.0%}"
            for name in face["present"]
        ]
        lines = [face.get("label", str(number + 1)), *present]
        _write_beside(draw, image.size, box, lines, colour, font_size)
    return image


def draw_entries(
    entries: Iterable[dict[str, Any]],
    photos: Sequence[Path],
    folder: Path,
    language: str = "en",
) -> Iterator[dict[str, Any]]:
    """Draw each photo's faces, and yield its entry with the path of the drawing in `drawing`.

    Args:
        entries: Entries of `AttributePredictor.predict_photos`, in the order of the photos.
        photos: Paths of the photos.
        folder: Folder for JPEGs named `NAME-faces.jpg`, with a number if names repeat; earlier
            drawings are replaced.
        language: Language of the names, one of `LANGUAGES`.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--draw {folder} is a file: give a folder")
    originals = {os.path.realpath(photo) for photo in photos}
    folder.mkdir(parents=True, exist_ok=True)
    used: set[Path] = set()
    for entry, photo in zip(entries, photos, strict=True):
        if "faces" in entry:
            path, number = folder / f"{photo.stem}-faces.jpg", 1
            while path in used or os.path.realpath(path) in originals:
                number += 1
                path = folder / f"{photo.stem}-faces-{number}.jpg"
            used.add(path)
            loaded = load_photo(photo, LONGEST_SIDE**2)
            drawing = draw_faces(loaded.pixels, entry["faces"], language, loaded.size)
            drawing.save(path, quality=90)
            entry["drawing"] = str(path)
        yield entry


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_HERE / "attribute_names.ttf"), size)


def _write_beside(
    draw: ImageDraw.ImageDraw,
    image_size: tuple[int, int],
    box: Sequence[float],
    lines: Sequence[str],
    colour: tuple[int, int, int],
    font_size: int,
) -> None:
    """Write lines on a panel right of a box, left of it, or inside it if neither side has room."""
    width, height = image_size
    step = font_size * 5 // 4
    while font_size > 9 and step * len(lines) + 4 > height:  # shrink to fit the photo
        font_size, step = font_size - 1, (font_size - 1) * 5 // 4
    font = _font(font_size)
    panel_width = max(draw.textlength(line, font) for line in lines) + 8
    panel_height = step * len(lines) + 4
    left = box[2] + 2
    if left + panel_width > width:
        left = box[0] - panel_width - 2 if box[0] - panel_width - 2 >= 0 else box[0]
    left = max(0, min(left, width - panel_width))
    top = max(0, min(box[1], height - panel_height))
    draw.rectangle((left, top, left + panel_width, top + panel_height), fill=(20, 20, 20))
    for number, line in enumerate(lines):
        fill = colour if number == 0 else (255, 255, 255)
        draw.text((left + 4, top + 2 + number * step), line, fill=fill, font=font)
