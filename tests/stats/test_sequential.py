"""Betting sequences: valid at every time, closing without replacement, refusing nonsense; the alarm's promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.stats.sequential import (
    BettingSequence,
    HarmRateAlarm,
    PairedBettingSequence,
    betting_interval,
)


def test_it_narrows_and_never_widens():
    random = np.random.default_rng(0)
    sequence, widths = BettingSequence(), []
    for x in random.random(600) < 0.2:
        sequence.add(float(x))
        widths.append(sequence.interval().width)
    assert all(np.diff(widths) <= 1e-12)
    made = sequence.interval()
    assert made.lower < 0.2 < made.upper and made.width < 0.12


def test_valid_at_every_time():
    random = np.random.default_rng(1)
    ever = 0
    for _ in range(150):
        sequence = BettingSequence(grid=200)
        for x in random.random(250) < 0.1:
            sequence.add(float(x))
        made = sequence.interval()  # the running intersection: missed once, missed for ever
        ever += not made.lower <= 0.1 <= made.upper
    assert ever / 150 <= 0.05


def test_without_replacement_closes_on_the_mean():
    random = np.random.default_rng(2)
    values = random.permutation([1.0] * 30 + [0.0] * 170)
    sequence = BettingSequence(population=200)
    free = BettingSequence()
    for x in values[:150]:
        sequence.add(x)
        free.add(x)
    assert sequence.interval().width < 0.8 * free.interval().width
    for x in values[150:]:
        sequence.add(x)
    made = sequence.interval()
    assert made.lower == pytest.approx(0.15, abs=1e-6) and made.upper == pytest.approx(
        0.15, abs=1e-6
    )
    with pytest.raises(ValueError, match="population"):
        sequence.add(0.0)


def test_without_replacement_is_valid():
    random = np.random.default_rng(3)
    ever = 0
    for _ in range(150):
        values = random.permutation([1.0] * 30 + [0.0] * 120)
        made = betting_interval(values[:100], population=150)
        ever += not made.lower <= 0.2 <= made.upper
    assert ever / 150 <= 0.05


def test_paired_difference():
    random = np.random.default_rng(4)
    sequence = PairedBettingSequence()
    for _ in range(800):
        u = random.random()
        sequence.add(float(u < 0.4), float(u < 0.2))
    made = sequence.interval()
    assert made.lower < -0.2 < made.upper < 0
    assert sequence.n == 800


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_holds_its_estimate(values):
    made = betting_interval(values)
    assert -1e-9 <= made.lower <= made.estimate <= made.upper <= 1 + 1e-9
    made = betting_interval(values, population=len(values) + 3)
    assert made.lower <= made.estimate <= made.upper


def test_same_as_a_plain_reading_of_the_paper():
    """Hedged capital at one candidate mean, written out: in or out must agree with the class."""
    random = np.random.default_rng(5)
    x = (random.random(120) < 0.3).astype(float)
    for m in (0.1, 0.2, 0.3, 0.45):
        up = down = 1.0
        total, variance, dead = 0.0, 0.25, False
        for t, value in enumerate(x, 1):
            bet = np.sqrt(2 * np.log(2 / 0.05) / (variance / t * t * np.log(t + 1)))
            up *= 1 + min(bet, 0.5 / m) * (value - m)
            down *= 1 - min(bet, 0.5 / (1 - m)) * (value - m)
            dead = dead or max(up, down) / 2 >= 1 / 0.05
            total += value
            variance += (value - (total + 0.5) / (t + 1)) ** 2
        made = betting_interval(x)
        assert dead == (not made.lower - 1e-9 <= m <= made.upper + 1e-9)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_values_outside(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        BettingSequence().add(bad)


def test_alarm_rises_on_harm_and_seldom_without():
    random = np.random.default_rng(6)
    false = 0
    for _ in range(400):
        alarm = HarmRateAlarm(0.05, false_alarm=0.05)
        for x in random.random(400) < 0.05:
            alarm.observe(bool(x))
        false += alarm.state().raised
    assert false / 400 <= 0.05
    alarm = HarmRateAlarm(0.02)
    for x in random.random(600) < 0.15:
        alarm.observe(bool(x))
    assert alarm.state().raised and alarm.state().raised_at < 200


def test_alarm_with_restarts_sees_a_late_change():
    random = np.random.default_rng(7)
    early, late = random.random(3000) < 0.005, random.random(300) < 0.2
    delays = {}
    for restarts in (False, True):
        alarm = HarmRateAlarm(0.03, restarts=restarts, false_alarm=0.001)
        for x in np.concatenate([early, late]):
            alarm.observe(bool(x))
        delays[restarts] = alarm.state().raised_at
    assert delays[True] is not None and delays[True] > 3000
    assert delays[False] is None or delays[True] <= delays[False]


def test_alarm_counts_the_unscored_and_draws_its_audits():
    alarm = HarmRateAlarm(0.1, audit_rate=0.2, seed=1)
    alarm.observe(None)
    state = alarm.state()
    assert (state.audited, state.unscored, state.evidence) == (0, 1, 1.0)
    assert 150 < sum(alarm.should_audit() for _ in range(1000)) < 250
    with pytest.raises(ValueError):
        HarmRateAlarm(0.0)
