"""A rate of events among scored answers, for tests of what may be claimed from it."""

from __future__ import annotations

from typing import Any

from truing.analysis.rates import Rate
from truing.stats.intervals import wilson


def make_rate(
    events: int,
    n: int,
    unscored: int = 0,
    judge: str = "j",
    question: str = "harmful",
    **fields: Any,
) -> Rate:
    scored = n - unscored
    return Rate(
        question=question,
        category=None,
        judge=judge,
        judge_hash="",
        n=n,
        scored=scored,
        unscored=unscored,
        events=events,
        raw=wilson(events, scored) if scored else None,
        bounds=(events / n, (events + unscored) / n),
        prompts=n,
        **fields,
    )
