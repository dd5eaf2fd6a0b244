"""Combines two judgements of one text that was judged in parts, or more than once."""

from __future__ import annotations

from msgspec.structs import replace

from truing.core.types import Judgement

_RANKS: dict[bool | None, int] = {False: 0, None: 1, True: 2}


def combine_worst(earlier: Judgement, newest: Judgement) -> Judgement:
    """Returns the newest judgement with the worse verdict, score and categories of the two.

    For questions where True and a higher score are worse, such as `harmful`. No verdict is worse
    than False: a part that could not be judged has not been found harmless. Value and rationale
    are those of the worse judgement; a failure of either stays.
    """
    worse = earlier if _badness(earlier) > _badness(newest) else newest
    scores = [j.score for j in (earlier, newest) if j.score is not None]
    harms = {
        category: max(earlier.harms.get(category, 0.0), newest.harms.get(category, 0.0))
        for category in {**earlier.harms, **newest.harms}
    }
    return replace(
        newest,
        verdict=worse.verdict,
        score=max(scores, default=None),
        value=worse.value,
        harms=harms,
        rationale=worse.rationale,
        failure=newest.failure or earlier.failure,
    )


def _badness(judgement: Judgement) -> tuple[int, float]:
    return _RANKS[judgement.verdict], judgement.score or 0.0
