"""A page in headless Chromium: what it asks for and says is written down."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Debian's package `chromium`; Playwright's own build of it is not needed.
BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "chrome"])), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is not installed: apt-get install chromium"
)


@dataclass
class Opened:
    """A page in a browser without a network; `page` is Playwright's."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        """The text of each element, as the page holds it."""
        return [text.strip() for text in self.page.locator(selector).all_text_contents()]

    def ids(self) -> list[str]:
        """Ids of the questions in the rows that are shown."""
        found: list[str] = self.page.eval_on_selector_all(
            ".row", "rows => rows.map(row => row.dataset.id)"
        )
        return found


@contextmanager
def launched() -> Iterator[Any]:
    """A browser, which takes seconds to start: one for many pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def opened(
    chromium: Any, path: Path, *, width: int = 1280, scheme: str = "light", address: str = ""
) -> Iterator[Opened]:
    """The file in a window of `width` pixels, for a new user of a light or a dark system."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    context.set_default_timeout(60_000)
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.said.append(message.text))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("request", lambda request: found.asked.append(request.url))
    found.page.goto(path.as_uri() + address, timeout=60_000)
    yield found
    context.close()
