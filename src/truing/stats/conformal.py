"""Thresholds with a guarantee: split conformal, and Learn-then-Test for a risk that must stay under alpha.

Both hold for rows exchangeable with the calibration rows: same traffic, same model, drawn at random. Neither holds
under an attack that was not in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def conformal_threshold(scores: ArrayLike, alpha: float) -> float:
    """The t such that a new exchangeable score exceeds t with probability at most alpha (Vovk et al. 2005, ch. 2).

    The ceil((n + 1)(1 - alpha))-th smallest score; infinite if n is too small.
    """
    import numpy as np

    values = np.sort(np.asarray(scores, float))
    if np.isnan(values).any():
        raise ValueError("scores hold NaN")
    rank = math.ceil((len(values) + 1) * (1 - alpha))
    return float(values[rank - 1]) if 0 < rank <= len(values) else math.inf


def binomial_p(events: int, n: int, alpha: float) -> float:
    """p value of "the rate exceeds alpha" given `events` of n: P(Binomial(n, alpha) <= events)."""
    from scipy.special import bdtr

    return float(bdtr(events, n, alpha)) if n else 1.0


def hoeffding_bentkus_p(mean: float, n: int, alpha: float) -> float:
    """p value for a loss in [0, 1] (Bates et al. 2021, arXiv 2101.02703): the smaller of Hoeffding's and Bentkus's."""
    if n == 0 or mean >= alpha:
        return 1.0
    kl = (mean * math.log(mean / alpha) if mean > 0 else 0.0) + (1 - mean) * math.log((1 - mean) / (1 - alpha))
    return min(1.0, math.exp(-n * kl), math.e * binomial_p(math.ceil(n * mean), n, alpha))


class Tested(Struct, frozen=True):
    """One threshold and what was found for it."""

    threshold: float
    events: int
    n: int
    p: float
    certified: bool


def learn_then_test(
    thresholds: Sequence[float], events: Sequence[int], sizes: Sequence[int], alpha: float, *, delta: float = 0.05
) -> list[Tested]:
    """Learn then Test (Angelopoulos et al., arXiv 2110.01052) by fixed-sequence testing.

    Thresholds stand from the safest to the least safe, in an order fixed before the labels were seen; each is tested at
    level delta until the first failure, so that with probability 1 - delta every certified threshold has a rate of at
    most alpha.
    """
    if not 0 < alpha < 1 or not 0 < delta < 1:
        raise ValueError("alpha and delta lie between 0 and 1")
    out, going = [], True
    for t, k, n in zip(thresholds, events, sizes, strict=True):
        p = binomial_p(k, n, alpha)
        going = going and p <= delta
        out.append(Tested(t, k, n, p, going))
    return out


def labels_needed(alpha: float, *, delta: float = 0.05, events: int = 0) -> int:
    """The least n for which `events` of n certify a rate of at most alpha: 59 for 0 events, 5 %, 95 % confidence."""
    n = math.ceil(math.log(delta) / math.log1p(-alpha)) if events == 0 else events + 1
    while binomial_p(events, n, alpha) > delta:
        n += max(1, n // 1000)
    return n
