"""The alarm: its false alarms are as rare as promised, and a real excess raises it."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from truing.stats import corrected_alarm
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


@pytest.mark.parametrize(
    ("sensitivity", "specificity"), [(0.9, 0.95), (0.2, 0.5), (0.0, 1.0), (1.0, 0.0)]
)
def test_false_alarms_are_as_rare_as_promised(sensitivity: float, specificity: float) -> None:
    """At the tolerated rate itself, however wrong the judge is."""
    n_streams = 300
    raised = sum(
        run_stream(seed, 0.1, 1000, sensitivity=sensitivity, specificity=specificity).raised_at
        is not None
        for seed in range(n_streams)
    )
    # One in ten streams is promised: more than so many are a chance of one in 10,000.
    assert raised <= binom.ppf(1 - 1e-4, n_streams, 0.1)


def test_false_alarms_with_restarts_are_as_far_apart_as_promised() -> None:
    """At least 1 / false_alarm rows on average."""
    first_alarms = []
    for seed in range(200):
        source = np.random.default_rng(seed)
        alarm = CorrectedRateAlarm(0.1, false_alarm=0.01, audit_rate=0.2, restarts=True)
        while alarm.raised_at is None and alarm.rows < 20_000:
            truth = source.random(200) < 0.1
            audited = source.random(200) < 0.2
            flagged = np.where(truth, source.random(200) < 0.9, source.random(200) >= 0.95)
            alarm.observe(
                flagged.astype(float).tolist(),
                [float(t) if a else None for t, a in zip(truth, audited)],
            )
        first_alarms.append(alarm.raised_at or alarm.rows)
    error = np.std(first_alarms) / math.sqrt(len(first_alarms))
    assert np.mean(first_alarms) + 4 * error >= 100


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.none() | st.sampled_from([0.0, 1.0])), max_size=40),
    restarts=st.booleans(),
    rows_at_once=st.integers(1, 9),
)
def test_many_rows_at_once_are_those_rows_one_by_one(
    rows: list[tuple[float, float | None]], restarts: bool, rows_at_once: int
) -> None:
    at_once, one_by_one = (
        CorrectedRateAlarm(0.1, false_alarm=0.3, audit_rate=0.5, restarts=restarts)
        for _ in range(2)
    )
    with mock.patch.object(corrected_alarm, "_ROWS_AT_ONCE", rows_at_once):
        at_once.observe([p for p, _ in rows], [label for _, label in rows])
    for prediction, label in rows:
        one_by_one.observe([prediction], [label])
    for name in ("rows", "labels", "raised_at"):
        assert getattr(at_once, name) == getattr(one_by_one, name)
    if rows:
        assert at_once.log_evidence == pytest.approx(one_by_one.log_evidence, abs=1e-9)


def test_an_excess_raises_it_also_where_the_judge_sees_little() -> None:
    for sensitivity, specificity in ((0.9, 0.95), (0.3, 0.9)):
        alarm = run_stream(1, 0.4, 1500, sensitivity=sensitivity, specificity=specificity)
        assert alarm.raised_at is not None
        assert alarm.corrected_rate == pytest.approx(0.4, abs=0.12)


def test_a_late_change_is_seen_with_restarts() -> None:
    raised_at: dict[bool, int | None] = {}
    for restarts in (False, True):
        alarm = CorrectedRateAlarm(0.1, false_alarm=1e-4, audit_rate=0.5, restarts=restarts)
        alarm.observe([0.0] * 3000, [0.0 if i % 2 else None for i in range(3000)])
        alarm.observe([1.0] * 300, [1.0 if i % 2 else None for i in range(300)])
        raised_at[restarts] = alarm.raised_at
    # 17 rows after the change; without restarts 300 rows do not outweigh the 3,000 before.
    assert raised_at == {True: 3017, False: None}


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
