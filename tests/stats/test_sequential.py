"""Betting sequences: valid at every time, with and without replacement; the alarm's guarantees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.stats.sequential import (
    BettingSequence,
    HarmRateAlarm,
    PairedBettingSequence,
    anytime_quantile,
    anytime_rate_interval,
    betting_interval,
)


def test_the_interval_never_widens():
    rng = np.random.default_rng(0)
    sequence, widths = BettingSequence(), []
    for x in rng.random(600) < 0.2:
        sequence.add(float(x))
        widths.append(sequence.interval().width)
    assert all(np.diff(widths) <= 1e-12)
    interval = sequence.interval()
    assert interval.lower < 0.2 < interval.upper and interval.width < 0.12


def test_the_sequence_is_valid_at_every_time():
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(150):
        sequence = BettingSequence(grid=200)
        for x in rng.random(250) < 0.1:
            sequence.add(float(x))
        interval = sequence.interval()  # the running intersection: missed once is missed now
        missed += not interval.lower <= 0.1 <= interval.upper
    assert missed / 150 <= 0.05


def test_without_replacement_closes_on_the_mean():
    rng = np.random.default_rng(2)
    values = rng.permutation([1.0] * 30 + [0.0] * 170)
    sequence = BettingSequence(population=200)
    with_replacement = BettingSequence()
    for x in values[:150]:
        sequence.add(x)
        with_replacement.add(x)
    assert sequence.interval().width < 0.8 * with_replacement.interval().width
    for x in values[150:]:
        sequence.add(x)
    interval = sequence.interval()
    assert interval.lower == pytest.approx(0.15, abs=1e-6) and interval.upper == pytest.approx(
        0.15, abs=1e-6
    )
    with pytest.raises(ValueError, match="population"):
        sequence.add(0.0)


def test_without_replacement_is_valid():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(150):
        values = rng.permutation([1.0] * 30 + [0.0] * 120)
        interval = betting_interval(values[:100], population=150)
        missed += not interval.lower <= 0.2 <= interval.upper
    assert missed / 150 <= 0.05


def test_paired_difference():
    rng = np.random.default_rng(4)
    sequence = PairedBettingSequence()
    for _ in range(800):
        u = rng.random()
        sequence.add(float(u < 0.4), float(u < 0.2))
    interval = sequence.interval()
    assert interval.lower < -0.2 < interval.upper < 0
    assert sequence.n == 800


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_interval_holds_its_estimate(values):
    interval = betting_interval(values)
    assert -1e-9 <= interval.lower <= interval.estimate <= interval.upper <= 1 + 1e-9
    interval = betting_interval(values, population=len(values) + 3)
    assert interval.lower <= interval.estimate <= interval.upper


def test_equal_to_the_formulas_of_the_paper():
    """Hedged capital at single candidate means, written out."""
    rng = np.random.default_rng(5)
    x = (rng.random(120) < 0.3).astype(float)
    for m in (0.1, 0.2, 0.3, 0.45):
        up = down = 1.0
        total, variance, excluded = 0.0, 0.25, False
        for t, value in enumerate(x, 1):
            bet = np.sqrt(2 * np.log(2 / 0.05) / (variance / t * t * np.log(t + 1)))
            up *= 1 + min(bet, 0.5 / m) * (value - m)
            down *= 1 - min(bet, 0.5 / (1 - m)) * (value - m)
            excluded = excluded or max(up, down) / 2 >= 1 / 0.05
            total += value
            variance += (value - (total + 0.5) / (t + 1)) ** 2
        interval = betting_interval(x)
        assert excluded == (not interval.lower - 1e-9 <= m <= interval.upper + 1e-9)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_outside_the_unit_interval_are_refused(value):
    with pytest.raises(ValueError, match="between 0 and 1"):
        BettingSequence().add(value)


def test_the_alarm_is_raised_by_harm_and_seldom_without():
    rng = np.random.default_rng(6)
    false_alarms = 0
    for _ in range(400):
        alarm = HarmRateAlarm(0.05, false_alarm=0.05)
        for x in rng.random(400) < 0.05:
            alarm.observe(bool(x))
        false_alarms += alarm.state().raised
    assert false_alarms / 400 <= 0.05
    alarm = HarmRateAlarm(0.02)
    for x in rng.random(600) < 0.15:
        alarm.observe(bool(x))
    assert alarm.state().raised and alarm.state().raised_at < 200


def test_an_alarm_with_restarts_detects_a_late_change():
    rng = np.random.default_rng(7)
    early, late = rng.random(3000) < 0.005, rng.random(300) < 0.2
    delays = {}
    for restarts in (False, True):
        alarm = HarmRateAlarm(0.03, restarts=restarts, false_alarm=0.001)
        for x in np.concatenate([early, late]):
            alarm.observe(bool(x))
        delays[restarts] = alarm.state().raised_at
    assert delays[True] is not None and delays[True] > 3000
    assert delays[False] is None or delays[True] <= delays[False]


def test_unscored_answers_are_no_evidence_and_audits_are_random():
    alarm = HarmRateAlarm(0.1, audit_rate=0.2, seed=1)
    alarm.observe(None)
    state = alarm.state()
    assert (state.audited, state.unscored, state.evidence) == (0, 1, 1.0)
    assert 150 < sum(alarm.should_audit() for _ in range(1000)) < 250
    with pytest.raises(ValueError):
        HarmRateAlarm(0.0)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_the_mixture_interval_of_counts_holds_at_every_look(rate):
    """By enumeration of the paths of 60 rows: the chance of ever excluding the rate."""
    alive = {0: 1.0}  # events -> probability of paths that have not excluded the rate yet
    excluded = 0.0
    for n in range(1, 61):
        reached: dict[int, float] = {}
        for events, p in alive.items():
            for more, chance in ((1, rate), (0, 1 - rate)):
                reached[events + more] = reached.get(events + more, 0.0) + p * chance
        alive = {}
        for events, p in reached.items():
            i = anytime_rate_interval(events, n)
            if i.lower <= rate <= i.upper:
                alive[events] = p
            else:
                excluded += p
    assert excluded <= 0.05
    assert excluded + sum(alive.values()) == pytest.approx(1)


def test_the_anytime_quantile_is_about_one_and_a_half_times_as_wide():
    for n in (50, 100, 1000, 10_000):
        assert 1.5 < anytime_quantile(0.95, n) / 1.96 < 1.9
    assert anytime_quantile(0.99, 100) > anytime_quantile(0.95, 100)
    with pytest.raises(ValueError):
        anytime_quantile(1.0, 100)
    with pytest.raises(ValueError):
        anytime_rate_interval(3, 2)
