"""A tiny random language model in a folder; its pad token is its end token."""

from __future__ import annotations

from pathlib import Path

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
