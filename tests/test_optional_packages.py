"""Runs the tests of extras that `dev` leaves out, in an environment with the extra; they skip without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.peers import PEERS, run_tests_with_peer

# The environment, and words for pytest: paths, with `-k` where the rest runs without the package.
TESTS = [
    ("langchain", "tests/integrations/langchain tests/integrations/nemo/test_runnable_rails.py"),
    ("litellm", "tests/integrations/litellm"),
    ("openai-agents", "tests/integrations/openai_agents"),
    ("presidio", "tests/rails/library/test_presidio.py"),
    ("wandb", "tests/train/test_tracker.py"),
    ("ray", "tests/bulk/test_moderate_on_ray.py"),
    ("ray", "tests/bulk/test_ray_cluster.py"),
    ("ray", "tests/bulk/test_ray_shards.py"),
    ("ray", "tests/bulk/test_evaluate_on_ray.py -k on_a_cluster"),
    ("ray", "tests/bulk/test_remote_account.py"),
    ("ray", "tests/bulk/test_rank_on_ray.py -k on_a_cluster"),
    ("ray", "tests/train/rl/test_processes.py -k ray_worker"),
    ("ray", "tests/models/test_pool.py"),
    ("ray", "tests/bulk/test_remote_files.py"),
]


@pytest.mark.peers
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("peer", "tests"), TESTS)
def test_none_is_skipped_with_its_package(peer: str, tests: str) -> None:
    outcomes = run_tests_with_peer(peer, *tests.split())
    assert set(outcomes) == {"passed"}, outcomes


def test_every_file_that_skips_without_a_package_is_run_with_it(root: Path) -> None:
    skips = re.compile(r"^\s*(?:\w+ = )?(?:pytest\.importorskip|require_package)\(", re.M)
    listed = [root / word for _, words in TESTS for word in words.split() if "/" in word]
    files = {path for path in (root / "tests").rglob("test_*.py") if skips.search(path.read_text())}
    assert [p for p in files if not any(p.is_relative_to(path) for path in listed)] == []
    assert [p for p in listed if not any(path.is_relative_to(p) for path in files)] == []
    assert {peer for peer, _ in TESTS} <= set(PEERS)
