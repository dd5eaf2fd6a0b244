"""Runs the tests of each hook in an environment with its framework; they skip without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stats.peer_environment import run_tests_with_extra

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("extra", "folder"),
    [("langchain", "langchain"), ("litellm", "litellm"), ("openai-agents", "openai_agents")],
)
def test_hook_with_its_framework(extra: str, folder: str, root: Path, tmp_path: Path) -> None:
    # What the page of the framework has its readers install beside the extra.
    packages = ["langchain-openai"] if extra == "langchain" else []
    tests = f"tests/integrations/{folder}"
    outcomes = run_tests_with_extra(extra, tests, root, tmp_path, more=packages)
    assert set(outcomes) == {"passed"}, outcomes
