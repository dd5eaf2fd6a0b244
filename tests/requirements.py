"""What tests need of the machine. Where it is absent they are skipped; with CI=true they fail."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, NoReturn

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def skip_or_fail(reason: str) -> NoReturn:
    """Skips the test; with CI=true fails it, so that a green CI has really run it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def skip_without_data(reason: str) -> NoReturn:
    """Skips the test where TRUING_WITHOUT_DATA=true says that the published files are not there.

    They are not redistributed, so a CI without them can still promise all the rest.
    """
    if os.environ.get("TRUING_WITHOUT_DATA") == "true":
        pytest.skip(reason)
    skip_or_fail(reason)


def require_variable(name: str) -> str:
    """Returns the value of an environment variable, such as the address of a service."""
    return os.environ.get(name) or skip_or_fail(f"{name} is not set")


def require_chromium() -> str:
    """Returns the path of Chromium."""
    return CHROMIUM or skip_or_fail("chromium is not installed")


def hide_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Makes the imports of a package fail for one test, as where it is not installed."""
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)


def require_package(name: str) -> Any:
    """Returns a package that `make test-peers` installs; without it the test is skipped.

    That command (tests/test_optional_packages.py and the peers' own) fails for a skipped test.
    """
    return pytest.importorskip(name, reason=f"{name} is installed by `make test-peers`")
