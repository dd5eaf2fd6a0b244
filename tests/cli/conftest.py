"""Fixtures of the command-line tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.scripted_runs import evaluate_scripted


@pytest.fixture(scope="package")
def mixed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 168 prompts, about half of which the model refuses. Tests must not change it."""
    return evaluate_scripted(tmp_path_factory.mktemp("runs") / "mixed", "mixed")


@pytest.fixture
def published_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets specs such as `xstest` find the published sets."""
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
