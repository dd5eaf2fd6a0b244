"""A report as a PDF, printed by Chromium through Playwright (extra `pdf`)."""

from __future__ import annotations

import shutil
from pathlib import Path

from truing.core.errors import UserError
from truing.core.private_files import create_folder, replace_file
from truing.specs.extras import needs_extra

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Names of installed browsers that can print, where Playwright has not installed its own."""
_PATIENCE_MS = 60_000


def write_pdf(page: Path, target: Path) -> None:
    """Prints a report page (.html) to a PDF file, which replaces an older one only as a whole.

    The page loads nothing from elsewhere, and the browser gets no network. Raises MissingExtra
    without Playwright, and UserError if there is no browser, or if it cannot print the page.
    """
    with needs_extra("--pdf", "pdf"):
        from playwright.sync_api import Error, sync_playwright
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=_find_browser(playwright))
            try:
                document = browser.new_context(offline=True).new_page()
                document.set_default_timeout(_PATIENCE_MS)
                document.goto(page.resolve().as_uri())
                # The style of the page has its format, margins and page numbers.
                content = document.pdf(prefer_css_page_size=True, print_background=True)
            finally:
                browser.close()
    except Error as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--pdf {target}: the browser cannot print {page}: {reason}") from error
    create_folder(target.parent)
    replace_file(target, content)


def _find_browser(playwright: object) -> str | None:
    """Returns the path of an installed browser; None for Playwright's own.

    Raises UserError if there is neither.
    """
    own = Path(playwright.chromium.executable_path)  # type: ignore[attr-defined]
    if own.is_file():
        return None
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise UserError(
        "--pdf needs Chromium: install one, or run `playwright install chromium`; the HTML report "
        "prints to the same pages from any browser"
    )
