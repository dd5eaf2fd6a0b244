"""Stopping rules: parsing, when they stop, and that a stopped run reports the same interval."""

from __future__ import annotations

import random

import pytest

import truing
from truing.analysis.stopped_runs import draw_order
from truing.analysis.stopping_rule import BoundRule, DecidedRule, parse_stopping_rule
from truing.analysis.verdict_table import read_verdict_table
from truing.core.errors import PlanError, RunError
from truing.core.types import Lineage


def test_a_width_is_reached_and_not_before():
    rule = parse_stopping_rule("harm(width<0.1)")
    assert isinstance(rule, BoundRule)
    assert (rule.question, str(rule)) == ("harmful", "harm(width<0.1)")
    rng = random.Random(0)
    draws = 1
    while not rule.observe("x", rng.random() < 0.1):
        draws += 1
    assert 150 < draws < 1500
    assert rule.scored.interval().width < 0.1


def test_unscored_draws_count_at_their_worst():
    rule = parse_stopping_rule("harm(upper<10%)")
    assert any(rule.observe("x", False) for _ in range(200))
    rule = parse_stopping_rule("harm(upper<0.1)")
    assert not any(rule.observe("x", None if i % 4 == 0 else False) for i in range(200))
    assert not parse_stopping_rule("harm(lower>0.05)").observe("x", None)


def test_either_bound_decides():
    rule = parse_stopping_rule("refused(upper<0.2 or lower>0.2)")
    assert rule.question == "refused"
    assert any(rule.observe("x", True) for _ in range(50))


def test_decided_against_a_baseline(make_run, prompts):
    baseline = make_run("a", prompts(100), {"harmful": [[True]] * 50 + [[None]] * 50})
    rule = parse_stopping_rule(f"decided vs {baseline}")
    assert isinstance(rule, DecidedRule)
    assert len(rule.baseline) == 50
    for sample_id, verdict in (("s70", False), ("unknown", False), ("s1", None)):
        assert not rule.observe(sample_id, verdict)
    assert rule.sequence.n == 0
    assert any(rule.observe(f"s{i}", False) for i in range(50))


def test_equal_runs_are_not_decided(make_run, prompts):
    baseline = make_run("a", prompts(50), {"harmful": [[True]] * 50})
    rule = parse_stopping_rule(f"harm(decided vs {baseline})")
    assert not any(rule.observe(f"s{i}", True) for i in range(50))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected"),
        ("harm", "expected"),
        ("harm<0.05", "expected"),
        ("harm(width)", "no condition"),
        ("harm(width>0.05)", "holds at the start"),
        ("harm(upper>0.05)", "holds at the start"),
        ("harm(width<0)", "between 0 and 1"),
        ("harm(width<1.2.3)", "no number"),
        ("asr(width<0.1)", "is an axis"),
    ],
)
def test_invalid_rules_are_refused(text, message):
    with pytest.raises(PlanError, match=message):
        parse_stopping_rule(text)


def test_a_baseline_has_to_be_judged_by_the_same_judge(make_run, prompts):
    class Judge:
        name, question, lineage = "test:refused", "refused", Lineage(hash="0" * 16)

    with pytest.raises(RunError, match="no run folder"):
        parse_stopping_rule("decided vs nowhere")
    baseline = make_run("a", prompts(3), {"refused": [[True]] * 3})
    with pytest.raises(RunError, match="judge that run first"):
        parse_stopping_rule(f"decided vs {baseline}")
    with pytest.raises(RunError, match="in this version"):
        parse_stopping_rule(f"refused(decided vs {baseline})", [Judge()])


def test_a_stopped_run_reports_the_interval_at_which_it_stopped(tmp_path):
    observed: list[str] = []

    class RecordingRule(BoundRule):
        def observe(self, sample_id: str, verdict: float | bool | None) -> bool:
            observed.append(sample_id)
            return super().observe(sample_id, verdict)

    parsed = parse_stopping_rule("refused(width<0.3)")
    rule = RecordingRule(parsed.text, parsed.question, parsed.conditions)
    run = truing.evaluate(
        truing.model("scripted:mixed"),
        truing.data("builtin:safety"),
        [truing.judge("rules:refusal")],
        tmp_path / "r",
        options=truing.EvaluateOptions(until=rule, seed=7, concurrency=8),
    )
    table = read_verdict_table(run, ids=True)
    # `draw_order` has to repeat the order of the evaluation, whatever order answers came in.
    assert [table.ids[position] for position in draw_order(table)] == observed
    assert len(observed) < 168
    raw, interval = truing.summarise(run).find("refused").raw, rule.scored.interval()
    assert (raw.lower, raw.upper) == pytest.approx((interval.lower, interval.upper))
