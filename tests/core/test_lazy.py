"""Lazy exports: a name is imported at its first use, others raise AttributeError."""

from __future__ import annotations

import subprocess
import sys

import pytest

from truing.core import errors
from truing.core.lazy import lazy_exports


def test_names_come_from_their_modules() -> None:
    get, list_names, all_names = lazy_exports(
        "truing.core", {"errors": "did_you_mean", "": "lineage"}
    )
    assert get("did_you_mean") is errors.did_you_mean
    assert get("lineage").__name__ == "truing.core.lineage"
    assert list_names() == all_names == ["did_you_mean", "lineage"]


def test_unknown_name_raises_attribute_error() -> None:
    get, _, _ = lazy_exports("truing.core", {"errors": "did_you_mean"})
    with pytest.raises(AttributeError, match="'truing.core' has no attribute 'nothing'"):
        get("nothing")


def test_package_loads_no_module_before_a_name_is_used() -> None:
    code = "import sys, truing.analysis; print('truing.analysis.rates' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
