"""An alarm on the harm rate of a stream that a judge reads whole and people label in part.

Every row has the judge's prediction f; a random share `audit_rate` of the rows is labelled by
people. Then Z = f + (Y - f) / audit_rate on audited rows, and Z = f on all others, has the mean of
the true label Y, however wrong the judge is; the better it is, the less Z varies. The capital of a
gambler who bets on Z is a supermartingale while the rate is at most `tolerated`: by Ville's
inequality it ever reaches 1 / false_alarm with probability false_alarm at most, however often one
looks (prediction-powered e-values: Csillag, Struchiner & Goedert, ICML 2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_N_BETS = 12


class CorrectedRateAlarm:
    """Raised when the rate of true labels is shown to exceed `tolerated`.

    With `restarts` it is a Shiryaev-Roberts detector (Shin, Ramdas & Rinaldo, arXiv 2203.03532),
    which also reacts to a late change; a false alarm then comes once in at least 1 / false_alarm
    rows on average, so that `false_alarm` should be small against one over the rows of a year.

    Raises ValueError unless all rates lie between 0 and 1.
    """

    def __init__(
        self,
        tolerated: float,
        *,
        false_alarm: float = 0.01,
        audit_rate: float = 0.01,
        restarts: bool = False,
    ) -> None:
        if not (0 < tolerated < 1 and 0 < false_alarm < 1 and 0 < audit_rate <= 1):
            raise ValueError("tolerated, false_alarm and audit_rate lie between 0 and 1")
        self.tolerated, self.false_alarm, self.audit_rate = tolerated, false_alarm, audit_rate
        self.restarts = restarts
        self.rows = self.labels = 0
        self.raised_at: int | None = None
        self._sum = 0.0
        # The lowest Z is 1 - 1 / audit_rate; a larger bet could make the capital negative.
        largest = 0.9 / (tolerated + 1 / audit_rate - 1)
        self._bets: NDArray[np.float64] = np.asarray(
            largest * 0.5 ** np.arange(_N_BETS), dtype=np.float64
        )
        self._log_capital = np.full(_N_BETS, -np.inf if restarts else 0.0)

    def observe(self, predictions: Sequence[float], labels: Sequence[float | None]) -> bool:
        """Adds rows in the order of the stream; returns whether the alarm is raised.

        `predictions` lie in [0, 1]; `labels` are None for rows that were not audited, and must not
        be left out for those that were. Raises ValueError for values outside of [0, 1].
        """
        for prediction, label in zip(predictions, labels, strict=True):
            if not 0 <= prediction <= 1 or (label is not None and not 0 <= label <= 1):
                raise ValueError(f"{prediction!r}, {label!r}: not between 0 and 1")
            value = prediction
            if label is not None:
                value += (label - prediction) / self.audit_rate
                self.labels += 1
            self.rows += 1
            self._sum += value
            factor = np.log1p(self._bets * (value - self.tolerated))
            start = np.logaddexp(self._log_capital, 0.0) if self.restarts else self._log_capital
            self._log_capital = start + factor
            if self.raised_at is None and self.log_evidence >= -math.log(self.false_alarm):
                self.raised_at = self.rows
        return self.raised_at is not None

    @property
    def log_evidence(self) -> float:
        """The logarithm of the mean capital over the bets; -log(false_alarm) raises the alarm."""
        return float(np.logaddexp.reduce(self._log_capital)) - math.log(_N_BETS)

    @property
    def corrected_rate(self) -> float | None:
        """The mean of Z: an unbiased estimate of the rate so far; None without rows."""
        return self._sum / self.rows if self.rows else None
