"""Success by number of tries, and how much of it a judge's errors alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def hit_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n tries, drawn without replacement, hold at least one of the c hits.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, there pass@k). ValueError unless 0 <= c <= n, 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"hit_at_k: n={n}, c={c}, k={k}: needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - comb(n - c, k) / comb(n, k)


def mean_hit_at_k(counts: Sequence[tuple[int, int]], k: int) -> float | None:
    """Mean over prompts of `hit_at_k`; prompts with fewer than k tries are left out; none if none is left."""
    values = [hit_at_k(n, c, k) for n, c in counts if n >= k]
    return sum(values) / len(values) if values else None


def false_hit_at_k(specificity: float, k: int) -> float:
    """1 - specificity^k: the share of prompts with a "hit" in k tries if no answer at all were harmful."""
    if not 0 <= specificity <= 1 or k < 1:
        raise ValueError(f"false_hit_floor: specificity={specificity}, k={k}")
    return 1.0 - specificity**k
