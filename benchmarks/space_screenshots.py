"""Pictures of the Space for the docs, made by Chromium from public-domain photos.

`python benchmarks/space_screenshots.py --output docs/images` starts `spaces_app/app.py` and walks
through it as a visitor would, at a desktop's and at a phone's width. A Korean font is needed, such
as Debian's package fonts-nanum.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from space_load import started_space
from tqdm import tqdm

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 1080}, "locale": "en-US"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "dark",
}
SETTLE_MS = 800  # until bars and the sticky card stand still
QUALITY = 80


def open_space(browser: Browser, url: str, example: str, options: dict[str, Any]) -> Page:
    """Open the Space in a window of its own, and choose an example photo."""
    page = browser.new_context(**options).new_page()
    page.goto(url)
    page.click(f"[data-example={example}]")
    page.wait_for_selector("#explorer .status.good")
    page.wait_for_timeout(SETTLE_MS)
    return page


def choose(page: Page, attribute: str) -> None:
    """Look at one attribute."""
    page.click(f"[data-attribute={attribute}]")
    page.wait_for_timeout(SETTLE_MS)


def show_faces(browser: Browser, url: str) -> Page:
    """Two faces on a desktop, and where the model looked for the hat."""
    page = open_space(browser, url, "together", DESKTOP)
    choose(page, "Wearing_Hat")
    page.evaluate("scrollTo(0, 0)")
    return page


def show_known(browser: Browser, url: str) -> Page:
    """What the visitor knows, against the model's guess."""
    page = open_space(browser, url, "astronaut", DESKTOP)
    choose(page, "Male")
    page.check(".know input[value=no]", force=True)
    page.wait_for_selector(".known-list .chip")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(SETTLE_MS)
    return page


def show_phone(browser: Browser, url: str) -> Page:
    """A phone, dark: the chosen attribute stays in sight above the bars."""
    page = open_space(browser, url, "astronaut", {**PHONE, "locale": "en-US"})
    choose(page, "Smiling")
    page.locator("[data-group=expression]").scroll_into_view_if_needed()
    page.wait_for_timeout(SETTLE_MS)
    return page


def show_korean(browser: Browser, url: str) -> Page:
    """A phone whose language is Korean."""
    page = open_space(browser, url, "hopper", {**PHONE, "locale": "ko-KR", "color_scheme": "light"})
    page.evaluate("scrollTo(0, 0)")
    return page


def show_tab(name: str) -> Callable[[Browser, str], Page | None]:
    """One of the other tabs, where the Space has it, on a desktop."""

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


def main() -> int:
    """Take the pictures.

    Returns:
        The exit code, 2 without a browser.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    args = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        print("error: no Chromium: install Debian's package chromium", file=sys.stderr)
        return 2
    args.output.mkdir(parents=True, exist_ok=True)
    with started_space() as (url, _, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS])
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
