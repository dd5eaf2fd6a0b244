"""A tiny random language model in a folder; its pad token is its end token."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from tests.models.local.conftest import write


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny random llama with a chat template."""
    return str(write(tmp_path_factory.mktemp("base"), "llama"))


@pytest.fixture(scope="session")
def base_without_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny random llama without a chat template."""
    return str(write(tmp_path_factory.mktemp("bare"), "llama", template=False))


@pytest.fixture
def out(tmp_path: Path) -> str:
    """The output folder of a run."""
    return str(tmp_path / "run")


@pytest.fixture
def load(root: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that imports a script of the study, whose imports are side by side."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    return importlib.import_module
