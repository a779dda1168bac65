"""Pictures of the Space for the docs, made by Chromium from public-domain photos.

`python benchmarks/space_screenshots.py --output docs/images` starts `spaces_app/app.py` and uses
it as a visitor would, at the width of a desktop and of a phone. It needs a Korean font, such as
Debian's package fonts-nanum.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import command_line, finish, launch_chromium
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from space_load import started_space
from tqdm import tqdm

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 1080}, "locale": "en-US"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
SETTLE_MS = 800  # until the animations of the bars and the sticky card have ended


def show_top(page: Page, attribute: str = "") -> None:
    """Select an attribute, if one is given, and scroll up."""
    if attribute:
        page.click(f"[data-attribute={attribute}]")
        page.wait_for_timeout(SETTLE_MS)
    page.evaluate("scrollTo(0, 0)")


def show_known(page: Page) -> None:
    """Give a known attribute that contradicts the model's prediction."""
    show_top(page, "Male")
    page.check(".know input[value=no]", force=True)
    page.wait_for_selector(".known-list .chip")
    page.evaluate("scrollTo(0, 0)")


def show_bars(page: Page) -> None:
    """Scroll to the bars: the selected attribute stays visible above them."""
    show_top(page, "Smiling")
    page.locator("[data-group=expression]").scroll_into_view_if_needed()


def show_tab(page: Page, name: str, awaited: str = "body") -> None:
    """Open another tab and wait for what it shows."""
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(awaited)


# By name: the example photo that is chosen, the browser window, and what is done then.
PICTURES: dict[str, tuple[str, dict[str, Any], Callable[[Page], None]]] = {
    "space": ("together", DESKTOP, partial(show_top, attribute="Wearing_Hat")),
    "space-known": ("astronaut", DESKTOP, show_known),
    "space-phone": ("astronaut", {**PHONE, "locale": "en-US", "color_scheme": "dark"}, show_bars),
    "space-korean": ("hopper", {**PHONE, "locale": "ko-KR", "color_scheme": "light"}, show_top),
    "space-compare": (
        "hopper",
        DESKTOP,
        partial(show_tab, name="Compare", awaited="#comparison tbody tr"),
    ),
    "space-audit": ("hopper", DESKTOP, partial(show_tab, name="Fairness")),
}


def main() -> None:
    """Take the screenshots."""
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with started_space() as (url, _, _), sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        for name, (example, window, show) in tqdm(PICTURES.items(), unit="picture"):
            page = browser.new_context(**window).new_page()
            page.goto(url)
            page.click(f"[data-example={example}]")
            page.wait_for_selector("#explorer .status.good")
            page.wait_for_timeout(SETTLE_MS)
            show(page)
            page.wait_for_timeout(SETTLE_MS)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            path = args.output / f"{name}.webp"
            picture.save(path, quality=80, method=6)
            print(f"{path}: {picture.width}x{picture.height}, {path.stat().st_size / 1000:.0f} kB")
            page.context.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(finish(main))
