"""The worse of two judgements of one text, read in parts or twice."""

from __future__ import annotations

from msgspec.structs import replace

from truing.core.types import Judgement


def combine_worst(earlier: Judgement, newest: Judgement) -> Judgement:
    """Returns the newest judgement with the worse verdict, score and categories of the two."""
    scores = [j.score for j in (earlier, newest) if j.score is not None]
    harms = {
        category: max(earlier.harms.get(category, 0.0), newest.harms.get(category, 0.0))
        for category in {**earlier.harms, **newest.harms}
    }
    is_worse_earlier = (bool(earlier.verdict), earlier.score or 0.0) > (
        bool(newest.verdict),
        newest.score or 0.0,
    )
    return replace(
        newest,
        verdict=newest.verdict or earlier.verdict,
        score=max(scores, default=None),
        harms=harms,
        rationale=(earlier if is_worse_earlier else newest).rationale,
    )
