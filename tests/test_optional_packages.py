"""Runs the tests of extras that `dev` leaves out, in an environment with the extra; they skip without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stats.peer_environment import run_tests_with_extra

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]


def test_presidio(root: Path, tmp_path: Path) -> None:
    run_tests_with_extra("presidio", "tests/rails/library/test_presidio.py", root, tmp_path)


def test_wandb(root: Path, tmp_path: Path) -> None:
    tests = "tests/train/test_tracker.py"
    run_tests_with_extra("wandb", tests, root, tmp_path, development_packages=True)
