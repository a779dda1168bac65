"""The page's parts that only say something: header and about."""

from __future__ import annotations

from html import escape

from texts import say

EXAMPLE = """from gradio_client import Client, handle_file

space = Client("USER/SPACE")
answer = space.predict(
    handle_file("photo.jpg"), model="", known={"Eyeglasses": True}, maps=False,
    api_name="/predict",
)
for face in answer["faces"]:
    print(face["box"], face["attributes"]["Smiling"])

print(space.predict(api_name="/models"))"""


def render_header(language: str) -> str:
    """Render title, summary and privacy note as one HTML element.

    Args:
        language: A key of `texts.LANGUAGES`.
    """
    return (
        f'<div class="l2l header"><h1>{_text(language, "title")}</h1>'
        f"<p>{_text(language, 'tagline')}</p>"
        f'<p class="privacy">{_text(language, "privacy.short")}</p></div>'
    )


def render_about(language: str) -> str:
    """Render privacy, limits, method and API as one HTML element.

    Args:
        language: A key of `texts.LANGUAGES`.
    """
    sections = "".join(
        f"<h2>{_text(language, part + '.title')}</h2><p>{_text(language, part)}</p>"
        for part in ("about.privacy", "about.limits", "about.how", "about.api")
    )
    code = f'<pre tabindex="0"><code>{escape(EXAMPLE)}</code></pre>'
    return f'<div class="l2l text about">{sections}{code}</div>'


def _text(language: str, key: str) -> str:
    return escape(say(language, key))
