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


@pytest.mark.parametrize(
    ("tests", "packages"),
    [
        ("tests/bulk/test_moderate_on_ray.py", []),
        ("tests/bulk/test_ray_cluster.py", []),
        ("tests/bulk/test_evaluate_on_ray.py -k on_a_cluster", []),
        ("tests/bulk/test_rank_on_ray.py -k on_a_cluster", []),
        ("tests/train/rl/test_processes.py -k ray_worker", []),
        ("tests/models/test_pool.py", []),
        ("tests/bulk/test_remote_files.py", ["s3fs", "moto[server]"]),
    ],
)
def test_ray_and_object_stores(tests: str, packages: list[str], root: Path, tmp_path: Path) -> None:
    outcomes = run_tests_with_extra(
        "ray", tests, root, tmp_path, more=packages, development_packages=True
    )
    assert set(outcomes) == {"passed"}, outcomes
