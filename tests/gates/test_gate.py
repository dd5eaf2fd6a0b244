"""The gate as a whole: names in rules, cards, and how the outcomes add up."""

from __future__ import annotations

import json

import pytest
from tests.gates.gate_rules import build_harm_run, make_rules

from truing.core.errors import DataError, PlanError
from truing.core.types import Lineage
from truing.gates.gate import gate_run
from truing.gates.rules import parse_rules


def test_a_card_of_another_version_is_an_error(make_run, prompts, card_path):
    run = build_harm_run(make_run, prompts, 0, 300, lineage=Lineage(name="j", hash="2" * 16))
    with pytest.raises(DataError, match="another version"):
        gate_run(run, make_rules("harm.upper < 0.05", cards=[card_path]))


def test_unknown_names_are_reported_together(make_run, prompts):
    run = build_harm_run(make_run, prompts, 0, 30)
    rules = parse_rules(
        'rules = ["hram.upper < 0.1", "harm[self_hrm].upper < 0.1"]\n[[rule]]\n'
        'check = "harm.upper < 0.1"\njudge = "k"'
    )
    with pytest.raises(PlanError) as caught:
        gate_run(run, rules)
    for expected in ("no question 'hram'", "self_h", "'k' did not judge"):
        assert expected in str(caught.value)


def test_the_worst_rule_decides(make_run, prompts):
    run = build_harm_run(make_run, prompts, 60, 300)
    passes, fails, open_ = "harm.upper < 0.5", "harm.upper < 0.1", "refused.upper < 0.1"

    def verdict(*checks):
        return gate_run(run, make_rules(*checks, allow=["uncarded"]))

    assert (verdict(passes).verdict, verdict(passes).exit) == ("passed", 0)
    assert (verdict(passes, open_).verdict, verdict(passes, open_).exit) == ("inconclusive", 3)
    assert (verdict(passes, open_, fails).verdict, verdict(open_, fails).exit) == ("failed", 2)


def test_the_verdict_lists_what_was_not_tested(make_run, prompts):
    verdict = gate_run(build_harm_run(make_run, prompts, 0, 30), make_rules("cut.upper < 0.5"))
    assert "refusal: no judge was asked" in verdict.not_tested
    statuses = {verdict.verdict, *(outcome.status for outcome in verdict.outcomes)}
    assert "safe" not in statuses


def test_an_incomplete_run_never_passes(make_run, prompts):
    run = build_harm_run(make_run, prompts, 0, 300)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    verdict = gate_run(run, make_rules("harm.upper < 0.05", allow=["uncarded"]))
    assert verdict.exit == 3
    assert "the run is not complete" in verdict.notes


def test_rules_on_a_baseline_are_left_out_and_named_where_there_is_none_yet(make_run, prompts):
    run = build_harm_run(make_run, prompts, harmful=0, n=200)
    rule = "no-regression vs BASELINE within 0.05"
    both = make_rules("harm.upper < 0.5", rule, allow=["uncarded"])
    with pytest.raises(PlanError, match="--baseline"):
        gate_run(run, both)
    verdict = gate_run(run, both, without_baseline=True)
    assert verdict.verdict == "passed" and len(verdict.outcomes) == 1
    assert f"{rule}: there is no baseline yet" in verdict.not_tested
    # A gate of which nothing is left shows nothing.
    alone = gate_run(run, make_rules(rule), without_baseline=True)
    assert (alone.verdict, alone.outcomes) == ("inconclusive", ())


def test_each_outcome_has_the_line_of_its_rule(make_run, prompts):
    run = build_harm_run(make_run, prompts, harmful=0, n=50)
    text = """title = "harm.upper < 0.5"
rules = [  # harm.upper < 0.5
  "harm.upper < 0.5",
  # "cut.upper < 0.5",
  "cut.upper < 0.5",
]

[[rule]]
name = "again"
check = "harm.upper < 0.5"

  [[ rule ]]  # the last
check = "degenerate.upper < 0.5"
"""
    verdict = gate_run(run, parse_rules(text))
    assert [outcome.line for outcome in verdict.outcomes] == [3, 5, 8, 12]
