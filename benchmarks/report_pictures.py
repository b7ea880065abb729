"""The pictures of docs/report.md from a report: light, dark and phone.

    python benchmarks/report_pictures.py data/evaluate/report.html docs/images

Needs Chromium (`apt-get install chromium`).
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

_COLOURS = 128
#: Name, width and height in pixels, colours, and what is brought to the top.
PICTURES = (
    ("report", 1280, 1700, "light", None),
    ("report-dark", 1280, 1700, "dark", "#questions"),
    ("report-phone", 375, 1100, "light", "#questions"),
)


def main() -> None:
    report, folder = map(Path, sys.argv[1:])
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, width, height, scheme, top in PICTURES:
            page = chromium.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(report.resolve().as_uri())
            if top:
                page.locator(".row .open-row").first.click()
                page.evaluate("place => document.querySelector(place).scrollIntoView()", top)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            # Few colours are enough for a page, and take a third of the bytes.
            picture.quantize(_COLOURS).save(folder / f"{name}.png", optimize=True)
            page.close()
        chromium.close()


if __name__ == "__main__":
    main()
