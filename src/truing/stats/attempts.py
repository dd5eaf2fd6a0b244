"""Attack success as a function of the number of attempts, and what judge errors add to it."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def hit_at_k(n: int, c: int, k: int) -> float:
    """Returns the probability that k of n attempts hold at least one of the c hits.

    The k attempts are drawn without replacement. This is the unbiased estimator of Chen et al.
    2021 (arXiv 2107.03374), called pass@k there. Raises ValueError unless 0 <= c <= n and
    1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"hit_at_k: n={n}, c={c}, k={k}: needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - comb(n - c, k) / comb(n, k)


def mean_hit_at_k(counts: Sequence[tuple[int, int]], k: int) -> float | None:
    """Returns the mean of `hit_at_k` over prompts, each given as (attempts n, hits c).

    Prompts with fewer than k attempts are left out; None if none is left.
    """
    values = [hit_at_k(n, c, k) for n, c in counts if n >= k]
    return sum(values) / len(values) if values else None


def false_hit_at_k(specificity: float, k: int) -> float:
    """Returns the share of prompts with a "hit" in k attempts if no answer were harmful at all.

    This is 1 - specificity^k, with the judge's errors taken as independent. Raises ValueError
    for a specificity outside [0, 1] or k below 1.
    """
    if not 0 <= specificity <= 1 or k < 1:
        raise ValueError(f"false_hit_at_k: specificity={specificity}, k={k}")
    return 1.0 - specificity**k
