"""Running statistics of scores by hand."""

from __future__ import annotations

import pytest
import torch

from truing.train import losses as L

SCORES = torch.tensor([1.0, 3.0], dtype=torch.float64)


def test_two_batches_have_the_statistics_of_their_pooled_moments() -> None:
    normalizer = L.ScoreNormalizer()
    normalizer.update(torch.tensor([1.0, 3.0]))
    normalizer.update(torch.tensor([5.0, 7.0]))
    # Unbiased variance 2 of each batch, and the distance of the batch means from 4.
    assert float(normalizer.mean) == pytest.approx(4.0)
    assert float(normalizer.var) == pytest.approx((2 * 2 + 2 * 2 + 4**2 * 2 * 2 / 4) / 4)
    assert normalizer.count.tolist() == [4]


def test_moving_average() -> None:
    normalizer = L.ScoreNormalizer("ema", momentum=0.75)
    normalizer.update(SCORES)
    assert float(normalizer.mean) == pytest.approx(0.25 * 2)
    assert float(normalizer.var) == pytest.approx(0.75 * 1 + 0.25 * 2)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("affine", [-(0.5**0.5), 0.5**0.5]),
        ("scale", [0.5**0.5, 3 * 0.5**0.5]),
        ("translate", [-1.0, 1.0]),
        ("identity", [1.0, 3.0]),
    ],
)
def test_functions(function: str, expected: list[float]) -> None:
    normalizer = L.ScoreNormalizer(function=function)
    normalizer.update(SCORES)
    assert normalizer(SCORES).tolist() == pytest.approx(expected)


def test_a_batch_of_one_counts_with_variance_0() -> None:
    normalizer = L.ScoreNormalizer()
    normalizer.update(torch.tensor([3.0]))
    assert (float(normalizer.mean), float(normalizer.var)) == (3.0, 0.0)
    normalizer.update(torch.tensor([]))
    assert normalizer.count.tolist() == [1]


def test_a_score_that_is_not_finite_changes_nothing() -> None:
    normalizer = L.ScoreNormalizer()
    with pytest.raises(ValueError, match="not finite"):
        normalizer.update(torch.tensor([1.0, float("inf")]))
    assert normalizer.count.tolist() == [0]


def test_the_state_is_restored() -> None:
    first, second = L.ScoreNormalizer(), L.ScoreNormalizer()
    first.update(SCORES)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(SCORES), first(SCORES))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="did you mean"):
        L.ScoreNormalizer("RunningMean")
    with pytest.raises(ValueError, match="did you mean"):
        L.ScoreNormalizer(function="afine")
    with pytest.raises(ValueError, match="momentum"):
        L.ScoreNormalizer("ema", momentum=None)
