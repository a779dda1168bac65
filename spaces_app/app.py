"""The Space: facial attributes of a photo, in the browser and by gradio_client."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY = Path("/dev/shm")


def main() -> int:
    """Serve the Space until it is stopped.

    Returns:
        The exit code, 2 where no model can be loaded.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if MEMORY.is_dir():
        # Files that come through the API lie in memory too. Gradio reads this when it is imported.
        os.environ.setdefault("GRADIO_TEMP_DIR", str(MEMORY / "label2label-space"))

    import cv2
    import gradio as gr
    import torch
    from label2label.errors import UserError
    from layout import build_space
    from photos import MAX_BYTES

    # Many visitors are served best by as many photos at a time as there are cores, a thread each.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        space = build_space()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    space.launch(
        theme=gr.themes.Base(
            primary_hue="teal",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],  # none is fetched from elsewhere
            font_mono=["ui-monospace", "monospace"],
        ),
        # Not as `css`, whose rules Gradio rewrites.
        head=f"<style>{(HERE / 'page' / 'style.css').read_text(encoding='utf-8')}</style>",
        footer_links=["api", "gradio"],
        max_file_size=MAX_BYTES,
        run_history=False,  # it would keep visitors' photos in their browsers
        show_error=True,
        ssr_mode=False,
        # Gradio keeps the last answer of every session for an hour, which nothing here needs.
        state_session_capacity=1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
