"""How many more prompts would settle a claim."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.analysis.claim_analyses import Analysis
from truing.analysis.planned_prompts import prompts_for_change, prompts_for_rate
from truing.stats.intervals import wilson


def analysis(estimate: float, half_width: float, name: str = "raw") -> Analysis:
    bounds = (estimate - half_width, estimate + half_width)
    return Analysis(name, estimate, lambda level: bounds, "", "")


def test_a_change_needs_the_square_of_what_its_interval_is_too_wide() -> None:
    # Half as wide suffices at a power of 50 %; 80 % needs a factor of (1 + 0.84 / 1.96) more.
    expected = math.ceil(100 * (2 * (1 + 0.8416 / 1.96)) ** 2) - 100
    assert prompts_for_change([analysis(-0.1, 0.2)], 0.0, 100, 0.0) == pytest.approx(
        expected, abs=1
    )
    assert prompts_for_change([analysis(0.1, 0.2)], 0.0, 100, 0.0) == pytest.approx(expected, abs=1)


def test_the_analysis_that_needs_most_decides() -> None:
    one = prompts_for_change([analysis(-0.1, 0.2)], 0.0, 100, 0.0)
    two = prompts_for_change([analysis(-0.1, 0.2), analysis(-0.05, 0.2, "twins")], 0.0, 100, 0.0)
    assert one is not None and two is not None and two > one


@pytest.mark.parametrize(
    "analyses",
    [
        [analysis(-0.1, 0.2), analysis(0.1, 0.2, "twins")],  # they lie on two sides
        [analysis(-0.1, 0.2), analysis(-0.1, 0.2, "card")],  # a card is not narrowed by prompts
        [analysis(-0.1, 0.2, "corrected")],  # labels decide
        [analysis(-0.001, 0.2)],  # too close to the limit
    ],
)
def test_what_prompts_cannot_settle(analyses: list[Analysis]) -> None:
    assert prompts_for_change(analyses, 0.0, 100, 0.0) is None
    assert prompts_for_change([analysis(-0.1, 0.2)], 0.0, 0, 0.0) is None


def test_answers_without_a_verdict_stay_open_however_many_prompts() -> None:
    assert prompts_for_change([analysis(-0.1, 0.2)], 0.0, 100, 0.12) is None
    assert prompts_for_rate(0.02, 0.05, 100, 0.04) is None


@given(st.floats(0.0, 0.5), st.floats(0.02, 0.5))
def test_the_planned_prompts_settle_a_rate(rate: float, limit: float) -> None:
    """With that many prompts at the same rate, Wilson's interval does not hold the limit."""
    more = prompts_for_rate(rate, limit, 1, 0.0)
    if more is None:
        assert abs(rate - limit) < 0.02
        return
    interval = wilson(rate * (more + 1), more + 1)
    assert interval.upper < limit if rate < limit else interval.lower > limit
