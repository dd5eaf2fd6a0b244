"""Runs the tests of each hook in an environment with its framework; they skip without it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.stats.peer_environment import peer_interpreter

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("extra", "folder"),
    [("langchain", "langchain"), ("litellm", "litellm"), ("openai-agents", "openai_agents")],
)
def test_hook_with_its_framework(extra: str, folder: str, root: Path, tmp_path: Path) -> None:
    python = peer_interpreter(extra, f"{root}[{extra},serve]", tmp_path)
    tools = ["pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.120"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *tools]
    subprocess.run(install, check=True)
    # The checkout's own code, not a copy that an environment made earlier may hold.
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
    tests = subprocess.run(
        [*command, f"tests/integrations/{folder}"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    summary = tests.stdout[-3000:]
    assert tests.returncode == 0 and "skipped" not in summary, summary
