"""What a gate knows of the judge behind a rate."""

from __future__ import annotations

from pathlib import Path

from tests.gates.gate_rules import build_harm_run, make_rules

from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.summary import summarise
from truing.gates.context import GateContext
from truing.runs.folder import Run


def test_the_card_of_an_axis_is_that_of_the_question_behind_it(make_run, prompts):
    run = build_harm_run(make_run, prompts, 0, 10)
    facts = JudgeFacts(judge="j", question="harmful", data="d", n=9)
    context = GateContext(
        run=Run(run),
        summary=summarise(run),
        cards={"j": Path("j.json")},
        judges=Run(run).manifest.judges,
        rules=make_rules("harm.upper < 0.1"),
        facts=(facts,),
    )
    rate = context.summary.find("harmful")
    assert context.facts_of(rate) == facts
    cut = context.summary.find("cut")
    assert context.facts_of(cut) is None
