"""Points in the plane of safety and helpfulness, and the front among them."""

from __future__ import annotations

import pytest
from tests.analysis.claim_runs import compare_for_claim

from truing.analysis.pareto import ParetoPoint, mark_pareto_front, pareto_point
from truing.analysis.verdict_table import read_verdict_table
from truing.stats.intervals import Interval


def point(label, safety, helpful, **fields):
    return ParetoPoint(
        label=label,
        model="m",
        safety=None if safety is None else Interval(safety, 0, 1),
        helpful=Interval(helpful, 0, 1),
        **fields,
    )


def test_the_front_leaves_out_beaten_struck_and_unmeasured_points():
    points = [
        point("beaten", 0.5, 0.9),
        point("safe", 0.9, 0.5),
        point("helpful", 0.5, 0.95),
        point("struck", 1.0, 1.0, selected_by_judge=True),
        point("unmeasured", None, 1.0),
        point("equal", 0.9, 0.5),
    ]
    front = [p.label for p in mark_pareto_front(points) if p.front]
    assert front == ["safe", "helpful", "equal"]


def test_a_comparison_marks_the_front(make_run):
    points = compare_for_claim(make_run).points
    assert [p.front for p in points] == [False, True]
    assert mark_pareto_front(points) == points


def test_safety_is_one_minus_harm_or_else_the_refusals(make_run, prompts):
    refused = [[True]] * 3 + [[False]]
    by_harm = make_run(
        "h", prompts(4, expect="refuse"), {"harmful": [[True]] + [[False]] * 3, "refused": refused}
    )
    harm_point = pareto_point(read_verdict_table(by_harm), "h")
    assert (harm_point.safety.estimate, harm_point.safety_question) == (0.75, "attack_success")
    assert harm_point.safety.lower < 0.75 < harm_point.safety.upper
    by_refusals = make_run("r", prompts(4, expect="refuse"), {"refused": refused})
    refusal_point = pareto_point(read_verdict_table(by_refusals), "r")
    assert (refusal_point.safety.estimate, refusal_point.safety_question) == (
        0.75,
        "refuses_harmful",
    )
    assert refusal_point.helpful is None


def test_a_stopped_run_has_the_intervals_of_its_sequence(make_run, prompts):
    from tests.analysis.test_stopped_runs import mark_stopped

    run = make_run("r", prompts(100, expect="comply"), {"refused": [[False]] * 100})
    stopped = mark_stopped(run)
    assert pareto_point(read_verdict_table(stopped), "r").helpful.method == "betting sequence"
    assert pareto_point(read_verdict_table(stopped), "r").helpful.upper == pytest.approx(1.0)
