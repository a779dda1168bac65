"""What the Space says, in each of its languages, and the parts of the page that only say it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from label2label.prediction.drawing import ATTRIBUTE_NAMES

HERE = Path(__file__).resolve().parent
LANGUAGES = {"en": "English", "ko": "한국어"}
TEXTS: dict[str, dict[str, str]] = {
    language: json.loads((HERE / "texts" / f"{language}.json").read_text("utf-8"))
    | {f"attribute.{name}": text for name, text in ATTRIBUTE_NAMES[language].items()}
    for language in LANGUAGES
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "page"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def say(language: str, key: str, **values: Any) -> str:
    """Return a text in a language of `LANGUAGES`, with its placeholders, `{name}`, filled."""
    return TEXTS[language][key].format(**values)


def render(part: str, language: str, **values: Any) -> str:
    """Fill a template of `page/` with values, `say(key)` and `text(key, otherwise)`."""
    template = TEMPLATES.get_template(f"{part}.html")
    return template.render(say=partial(say, language), text=TEXTS[language].get, **values)
