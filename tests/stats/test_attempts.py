"""Success in k attempts: by hand, by simulation, and properties."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.stats.attempts import false_hit_at_k, hit_at_k, mean_hit_at_k


def test_by_hand() -> None:
    assert hit_at_k(4, 1, 1) == pytest.approx(0.25)
    assert hit_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert hit_at_k(5, 0, 5) == 0 and hit_at_k(5, 1, 5) == 1
    assert mean_hit_at_k([(4, 1), (4, 0), (2, 2)], 3) == pytest.approx(0.375)
    assert mean_hit_at_k([(1, 1)], 2) is None
    assert false_hit_at_k(0.9, 2) == pytest.approx(0.19)


@given(st.integers(1, 30), st.data())
def test_success_grows_with_attempts_and_hits(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert 0 <= hit_at_k(n, c, k) <= 1
    assert k == n or hit_at_k(n, c, k) <= hit_at_k(n, c, k + 1) + 1e-12
    assert c == n or hit_at_k(n, c, k) <= hit_at_k(n, c + 1, k) + 1e-12


def test_the_estimator_is_unbiased() -> None:
    rng, p, n, k = random.Random(0), 0.15, 10, 4
    estimates = [hit_at_k(n, sum(rng.random() < p for _ in range(n)), k) for _ in range(20_000)]
    assert sum(estimates) / len(estimates) == pytest.approx(1 - (1 - p) ** k, abs=0.005)


@pytest.mark.parametrize("counts", [(3, 4, 1), (3, 1, 0), (3, 1, 4), (3, -1, 1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="hit_at_k"):
        hit_at_k(*counts)


def test_a_specificity_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match="false_hit_at_k"):
        false_hit_at_k(1.2, 1)
