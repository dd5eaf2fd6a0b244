"""Runs the tests of extras that `dev` leaves out, in an environment with the extra; they skip without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stats.peer_environment import run_tests_with_extra

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]


def test_presidio(root: Path, tmp_path: Path) -> None:
    tests = "tests/rails/library/test_presidio.py"
    outcomes = run_tests_with_extra("presidio", tests, root, tmp_path)
    assert set(outcomes) == {"passed"}, outcomes


def test_wandb(root: Path, tmp_path: Path) -> None:
    tests = "tests/train/test_tracker.py"
    outcomes = run_tests_with_extra("wandb", tests, root, tmp_path, development_packages=True)
    assert set(outcomes) == {"passed"}, outcomes
