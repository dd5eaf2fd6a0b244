"""Printing a report: what is said without Playwright, without a browser, and about a broken one.

The pages themselves are looked at in test_browser.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from truing.core.errors import MissingExtra, UserError
from truing.report import pdf


def test_without_playwright_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    monkeypatch.setitem(sys.modules, "playwright", None)
    with pytest.raises(MissingExtra, match=r"--pdf .*'truing\[pdf\]'"):
        pdf.write_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []


def fake_playwright(path: Path) -> SimpleNamespace:
    return SimpleNamespace(chromium=SimpleNamespace(executable_path=str(path)))


def test_playwrights_own_browser_is_preferred(tmp_path: Path) -> None:
    own = tmp_path / "chrome"
    own.touch()
    assert pdf._find_browser(fake_playwright(own)) is None


def test_an_installed_browser_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "google-chrome"
    installed.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pdf._find_browser(fake_playwright(tmp_path / "absent")) == str(installed)


def test_without_a_browser_the_error_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="playwright install chromium"):
        pdf._find_browser(fake_playwright(tmp_path / "absent"))


def test_a_browser_that_does_not_start_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(pdf, "_find_browser", lambda playwright: str(broken))
    target = tmp_path / "report.pdf"
    with pytest.raises(UserError, match="the browser cannot print") as caught:
        pdf.write_pdf(tmp_path / "report.html", target)
    assert "\n" not in str(caught.value)
    assert not target.exists()
