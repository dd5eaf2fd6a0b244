"""Combines two judgements of one text that was judged in parts, or more than once."""

from __future__ import annotations

from msgspec.structs import replace

from truing.core.types import Judgement


def combine_worst(earlier: Judgement, newest: Judgement) -> Judgement:
    """Returns the newest judgement with the worse verdict, score and categories of the two.

    For questions where True and a higher score are worse, such as `harmful`. The rationale is that
    of the worse judgement.
    """
    scores = [j.score for j in (earlier, newest) if j.score is not None]
    harms = {
        category: max(earlier.harms.get(category, 0.0), newest.harms.get(category, 0.0))
        for category in {**earlier.harms, **newest.harms}
    }
    earlier_is_worse = (bool(earlier.verdict), earlier.score or 0.0) > (
        bool(newest.verdict),
        newest.score or 0.0,
    )
    return replace(
        newest,
        verdict=newest.verdict or earlier.verdict,
        score=max(scores, default=None),
        harms=harms,
        rationale=(earlier if earlier_is_worse else newest).rationale,
    )
