"""Fixtures with the folders of published data, peers' numbers and conformance cases.

They are read in place and never copied. Without them the tests that need them are skipped with a
reason; with CI=true they fail, unless TRUING_WITHOUT_DATA=true says that they are not there.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import hypothesis
import pytest
from tests.requirements import skip_without_data
from tests.run_folders import make_run as make_run
from tests.run_folders import prompts as prompts

ROOT = Path(__file__).resolve().parents[1]

# `moderation:research` is a distribution of its own: where it is not installed, that of the checkout.
if importlib.util.find_spec("truing_research") is None:
    sys.path.append(str(ROOT / "distributions" / "truing-research" / "src"))

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")

# Folders given relative to the repository (CI does) hold for tests that run commands elsewhere too.
for _variable in ("TRUING_DATA", "TRUING_PARITY"):
    if os.environ.get(_variable):
        os.environ[_variable] = str(ROOT / os.environ[_variable])

# No time limit for an example: on a busy machine it fails at random.
hypothesis.settings.register_profile("truing", deadline=None)
hypothesis.settings.load_profile("truing")


def _folder(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    path = Path(value) if value else ROOT.parent / "shared" / default
    if not path.is_dir():
        reason = (
            f"{variable} names no folder ({path})"
            if value
            else f"{variable} is not set, and there is no {path}"
        )
        skip_without_data(reason)
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The published sets (`TRUING_DATA`)."""
    return _folder("TRUING_DATA", "data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The peers' numbers (`TRUING_PARITY`)."""
    return _folder("TRUING_PARITY", "parity")


@pytest.fixture(scope="session")
def conformance_dir() -> Path:
    """The conversations recorded from NeMo Guardrails (`TRUING_CONFORMANCE`)."""
    return _folder("TRUING_CONFORMANCE", "conformance")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(autouse=True)
def _no_secret_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
