"""Summaries and comparisons show themselves in a real IPython shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import truing
from truing.integrations.notebook import register_formatters


@pytest.fixture
def shell() -> Iterator[Any]:
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_outside_of_a_notebook_nothing_is_registered() -> None:
    assert register_formatters() is False


def test_summaries_and_comparisons_are_tables(shell: Any, tmp_path: Path) -> None:
    assert register_formatters() is True
    before = truing.evaluate("scripted:comply", "builtin:safety", "rules:refusal", tmp_path / "a")
    after = truing.evaluate("scripted:refuse", "builtin:safety", "rules:refusal", tmp_path / "b")
    format_html = shell.display_formatter.formatters["text/html"]
    summary = format_html(before.summary)
    assert "refuses harmful prompts" in summary
    comparison = format_html(truing.compare(before, after))
    assert "not shown" in comparison
    assert "168 shared samples" in comparison
