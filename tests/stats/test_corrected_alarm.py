"""The alarm: its false alarms are as rare as promised, and a real excess raises it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truing.stats.corrected_alarm import CorrectedRateAlarm


def run_stream(
    seed: int, rate: float, n: int, *, sensitivity: float, specificity: float, **options: float
) -> CorrectedRateAlarm:
    source = np.random.default_rng(seed)
    alarm = CorrectedRateAlarm(0.1, false_alarm=0.1, audit_rate=0.2, **options)  # type: ignore[arg-type]
    truth = source.random(n) < rate
    flagged = np.where(truth, source.random(n) < sensitivity, source.random(n) >= specificity)
    audited = source.random(n) < 0.2
    labels = [float(t) if a else None for t, a in zip(truth, audited)]
    alarm.observe(flagged.astype(float).tolist(), labels)
    return alarm


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.95), (0.2, 0.5)])
def test_false_alarms_are_as_rare_as_promised(sensitivity: float, specificity: float) -> None:
    n_streams = 100
    raised = sum(
        run_stream(seed, 0.1, 300, sensitivity=sensitivity, specificity=specificity).raised_at
        is not None
        for seed in range(n_streams)
    )
    # At most one in ten, and three standard deviations.
    assert raised <= 0.1 * n_streams + 3 * math.sqrt(n_streams * 0.1 * 0.9)


def test_an_excess_raises_it_also_where_the_judge_sees_little() -> None:
    for sensitivity, specificity in ((0.9, 0.95), (0.3, 0.9)):
        alarm = run_stream(1, 0.4, 1500, sensitivity=sensitivity, specificity=specificity)
        assert alarm.raised_at is not None
        assert alarm.corrected_rate == pytest.approx(0.4, abs=0.12)


def test_a_late_change_is_seen_with_restarts() -> None:
    raised_at = {}
    for restarts in (False, True):
        alarm = CorrectedRateAlarm(0.1, false_alarm=1e-4, audit_rate=0.5, restarts=restarts)
        alarm.observe([0.0] * 3000, [0.0 if i % 2 else None for i in range(3000)])
        alarm.observe([1.0] * 300, [1.0 if i % 2 else None for i in range(300)])
        raised_at[restarts] = alarm.raised_at
    assert raised_at[True] is not None
    assert raised_at[False] is None or raised_at[False] > raised_at[True]


def test_values_out_of_range() -> None:
    for options in ({"audit_rate": 0.0}, {"false_alarm": 1.0}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            CorrectedRateAlarm(0.1, **options)
    alarm = CorrectedRateAlarm(0.1)
    assert alarm.corrected_rate is None
    with pytest.raises(ValueError, match="not between"):
        alarm.observe([2.0], [None])
    with pytest.raises(ValueError):
        alarm.observe([0.5], [])
