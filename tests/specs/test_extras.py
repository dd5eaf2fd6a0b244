"""A missing optional package is one sentence with the install line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from truing.core.errors import MissingExtra
from truing.specs.extras import EXTRA_BY_PACKAGE, needs_extra


def test_the_extra_of_the_package_or_of_the_feature_is_named() -> None:
    with (
        pytest.raises(MissingExtra, match=r"x \(package torch\.nn\) .*'truing\[local\]'"),
        needs_extra("x"),
    ):
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    with (
        pytest.raises(MissingExtra, match=r"truing train \(package torch\) .*'truing\[train\]'"),
        needs_extra("truing train", "train"),
    ):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


def test_other_errors_pass_through() -> None:
    with pytest.raises(ModuleNotFoundError, match="unknown_package"), needs_extra("x", "serve"):
        raise ModuleNotFoundError("No module named 'unknown_package'", name="unknown_package")
    with pytest.raises(ImportError, match="cannot import"), needs_extra("x", "serve"):
        raise ImportError("cannot import name 'y' from 'torch'", name="torch")
    with needs_extra("x"):
        pass


def test_every_extra_is_defined_in_pyproject(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert set(EXTRA_BY_PACKAGE.values()) <= set(project["optional-dependencies"])
