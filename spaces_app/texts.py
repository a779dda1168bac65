"""What the Space says, in each of its languages: one JSON file a language in `texts/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from label2label.prediction.drawing import ATTRIBUTE_NAMES

LANGUAGES = {"en": "English", "ko": "한국어"}

TEXTS: dict[str, dict[str, str]] = {
    language: json.loads(
        Path(__file__).with_name("texts").joinpath(f"{language}.json").read_text("utf-8")
    )
    | {f"attribute.{name}": text for name, text in ATTRIBUTE_NAMES[language].items()}
    for language in LANGUAGES
}


def say(language: str, key: str, **values: Any) -> str:
    """Return a text with its placeholders filled.

    Args:
        language: A key of `LANGUAGES`; English for any other.
        key: Key of the text.
        values: Values of the placeholders, `{name}`.
    """
    return TEXTS.get(language, TEXTS["en"])[key].format(**values)
