"""Normalisation of scores by running statistics (safe-rlhf's normalizers)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from truing.core.errors import did_you_mean

_KINDS = {
    "RunningMeanStd": "running",
    "running": "running",
    "ExponentialMovingAverage": "ema",
    "ema": "ema",
    None: "none",
    "none": "none",
}
_FUNCTIONS = ("affine", "scale", "translate", "identity")
_EPS = 1e-8


class ScoreNormalizer:
    """Running mean and variance of scores, and the function that applies them.

    `kind`: ``RunningMeanStd`` (all batches so far), ``ExponentialMovingAverage`` (momentum m:
    old·m + batch·(1-m), started at mean 0, variance 1), or none. Both take the *unbiased* variance
    of each batch (a batch of one counts with variance 0).
    `function`: ``affine`` (x-μ)/(σ+1e-8), ``scale`` x/(σ+1e-8) (the sign of a cost stays),
    ``translate`` x-μ, ``identity``.
    """

    def __init__(
        self,
        kind: str | None = "RunningMeanStd",
        function: str = "affine",
        momentum: float | None = 0.9,
        size: int = 1,
    ) -> None:
        if kind not in _KINDS:
            suggestion = did_you_mean(str(kind), [name for name in _KINDS if name])
            raise ValueError(f"normaliser {kind!r} is unknown{suggestion}")
        if function not in _FUNCTIONS:
            suggestion = did_you_mean(function, _FUNCTIONS)
            raise ValueError(f"function {function!r} is unknown{suggestion}")
        self.kind, self.function = _KINDS[kind], function
        if self.kind == "ema" and not (momentum is not None and 0 < momentum < 1):
            raise ValueError(f"momentum {momentum}: between 0 and 1")
        self.momentum = 0.0 if momentum is None else momentum
        # float64: the statistics are updated over a whole run.
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.var = torch.ones(size, dtype=torch.float64)
        self.count = torch.zeros(size, dtype=torch.int64)

    def update(self, scores: Tensor) -> None:
        """Adds a batch of scores to the statistics.

        Raises ValueError, and changes nothing, if a score is not finite.
        """
        batch = scores.detach().to(self.mean).reshape(-1, self.mean.shape[0])
        if not bool(torch.isfinite(batch).all()):
            raise ValueError("a score is not finite; the statistics are unchanged")
        n = batch.shape[0]
        if n == 0:
            return
        batch_mean = batch.mean(0)
        batch_var = batch.var(0, unbiased=True) if n > 1 else torch.zeros_like(batch_mean)
        if self.kind == "running":
            # Chan et al.'s parallel formula for the statistics of two batches together.
            count = self.count.to(self.mean)
            total = count + n
            delta = batch_mean - self.mean
            squares = self.var * count + batch_var * n + delta.square() * count * n / total
            self.mean = self.mean + delta * n / total
            self.var = squares / total
        elif self.kind == "ema":
            m = self.momentum
            self.mean = m * self.mean + (1 - m) * batch_mean
            self.var = m * self.var + (1 - m) * batch_var
        self.count = self.count + n

    def __call__(self, scores: Tensor) -> Tensor:
        """Returns the normalised scores in their own dtype; the statistics do not change."""
        if self.function == "identity":
            return scores
        mean, std = self.mean.to(scores), self.var.sqrt().to(scores) + _EPS
        if self.function == "translate":
            return scores - mean
        return (scores - mean) / std if self.function == "affine" else scores / std

    normalize = __call__

    def state_dict(self) -> dict[str, Any]:
        """Returns mean, variance and count."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.mean = torch.as_tensor(state["mean"], dtype=torch.float64)
        self.var = torch.as_tensor(state["var"], dtype=torch.float64)
        self.count = torch.as_tensor(state["count"], dtype=torch.int64)
