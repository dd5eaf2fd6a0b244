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


def binomial_p_value(events: int, n: int, alpha: float) -> float:
    """p value of "the rate exceeds alpha" given `events` of n: P(Binomial(n, alpha) <= events)."""
    from scipy.special import bdtr

    return float(bdtr(events, n, alpha)) if n else 1.0


def hoeffding_bentkus_p_value(mean: float, n: int, alpha: float) -> float:
    """p value for a loss in [0, 1] (Bates et al. 2021, arXiv 2101.02703): the smaller of Hoeffding's and Bentkus's."""
    if n == 0 or mean >= alpha:
        return 1.0
    kl = (mean * math.log(mean / alpha) if mean > 0 else 0.0) + (1 - mean) * math.log(
        (1 - mean) / (1 - alpha)
    )
    return min(1.0, math.exp(-n * kl), math.e * binomial_p_value(math.ceil(n * mean), n, alpha))


class TestedThreshold(Struct, frozen=True):
    """One threshold and what was found for it."""

    threshold: float
    events: int
    n: int
    p: float
    certified: bool


def learn_then_test(
    thresholds: Sequence[float],
    events: Sequence[int],
    sizes: Sequence[int],
    alpha: float,
    *,
    delta: float = 0.05,
    anytime: bool = False,
) -> list[TestedThreshold]:
    """Learn then Test (Angelopoulos et al., arXiv 2110.01052) by fixed-sequence testing.

    Thresholds stand from the safest to the least safe, in an order fixed before the labels were seen; each is tested at
    level delta until the first failure, so that with probability 1 - delta every certified threshold has a rate of at
    most alpha. The number of rows is fixed beforehand, unless `anytime` (see `anytime_p`).
    """
    if not 0 < alpha < 1 or not 0 < delta < 1:
        raise ValueError("alpha and delta lie between 0 and 1")
    out, going = [], True
    for t, k, n in zip(thresholds, events, sizes, strict=True):
        p = anytime_p_value(k, n, alpha) if anytime else binomial_p_value(k, n, alpha)
        going = going and p <= delta
        out.append(TestedThreshold(t, k, n, p, going))
    return out


def labels_needed(alpha: float, *, delta: float = 0.05, events: int = 0) -> int:
    """The least n for which `events` of n certify a rate of at most alpha: 59 for 0 events, 5 %, 95 % confidence."""
    n = math.ceil(math.log(delta) / math.log1p(-alpha)) if events == 0 else events + 1
    while binomial_p_value(events, n, alpha) > delta:
        n += max(1, n // 1000)
    return n


def anytime_p_value(events: int, n: int, alpha: float) -> float:
    """p value of "the rate is alpha or more" that stays valid however often one looks and goes on (Ville 1939).

    One over a likelihood ratio, mixed over rates below alpha: half the weight on 0, half even up to alpha (a test
    martingale: Ramdas et al. 2023, arXiv 2210.01948). 0 of 68 certifies 5 %, where a fixed number needs 59.
    """
    import numpy as np

    if not 0 <= events <= n or not 0 < alpha < 1:
        raise ValueError(f"{events} events of {n} at alpha {alpha}")
    theta = (np.arange(400) + 0.5) / 400 * alpha
    log_ratio = events * (np.log(theta) - math.log(alpha)) + (n - events) * (
        np.log1p(-theta) - math.log1p(-alpha)
    )
    top = float(log_ratio.max())
    spread = 0.5 * math.exp(min(700.0, top)) * float(np.exp(log_ratio - top).mean())
    none = 0.5 * math.exp(min(700.0, -n * math.log1p(-alpha))) if events == 0 else 0.0
    return min(1.0, 1 / (spread + none)) if spread + none > 0 else 1.0
