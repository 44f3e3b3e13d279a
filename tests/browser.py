"""A real browser, Debian's Chromium, that looks at a page as people do.

Invariant: whatever a test does, no request leaves the page's own origin, no script fails, nothing is refused by the
content security policy, and no dialog opens: `Look` tells it at the end of each test.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ("--disable-dev-shm-usage", "--force-color-profile=srgb", "--disable-lcd-text")
PATIENCE_MS = 20_000


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start the browser of the system."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    assert path is not None, "the tests of the page need a browser: apt-get install chromium"
    # Chromium's sandbox does not work for root.
    arguments = [*_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


class Look:
    """Somebody's look at an address, and what has gone wrong meanwhile."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.origin = origin
        self.faults: list[str] = []
        self.excused = ""
        """Part of what the console says of a server that refuses, or is away, on purpose."""
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", self._request)
        context.on("console", self._console)
        context.on("dialog", self._dialog)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        self.page: Page = context.new_page()

    def visit(self, address: str) -> Page:
        """Go to an address of the origin."""
        self.page.goto(self.origin + address)
        return self.page

    def _request(self, request: Request) -> None:
        place = urlsplit(request.url)
        if place.scheme not in {"data", "blob"} and f"{place.scheme}://{place.netloc}" != self.origin:
            self.faults.append(f"a request to {request.url}")

    def _console(self, message: ConsoleMessage) -> None:
        is_excused = self.excused and self.excused in message.text
        if message.type in {"error", "warning"} and not is_excused:
            self.faults.append(message.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()


@contextlib.contextmanager
def looking(  # noqa: PLR0913 - who looks, at what, and how
    started: Browser,
    origin: str,
    *,
    locale: str = "en-GB",
    scheme: Literal["light", "dark"] = "light",
    width: int = 1280,
    scripts: bool = True,
) -> Iterator[Look]:
    """Look at an origin as somebody new; what went wrong meanwhile fails the test."""
    context = started.new_context(
        locale=locale,
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    look = Look(context, origin)
    yield look
    context.close()
    assert not look.faults, look.faults
