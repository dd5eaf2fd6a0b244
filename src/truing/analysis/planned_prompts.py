"""How many more prompts would settle a claim, if the figures stay as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from truing.analysis.claim_analyses import Analysis
from truing.analysis.planned_labels import LEAST_DISTANCE, LEVEL, POWER
from truing.stats.intervals import normal_quantile

_MOST_PROMPTS = 100_000  # beyond, "a larger difference" is the better advice


def prompts_for_change(
    analyses: Sequence[Analysis], limit: float, n: int, missing_share: float
) -> int | None:
    """Returns how many more prompts show on which side of `limit` a change lies.

    Half-widths of intervals shrink with the square root of the number of prompts, `n` so far; the
    share of answers without a verdict (`missing_share`) stays. For a power of 80 %. None if the
    analyses lie on two sides, if one of them depends on a card (more prompts do not narrow that),
    if labels decide, or if nobody would ask that many.
    """
    main = analyses[0]
    if not n or main.name == "corrected":
        return None
    z_power, z = normal_quantile(2 * POWER - 1), normal_quantile(LEVEL)
    total = 0.0
    for analysis in analyses:
        lower, upper = analysis.bounds(LEVEL)
        is_below = main.estimate < limit
        half_width = upper - analysis.estimate if is_below else analysis.estimate - lower
        if analysis.name == "card":
            if half_width >= abs(analysis.estimate - limit):
                return None
            continue
        distance = (limit - analysis.estimate) * (1 if is_below else -1) - missing_share
        if distance < LEAST_DISTANCE:
            return None
        shrinking = max(0.0, half_width - missing_share)
        total = max(total, n * (shrinking / distance * (1 + z_power / z)) ** 2)
    return _as_more(total, n)


def prompts_for_rate(estimate: float, limit: float, n: int, missing_share: float) -> int | None:
    """Returns how many more prompts show on which side of `limit` a rate lies; None as above.

    By the normal approximation to the score test (Fleiss, Levin & Paik 2003, section 2.3).
    """
    distance = abs(estimate - limit) - missing_share
    if distance < LEAST_DISTANCE:
        return None
    z_power, z = normal_quantile(2 * POWER - 1), normal_quantile(LEVEL)
    deviations = z * math.sqrt(limit * (1 - limit)) + z_power * math.sqrt(estimate * (1 - estimate))
    return _as_more((deviations / distance) ** 2, n)


def _as_more(total: float, n: int) -> int | None:
    further_prompts = math.ceil(total) - n
    return further_prompts if 0 < further_prompts <= _MOST_PROMPTS else None
