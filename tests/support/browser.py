"""A headless Chromium at the page of a real gateway; whatever it complains of fails the test."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    async_playwright,
    expect,
)

from stockify import page as page_build

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WAIT_MS = 15_000

__all__ = ["Window", "expect", "launched", "opened", "program"]


@dataclass
class Window:
    """A browser window and what came to light in it."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    async def open(self, token: str = "", query: str = "") -> None:
        fragment = f"#token={token}" if token else ""
        await self.page.goto(f"{self.origin}/{query}{fragment}")

    async def text(self, selector: str) -> str:
        return (await self.page.locator(selector).inner_text()).strip()

    async def shows(self, selector: str, text: str) -> None:
        """Wait until an element reads exactly so."""
        await expect(self.page.locator(selector)).to_have_text(text, timeout=WAIT_MS)

    def cell(self, strike: float, side: str, name: str) -> str:
        """The selector of a leg's cell; `side` is `c` or `p`."""
        return f'.grid-row[data-strike="{strike:g}"] .{side}[data-field="{name}"]'


def program() -> str:
    """A Chromium of this machine; skips the test where there is none."""
    named = os.environ.get("STOCKIFY_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or STOCKIFY_CHROMIUM")
    return found


@contextlib.asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A Chromium without windows, and a page that is built; skips where there is no Chromium."""
    executable = program()
    page_build.ensure()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def opened(
    browser: Browser, origin: str, *, width: int = 1600, height: int = 900, **options: Any
) -> AsyncIterator[Window]:
    """A fresh window; at the end it must have loaded nothing foreign and said nothing bad."""
    viewport = ViewportSize(width=width, height=height)
    context = await browser.new_context(viewport=viewport, **options)
    try:
        window = Window(await context.new_page(), origin)
        _watch(window)
        yield window
    finally:
        await context.close()
    foreign = [url for url in window.requests if not url.startswith(f"{origin}/")]
    assert not window.complaints, window.complaints
    assert not foreign, foreign


def _watch(window: Window) -> None:
    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            window.complaints.append(message.text)

    def on_request(request: Request) -> None:
        window.requests.append(request.url)

    window.page.on("console", on_console)
    window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
    window.page.on("request", on_request)
