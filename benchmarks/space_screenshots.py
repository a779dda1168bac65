"""Pictures of the Space for the docs, made by Chromium from public-domain photos.

`python benchmarks/space_screenshots.py --output docs/images` starts `spaces_app/app.py` and uses
it as a visitor would, at the width of a desktop and of a phone. It needs a Korean font, such as
Debian's package fonts-nanum.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import command_line, find_chromium, finish
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from space_load import started_space
from tqdm import tqdm

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 1080}, "locale": "en-US"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "dark",
}
SETTLE_MS = 800  # until the animations of the bars and the sticky card have ended
QUALITY = 80


def open_space(browser: Browser, url: str, example: str, options: dict[str, Any]) -> Page:
    """Open the Space in a new window and choose an example photo."""
    page = browser.new_context(**options).new_page()
    page.goto(url)
    page.click(f"[data-example={example}]")
    page.wait_for_selector("#explorer .status.good")
    page.wait_for_timeout(SETTLE_MS)
    return page


def choose(page: Page, attribute: str) -> None:
    """Select an attribute."""
    page.click(f"[data-attribute={attribute}]")
    page.wait_for_timeout(SETTLE_MS)


def show_faces(browser: Browser, url: str) -> Page:
    """Show two faces on a desktop, and the attention map of the hat."""
    page = open_space(browser, url, "together", DESKTOP)
    choose(page, "Wearing_Hat")
    page.evaluate("scrollTo(0, 0)")
    return page


def show_known(browser: Browser, url: str) -> Page:
    """Show a known attribute that contradicts the model's prediction."""
    page = open_space(browser, url, "astronaut", DESKTOP)
    choose(page, "Male")
    page.check(".know input[value=no]", force=True)
    page.wait_for_selector(".known-list .chip")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(SETTLE_MS)
    return page


def show_phone(browser: Browser, url: str) -> Page:
    """Show a phone in dark mode: the selected attribute stays visible above the bars."""
    page = open_space(browser, url, "astronaut", {**PHONE, "locale": "en-US"})
    choose(page, "Smiling")
    page.locator("[data-group=expression]").scroll_into_view_if_needed()
    page.wait_for_timeout(SETTLE_MS)
    return page


def show_korean(browser: Browser, url: str) -> Page:
    """Show a phone whose language is Korean."""
    page = open_space(browser, url, "hopper", {**PHONE, "locale": "ko-KR", "color_scheme": "light"})
    page.evaluate("scrollTo(0, 0)")
    return page


def show_tab(name: str) -> Callable[[Browser, str], Page | None]:
    """Return a function that shows another tab on a desktop, if the Space has it."""

    def show(browser: Browser, url: str) -> Page | None:
        page = open_space(browser, url, "hopper", DESKTOP)
        tab = page.get_by_role("tab", name=name)
        if not tab.count():
            return None
        tab.click()
        if name == "Compare":
            page.wait_for_selector("#comparison tbody tr")
        page.wait_for_timeout(SETTLE_MS)
        return page

    return show


PICTURES: dict[str, Callable[[Browser, str], Page | None]] = {
    "space": show_faces,
    "space-known": show_known,
    "space-phone": show_phone,
    "space-korean": show_korean,
    "space-compare": show_tab("Compare"),
    "space-audit": show_tab("Fairness"),
}


def main() -> None:
    """Take the screenshots."""
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with started_space() as (url, _, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*ARGUMENTS])
        for name, show in tqdm(PICTURES.items(), unit="picture"):
            page = show(browser, url)
            if page is None:
                continue
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            path = args.output / f"{name}.webp"
            picture.save(path, quality=QUALITY, method=6)
            print(f"{path}: {picture.width}x{picture.height}, {path.stat().st_size / 1000:.0f} kB")
            page.context.close()
        browser.close()


if __name__ == "__main__":
    sys.exit(finish(main))
