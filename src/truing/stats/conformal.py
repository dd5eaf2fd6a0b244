"""Thresholds with a guarantee: split conformal prediction and Learn then Test.

Both hold for rows exchangeable with the calibration rows: the same traffic and model, drawn at
random. Neither holds under an attack that did not occur among the calibration rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def conformal_threshold(scores: ArrayLike, alpha: float) -> float:
    """Returns a t that a new exchangeable score exceeds with probability at most alpha.

    This is the ceil((n + 1)(1 - alpha))-th smallest score (Vovk et al. 2005, ch. 2), infinite if
    n is too small. Raises ValueError if a score is NaN.
    """
    import numpy as np

    ordered = np.sort(np.asarray(scores, float))
    if np.isnan(ordered).any():
        raise ValueError("scores hold NaN")
    rank = math.ceil((len(ordered) + 1) * (1 - alpha))
    return float(ordered[rank - 1]) if 0 < rank <= len(ordered) else math.inf


def binomial_p_value(events: int, n: int, alpha: float) -> float:
    """Returns the p value of "the rate exceeds alpha": P(Binomial(n, alpha) <= events)."""
    from scipy.special import bdtr

    return float(bdtr(events, n, alpha)) if n else 1.0


def hoeffding_bentkus_p_value(mean: float, n: int, alpha: float) -> float:
    """Returns the p value of "the mean loss exceeds alpha" for a loss in [0, 1].

    The smaller of Hoeffding's and Bentkus's (Bates et al. 2021, arXiv 2101.02703).
    """
    if n == 0 or mean >= alpha:
        return 1.0
    # KL divergence of Bernoulli(mean) from Bernoulli(alpha); 0 log 0 = 0.
    kl = (mean * math.log(mean / alpha) if mean > 0 else 0.0) + (1 - mean) * math.log(
        (1 - mean) / (1 - alpha)
    )
    hoeffding = math.exp(-n * kl)
    bentkus = math.e * binomial_p_value(math.ceil(n * mean), n, alpha)
    return min(1.0, hoeffding, bentkus)


class TestedThreshold(Struct, frozen=True):
    """One threshold with its calibration counts, its p value, and whether it is certified."""

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

    Each threshold is tested at level delta until the first failure, so that with probability
    1 - delta every certified threshold has a rate of at most alpha.

    Args:
        thresholds: from the safest to the least safe, in an order fixed before any label was seen.
        events: number of losses at each threshold.
        sizes: number of calibration rows at each threshold, fixed beforehand unless `anytime`.
        alpha: the rate to stay under.
        delta: the probability with which the guarantee may fail.
        anytime: use `anytime_p_value`, valid when one looks, labels more and looks again.

    Raises:
        ValueError: alpha or delta does not lie between 0 and 1, or lengths differ.
    """
    if not 0 < alpha < 1 or not 0 < delta < 1:
        raise ValueError("alpha and delta lie between 0 and 1")
    tested, all_passed = [], True
    for threshold, k, n in zip(thresholds, events, sizes, strict=True):
        p = anytime_p_value(k, n, alpha) if anytime else binomial_p_value(k, n, alpha)
        # Fixed-sequence testing needs no correction for multiplicity, provided that nothing
        # behind the first failure is certified, however small its p value.
        all_passed = all_passed and p <= delta
        tested.append(TestedThreshold(threshold, k, n, p, all_passed))
    return tested


def labels_needed(alpha: float, *, delta: float = 0.05, events: int = 0) -> int:
    """Returns the least n for which `events` of n certify a rate of at most alpha.

    59 for no event at alpha = 5 % and 95 % confidence. With many rows, up to 0.1 % too large.
    """
    n = math.ceil(math.log(delta) / math.log1p(-alpha)) if events == 0 else events + 1
    while binomial_p_value(events, n, alpha) > delta:
        n += max(1, n // 1000)
    return n


def anytime_p_value(events: int, n: int, alpha: float) -> float:
    """Returns a p value of "the rate is at least alpha" that is valid at any stopping time.

    One over a likelihood ratio against rate alpha, mixed over smaller rates: half of the weight
    on 0, half uniform on (0, alpha). The ratio is a test martingale (Ville 1939; Ramdas et al.
    2023, arXiv 2210.01948). The price: 0 of 68 certifies 5 %, where a fixed number needs 59.
    Raises ValueError unless 0 <= events <= n and 0 < alpha < 1.
    """
    import numpy as np

    if not 0 <= events <= n or not 0 < alpha < 1:
        raise ValueError(f"{events} events of {n} at alpha {alpha}")
    theta = (np.arange(400) + 0.5) / 400 * alpha  # midpoint rule for the uniform part
    log_ratio = events * (np.log(theta) - math.log(alpha)) + (n - events) * (
        np.log1p(-theta) - math.log1p(-alpha)
    )
    largest = float(log_ratio.max())
    # Exponents are capped at 700, where exp() would overflow; the p value is 0 by then anyway.
    uniform_part = 0.5 * math.exp(min(700.0, largest)) * float(np.exp(log_ratio - largest).mean())
    zero_part = 0.5 * math.exp(min(700.0, -n * math.log1p(-alpha))) if events == 0 else 0.0
    wealth = uniform_part + zero_part
    return min(1.0, 1 / wealth) if wealth > 0 else 1.0
