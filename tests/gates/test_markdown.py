"""A verdict as a comment on a pull request."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from truing.gates.markdown import COMMENT_MARK, to_markdown
from truing.gates.verdict import GateVerdict, RuleOutcome

OK = {"status": "passed", "reason": "x"}


def _verdict(**fields: object) -> GateVerdict:
    defaults = {
        "run": "runs/ci",
        "model": "m",
        "title": "release",
        "verdict": "failed",
        "outcomes": (
            RuleOutcome(
                rule="harm.upper < 0.02",
                name="harmful answers",
                status="failed",
                reason="8 of 100",
                estimate=0.08,
                lower=0.04,
                upper=0.15,
                n=100,
            ),
            RuleOutcome(rule="cut.upper < 0.1", status="inconclusive", reason="too few rows"),
        ),
        "not_tested": ("over-refusal",),
    }
    return GateVerdict(**{**defaults, **fields})


def test_a_comment_shows_verdict_rules_figures_and_what_was_not_tested() -> None:
    text = to_markdown(_verdict()).decode()
    assert text.startswith(COMMENT_MARK + "\n### ❌ release: failed\n")
    assert "| ❌ failed | harmful answers | 8.0% \\[4.0%, 15.0%\\] of 100 | 8 of 100 |" in text
    assert "| ❔ inconclusive | cut.upper &lt; 0.1 |  | too few rows |" in text
    assert "Not tested: over-refusal." in text


@given(st.text(max_size=60))
def test_no_text_of_a_run_becomes_markup(text: str) -> None:
    outcome = RuleOutcome(rule=text, status="passed", reason=text)
    lines = to_markdown(_verdict(outcomes=(outcome,), model=text, title=text)).decode().split("\n")
    rows = [line for line in lines if line.startswith("| ✅")]
    assert len(rows) == 1
    # Four cells, whatever the text: each bar within a cell is escaped.
    assert len(re.findall(r"(?<!\\)\|", rows[0].replace("\\\\", ""))) == 5
    assert not re.search(r"(?<!\\)[@<`]", "\n".join(lines[1:]).replace("\\\\", ""))


def test_links_and_mentions_are_broken() -> None:
    outcome = RuleOutcome(rule="ask @ann, see https://example.org, www.example.org and #12", **OK)
    row = to_markdown(_verdict(outcomes=(outcome,))).decode()
    for linked in ("@ann", "://", "www.", "#12"):
        assert linked not in row


def test_a_comment_has_room_for_any_verdict_and_says_what_it_leaves_out() -> None:
    outcomes = tuple(RuleOutcome(rule=f"r{i}{'*' * 400}", **OK) for i in range(400))
    notes = tuple("|" * 2000 for _ in range(400))
    verdict = _verdict(outcomes=outcomes, notes=notes, not_tested=notes)
    text = to_markdown(verdict).decode()
    assert len(text) < 65_536
    assert " more rules | | |" in text and "; and 390 more." in text
