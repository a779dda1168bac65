"""The page: its tabs, what each request runs, and what programs can call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gradio as gr
from analysis import WORKERS, Analyser
from api import EXAMPLE, predict_photo
from audit import load_evaluations, render_audit
from catalogue import load_catalogue
from examples import load_examples
from label2label.data.images import IMAGE_FORMATS, MAX_PIXELS
from label2label.data.vocabulary import ATTRIBUTE_GROUPS
from photos import MAX_BYTES, PhotoError, decode_data_url
from PIL import Image
from texts import HERE, LANGUAGES, TEXTS, render, say

RESULT_FOLDERS = (HERE / "results", HERE.parent / "results")
DEVICE_PAGE = HERE / "on_device" / "index.html"
MAX_WAITING = 100  # requests; further ones get the answer that the Space is busy
TEMPORARY_SECONDS = 30  # lifetime of files uploaded through the API, and interval of the checks
TABS = ("explore", "compare", "audit", "device", "about")
logger = logging.getLogger(__name__)

# Without a language, as when the page opens, it is the visitor's. The page's own components follow.
SWITCH_LANGUAGE = """(language) => {
  const asked = new URLSearchParams(location.search).get("lang") ?? navigator.language;
  language ??= asked.startsWith("ko") ? "ko" : "en";
  document.documentElement.lang = language;
  document.dispatchEvent(new Event("label2label-language"));
  return language;
}"""


def build_space() -> gr.Blocks:
    """Load the models and lay out the page.

    Raises:
        UserError: No model, or no face detector, can be loaded.
    """
    analyser = Analyser(load_catalogue())
    models = [model.describe() for model in analyser.catalogue.values()]
    evaluations = load_evaluations(RESULT_FOLDERS)
    # Only with the model that `label2label export --web` puts beside the page.
    has_device = DEVICE_PAGE.is_file() and any(DEVICE_PAGE.parent.glob("assets/*.onnx"))
    if has_device:
        gr.set_static_paths([DEVICE_PAGE.parent])

    def analyse(event: gr.EventData) -> dict[str, Any]:
        return answer(
            event, lambda: analyser.analyse(decode_data_url(event.photo), event.models[:2])
        )

    def condition(event: gr.EventData) -> dict[str, Any]:
        return answer(
            event,
            lambda: {
                "prediction": analyser.condition(
                    decode_data_url(event.crop), event.model, event.known
                )
            },
        )

    def predict(
        photo: bytes | None, model: str, known: dict[str, bool] | None, maps: bool
    ) -> dict[str, Any]:
        return predict_photo(analyser, photo, model, known or {}, maps)

    def list_models() -> list[dict[str, Any]]:
        return models

    page = {
        "texts": TEXTS,
        "models": models,
        "groups": {group: list(names) for group, names in ATTRIBUTE_GROUPS.items()},
        "examples": load_examples(),
        "limits": {"bytes": MAX_BYTES, "megapixels": MAX_PIXELS / 1e6, "types": list_photo_types()},
    }
    private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    busy: dict[str, Any] = {"concurrency_limit": WORKERS, "concurrency_id": "cores"}
    request = {**private, **busy, "trigger_mode": "multiple"}
    with gr.Blocks(
        title="Label2Label",
        analytics_enabled=False,
        delete_cache=(TEMPORARY_SECONDS, TEMPORARY_SECONDS),
    ) as space:
        with gr.Row():
            header = gr.HTML(render("header", "en"), apply_default_css=False, elem_id="header")
            language = gr.Radio(
                [(name, key) for key, name in LANGUAGES.items()],
                value="en",
                label="Language · 언어",
                show_label=False,
                container=False,
                scale=0,
                min_width=240,
                elem_id="language",
            )
        with gr.Tabs():
            tabs = {tab: gr.Tab(say("en", f"tab.{tab}"), id=tab) for tab in TABS}
            tabs["device"].visible = has_device
        with tabs["explore"]:
            explorer = page_part("explorer", page)
            explorer.analyse(analyse, None, explorer, **request)
            explorer.condition(condition, None, explorer, **request)
        with tabs["compare"]:
            comparison = page_part("comparison", page)
            comparison.analyse(analyse, None, comparison, **request)
        with tabs["audit"]:
            audit = gr.HTML(render_audit(evaluations, "en"), apply_default_css=False)
        with tabs["device"]:
            if has_device:
                address = f"gradio_api/file={DEVICE_PAGE.as_posix()}"
                page_part("device", {"texts": TEXTS, "address": address})
        with tabs["about"]:
            about = gr.HTML(render("about", "en", example=EXAMPLE), apply_default_css=False)

        def translate(language: str) -> list[Any]:
            return [
                render("header", language),
                render_audit(evaluations, language),
                render("about", language, example=EXAMPLE),
                *(gr.Tab(say(language, f"tab.{tab}")) for tab in TABS),
            ]

        switched = [header, audit, about, *tabs.values()]
        language.change(translate, language, switched, js=SWITCH_LANGUAGE, queue=False, **private)
        space.load(None, None, language, js=SWITCH_LANGUAGE)
        # The API for programs, not visible on the page.
        # As bytes: for a path, Gradio would leave an empty file behind after each request.
        file = gr.File(type="binary", label="photo", visible=False)
        key = gr.Textbox("", label="model", visible=False)
        given = gr.JSON(None, label="known", visible=False)
        wanted = gr.Checkbox(False, label="maps", visible=False)
        reply = gr.JSON(label="attributes", visible=False)
        gr.Button(visible=False).click(
            predict, [file, key, given, wanted], reply, api_name="predict", **busy
        )
        gr.api(list_models, api_name="models", queue=False)
    return space.queue(max_size=MAX_WAITING, default_concurrency_limit=WORKERS)


def list_photo_types() -> list[str]:
    """List the MIME types of readable files (`image/jpeg`)."""
    Image.init()
    return sorted({Image.MIME[name] for name in IMAGE_FORMATS if name in Image.OPEN})


def page_part(name: str, page: dict[str, Any]) -> gr.HTML:
    """Create the component of a script in `page/`, with data for it.

    The events that the script triggers are methods of the component.
    """
    scripts = ("common", "photo", name)
    return gr.HTML(
        html_template=f'<div class="l2l {name}"></div>',
        js_on_load="\n".join(
            (HERE / "page" / f"{script}.js").read_text(encoding="utf-8") for script in scripts
        ),
        apply_default_css=False,
        elem_id=name,
        **page,
    )


def answer(event: gr.EventData, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Answer a request of the page: its `id`, and the entries that `work` returns or an `error`.

    An error is a `code`, and `values` for its text.
    """
    try:
        return {"id": event.id, **work()}
    except PhotoError as error:
        return {"id": event.id, "error": {"code": error.code, "values": error.values}}
    except Exception:
        logger.exception("a request failed")
        return {"id": event.id, "error": {"code": "failed", "values": {}}}
