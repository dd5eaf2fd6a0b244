"""The engine under damaged files, failing writes, syncs and renames, and jumping clocks."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def faults(root: Path) -> ModuleType:
    path = root / "benchmarks" / "security" / "engine_faults.py"
    spec = importlib.util.spec_from_file_location("engine_faults", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.core.private_files._FIRST_WAIT_SECONDS", 0.0)


def test_nothing_is_lost(faults: ModuleType) -> None:
    rows = faults.run_cases(3, corruptions=6, failures=9, clocks=1)
    assert [row for row in rows if not faults.is_passed(row)] == []
    assert sum(row["told"] not in ("", "went on") for row in rows) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_at_full_size(faults: ModuleType, seed: int) -> None:
    rows = faults.run_cases(seed, corruptions=60, failures=90, clocks=5)
    assert [row for row in rows if not faults.is_passed(row)] == []
