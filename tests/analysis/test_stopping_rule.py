"""Stopping rules: what they read, when they stop, what a stopped run then says."""

from __future__ import annotations

import random

import pytest

from truing.analysis.stopping_rule import BoundRule, DecidedRule, parse_stopping_rule
from truing.core.errors import PlanError, RunError


def test_a_width_is_reached_and_not_before():
    rule = parse_stopping_rule("harm(width<0.1)")
    assert (
        isinstance(rule, BoundRule)
        and rule.question == "harmful"
        and str(rule) == "harm(width<0.1)"
    )
    source = random.Random(0)
    seen = 1
    while not rule.observe("x", source.random() < 0.1):
        seen += 1
    assert 150 < seen < 1500 and rule.scored.interval().width < 0.1


def test_unscored_draws_count_at_their_worst():
    clean, open_ = parse_stopping_rule("harm(upper<10%)"), parse_stopping_rule("harm(upper<0.1)")
    stopped = [clean.observe("x", False) for _ in range(200)]
    assert any(stopped)
    assert not any(open_.observe("x", None if i % 4 == 0 else False) for i in range(200))
    assert not parse_stopping_rule("harm(lower>0.05)").observe("x", None)


def test_either_bound_decides():
    rule = parse_stopping_rule("refused(upper<0.2 or lower>0.2)")
    assert rule.question == "refused"
    assert any(rule.observe("x", True) for _ in range(50))


def test_decided_against_a_run(make_run, prompts):
    base = make_run("a", prompts(100), {"harmful": [[True]] * 50 + [[None]] * 50})
    rule = parse_stopping_rule(f"decided vs {base}")
    assert isinstance(rule, DecidedRule) and len(rule.baseline) == 50
    assert (
        not rule.observe("s70", False)
        and not rule.observe("nobody", False)
        and not rule.observe("s1", None)
    )
    assert rule.sequence.n == 0
    stops = [rule.observe(f"s{i}", False) for i in range(50)]
    assert any(stops)
    same = parse_stopping_rule(f"harm(decided vs {base})")
    assert not any(same.observe(f"s{i}", True) for i in range(50))


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_what_is_no_rule(text, said):
    with pytest.raises(PlanError, match=said):
        parse_stopping_rule(text)


def test_baselines_that_cannot_be_used(make_run, prompts):
    with pytest.raises(RunError, match="no run folder"):
        parse_stopping_rule("decided vs nowhere")
    base = make_run("a", prompts(3), {"refused": [[True]] * 3})
    with pytest.raises(RunError, match="judge that run first"):
        parse_stopping_rule(f"decided vs {base}")

    class Other:
        name, question = "test:refused", "refused"
        from truing.core.types import Lineage

        lineage = Lineage(hash="0" * 16)

    with pytest.raises(RunError, match="in this version"):
        parse_stopping_rule(f"refused(decided vs {base})", [Other()])


def test_the_order_of_a_stopped_run_is_the_order_in_which_it_drew(tmp_path):
    """What was answered is the beginning of the order that the sequence's interval is computed in."""
    import truing
    from truing.analysis.stopped_runs import draw_order
    from truing.analysis.verdict_table import read_verdict_table

    seen: list[str] = []

    class Watch(BoundRule):
        def observe(self, sample_id: str, verdict: float | bool | None) -> bool:
            seen.append(sample_id)
            return super().observe(sample_id, verdict)

    rule = parse_stopping_rule("refused(width<0.3)")
    watch = Watch(rule.text, rule.question, rule.conditions)
    run = truing.evaluate(
        truing.model("scripted:mixed"),
        truing.data("builtin:safety"),
        [truing.judge("rules:refusal")],
        tmp_path / "r",
        options=truing.EvaluateOptions(until=watch, seed=7, concurrency=8),
    )
    columns = read_verdict_table(run, ids=True)
    assert [columns.ids[at] for at in draw_order(columns)] == seen and len(seen) < 168
    raw = truing.summarise(run).find("refused").raw
    made = watch.scored.interval()
    assert (raw.lower, raw.upper) == pytest.approx((made.lower, made.upper))
