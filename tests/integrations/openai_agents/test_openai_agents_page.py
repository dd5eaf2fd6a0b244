"""The page `from the OpenAI Agents SDK`, followed with the real SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integrations.page_code import MASKED_PLUMS, run_page

pytest.importorskip("agents", reason="runs in `make test-peers`")

pytestmark = pytest.mark.timeout(600)


def test_the_page_can_be_followed(root: Path, tmp_path: Path) -> None:
    printed = run_page(root / "docs/how-to/from-openai-agents.md", tmp_path)
    assert printed.count(MASKED_PLUMS) == 1
