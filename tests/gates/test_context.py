"""Which figures may pass a gate, and what a rule may allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gates.gate_rules import build_harm_run, make_rules

from truing.analysis.summary import summarise
from truing.gates.context import GateContext, distrust_reason
from truing.gates.rules import GateRule
from truing.runs.folder import Run


@pytest.fixture
def context(make_run, prompts):
    """A run judged by j, which has a card and was trained on nothing."""
    run = build_harm_run(make_run, prompts, 0, 10)
    return GateContext(
        run=Run(run),
        summary=summarise(run),
        cards={"j": Path("j.json")},
        judges=Run(run).manifest.judges,
        rules=make_rules("harm.upper < 0.1"),
    )


@pytest.mark.parametrize(
    ("figure", "judge", "struck", "reason", "allowance"),
    [
        ("raw", "j", None, None, None),
        ("corrected", "other", None, None, None),  # labels need no card
        ("raw", "engine", None, None, None),
        ("raw", "human:a", None, None, None),
        ("raw", "other", None, "has no card", "uncarded"),
        ("transported", "j", None, "assumes that the card's", "transported"),
        ("raw", "j", "it chose the answers", "it chose the answers", "overlap"),
    ],
)
def test_distrust(context, figure, judge, struck, reason, allowance):
    actual = distrust_reason(context, GateRule(text="r"), figure, judge, struck)
    assert actual is None if reason is None else reason in actual
    if allowance is not None:
        rule = GateRule(text="r", allow=(allowance,))
        assert distrust_reason(context, rule, figure, judge, struck) is None


def test_a_judge_trained_on_prompts_of_the_run(context):
    context.trained_on = {"j": 3}
    assert "3 prompts" in distrust_reason(context, GateRule(text="r"), "corrected", "j", None)
