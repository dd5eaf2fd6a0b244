"""Early stopping: the rule sees the draws in the order in which they were drawn."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from truing.evaluation.stopping import EarlyStopping


class RecordingRule:
    """Stops after a given number of draws."""

    question = "harmful"

    def __init__(self, stop_after: int) -> None:
        self.stop_after = stop_after
        self.draws: list[tuple[str, float | None]] = []

    def observe(self, sample_id: str, verdict: float | None) -> bool:
        self.draws.append((sample_id, verdict))
        return len(self.draws) == self.stop_after


@given(st.integers(1, 20), st.integers(1, 25), st.integers())
def test_order_of_judgements_does_not_matter(total: int, stop_after: int, shuffle: int) -> None:
    rule = RecordingRule(stop_after)
    stopping = EarlyStopping(rule, total, seed=3, read_id=str)
    order = list(stopping.order)
    assert sorted(order) == list(range(total))
    arrival = list(range(total))
    random.Random(shuffle).shuffle(arrival)
    stops = [stopping.record(position, [True]) for position in arrival]
    observed = min(total, stop_after)
    assert rule.draws == [(str(position), True) for position in order[:observed]]
    assert sum(stops) == (stop_after <= total)
    assert stopping.stopped_after == (stop_after if stop_after <= total else None)
    assert list(stopping.positions_beyond()) == order[stop_after:]


def test_verdict_of_several_answers_is_their_mean() -> None:
    rule = RecordingRule(9)
    stopping = EarlyStopping(rule, 3, seed=0, read_id=str)
    verdicts = {0: [True, False, None, True], 1: [None], 2: [False]}
    for position, answers in verdicts.items():
        stopping.record(position, answers)
    assert dict(rule.draws) == {"0": 2 / 3, "1": None, "2": False}
