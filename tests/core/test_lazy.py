"""Lazy exports: a name is imported at its first use, others raise AttributeError."""

from __future__ import annotations

import subprocess
import sys

import pytest

from truing.core import errors
from truing.core.lazy import lazy_exports


def test_names_come_from_their_modules() -> None:
    get, listed, everything = lazy_exports("truing.core", {"errors": "nearest", "": "lineage"})
    assert get("nearest") is errors.nearest
    assert get("lineage").__name__ == "truing.core.lineage"
    assert listed() == everything == ["lineage", "nearest"]


def test_another_name_is_an_attribute_error() -> None:
    get, _, _ = lazy_exports("truing.core", {"errors": "nearest"})
    with pytest.raises(AttributeError, match="'truing.core' has no attribute 'nothing'"):
        get("nothing")


def test_a_package_loads_no_module_before_a_name_is_used() -> None:
    code = "import sys, truing.analysis; print('truing.analysis.rates' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
