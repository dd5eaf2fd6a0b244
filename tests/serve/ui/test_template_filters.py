"""How claims, times and reasons are written on a page."""

from __future__ import annotations

import pytest

from truing.analysis.claims import Claim
from truing.report.blocks import Cell
from truing.serve.ui.template_filters import find_strike_reasons, format_claim, format_minutes


@pytest.mark.parametrize(
    ("claim", "question", "words"),
    [
        ("safer than", "attack_success", "Safer"),
        ("fell", "attack_success", "Harmful answers to harmful prompts: fell"),
        ("not worse than", "cut", "Cut at the token limit: no worse"),
        ("not worse than", "degenerate", "Degenerate: no worse"),
        ("at most", "harmful", "At most harmful"),
    ],
)
def test_claims_are_named_by_titles(claim: str, question: str, words: str) -> None:
    decided = Claim(claim=claim, variant="v", decision="not_shown", reason="", question=question)
    assert format_claim(decided) == words


def test_times_are_written_to_the_minute_and_other_texts_as_they_are() -> None:
    assert format_minutes("2026-11-29T23:05:05+00:00") == "2026-11-29 23:05 UTC"
    assert format_minutes("2026-11-29T23:05:05Z") == "2026-11-29 23:05 UTC"
    for text in ("", "yesterday", "2026-11-29T23:05:05+02:00"):
        assert format_minutes(text) == text


def test_each_reason_is_stated_once_in_the_order_of_the_cells() -> None:
    cells = [Cell("1 %"), Cell("2 %", "struck", why="b"), Cell("3 %", "struck", why="a")]
    assert find_strike_reasons([*cells, cells[1]]) == ["b", "a"]
