"""The Space: facial attributes of a photo, in the browser and by gradio_client."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from label2label.errors import UserError
from label2label.files import remove_leftovers, temporary_folder
from limits import RequestLimits, uploads_parent

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Serve the Space until it is stopped; return the exit code, 2 if no model can be loaded."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Files uploaded through the API are stored in a folder that is deleted when this process ends;
    # delete what a killed process left behind.
    parent = uploads_parent()
    remove_leftovers(parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with temporary_folder("space", parent) as uploads:
            os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # Gradio reads it when imported
            serve(uploads)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def serve(uploads: Path) -> None:
    """Serve the Space, with a folder for files that are uploaded through the API."""
    import cv2
    import gradio as gr
    import torch
    from layout import build_space
    from photos import MAX_BYTES
    from starlette.middleware import Middleware

    # One photo per core at a time, one thread each, gives the highest throughput.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    build_space().launch(
        theme=gr.themes.Base(
            primary_hue="teal",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],  # no font is downloaded
            font_mono=["ui-monospace", "monospace"],
        ),
        # Not as `css`, because Gradio rewrites those rules.
        head=f"<style>{(HERE / 'page' / 'style.css').read_text(encoding='utf-8')}</style>",
        footer_links=["api", "gradio"],
        max_file_size=MAX_BYTES,
        app_kwargs={"middleware": [Middleware(RequestLimits, uploads=uploads)]},
        run_history=False,  # it would store visitors' photos in their browsers
        show_error=True,
        ssr_mode=False,
        # By default Gradio keeps each session's last response for an hour; nothing here needs it.
        state_session_capacity=1,
    )


if __name__ == "__main__":
    sys.exit(main())
