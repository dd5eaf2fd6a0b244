"""Masked means, indices and whitening by hand."""

from __future__ import annotations

import math

import pytest
import torch

from truing.train import losses as L


def test_means_by_row_and_by_token() -> None:
    x, mask = torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert float(L.masked_mean(x, mask)) == pytest.approx((2 + 5) / 2)
    assert float(L.masked_mean(x, mask, "token")) == pytest.approx(3)
    assert float(L.masked_mean(x)) == pytest.approx(4.5)
    with pytest.raises(ValueError, match="neither 'row' nor 'token'"):
        L.masked_mean(x, mask, "batch")  # type: ignore[arg-type]


def test_a_row_without_tokens_counts_as_0_by_row_alone() -> None:
    x, mask = torch.tensor([[4.0], [7.0]]), torch.tensor([[1], [0]])
    assert float(L.masked_mean(x, mask, "row")) == 2.0
    assert float(L.masked_mean(x, mask, "token")) == 4.0


def test_nan_outside_the_mask_reaches_neither_value_nor_gradient() -> None:
    x = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    mean = L.masked_mean(x, torch.tensor([[1, 0]]))
    assert float(mean.detach()) == 1.0
    assert torch.autograd.grad(mean, x)[0].tolist() == [[1.0, 0.0]]


def test_end_index_with_padding_on_either_side() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    assert L.end_index(mask).tolist() == [3, 1, 3]


def test_first_difference() -> None:
    left, right = torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.tensor([[1, 9, 3], [1, 2, 9]])
    assert L.first_difference(left, right).tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"equal \(rows \[0\]"):
        L.first_difference(left, torch.tensor([[1, 2, 3], [9, 2, 3]]))


def test_whitening() -> None:
    x, mask = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1, 1, 0]])
    unit = 1 / math.sqrt(2)
    assert L.whiten(x, mask).tolist()[0] == pytest.approx([-unit, unit, 0.0], abs=1e-6)
    kept_mean = L.whiten(x, mask, shift_mean=False)
    assert kept_mean.tolist()[0] == pytest.approx([2 - unit, 2 + unit, 0.0], abs=1e-6)
