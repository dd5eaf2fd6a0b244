"""The page `from LangChain`, followed with the real framework."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integrations.page_code import MASKED_PLUMS, run_page

pytest.importorskip("langchain", reason="runs in `make test-peers`")

pytestmark = pytest.mark.timeout(600)


def test_the_page_can_be_followed(root: Path, tmp_path: Path) -> None:
    printed = run_page(root / "docs/how-to/from-langchain.md", tmp_path)
    # The agent's answer after a tool call, and the chain's stream.
    assert printed.count(MASKED_PLUMS) == 2
