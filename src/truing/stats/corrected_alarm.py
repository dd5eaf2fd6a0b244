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

_N_BETS = 12  # from the largest safe bet down to a two-thousandth of it, each half of the last
_ROWS_AT_ONCE = 4096


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
        # The lowest Z is 1 - 1 / audit_rate; a larger bet could make the capital negative, and one
        # near to it would lose nearly all of it in one row: 0.9 leaves a tenth.
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
        judged = np.asarray(predictions, np.float64)
        audited = np.array([label is not None for label in labels], np.bool_)
        truth = np.array([0.0 if label is None else label for label in labels], np.float64)
        if len(judged) != len(truth):
            raise ValueError(f"{len(judged)} predictions and {len(truth)} labels")
        wrong = ~((judged >= 0) & (judged <= 1) & (truth >= 0) & (truth <= 1))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"{predictions[row]!r}, {labels[row]!r}: not between 0 and 1")
        values = judged + np.where(audited, (truth - judged) / self.audit_rate, 0.0)
        self.labels += int(audited.sum())
        self._sum += float(values.sum())
        for start in range(0, len(values), _ROWS_AT_ONCE):
            self._bet_on(values[start : start + _ROWS_AT_ONCE])
        return self.raised_at is not None

    def _bet_on(self, values: NDArray[np.float64]) -> None:
        """Updates the capital of each bet by the rows, `[rows, bets]` at a time."""
        gains = np.cumsum(np.log1p(np.multiply.outer(values - self.tolerated, self._bets)), axis=0)
        if self.restarts:
            # R_t = (R_{t-1} + 1) f_t = F_t (R_0 + sum of 1 / F_{k-1}, k = 1..t); F_t = f_1 ... f_t
            first = np.logaddexp(self._log_capital, 0.0)
            starts = np.logaddexp.accumulate(np.vstack([first, -gains[:-1]]), axis=0)
            log_capital = starts + gains
        else:
            log_capital = self._log_capital + gains
        evidence = np.logaddexp.reduce(log_capital, axis=1) - math.log(_N_BETS)
        reached = evidence >= -math.log(self.false_alarm)
        if self.raised_at is None and reached.any():
            self.raised_at = self.rows + int(reached.argmax()) + 1
        self.rows += len(values)
        self._log_capital = log_capital[-1]

    @property
    def log_evidence(self) -> float:
        """The logarithm of the mean capital over the bets; -log(false_alarm) raises the alarm."""
        return float(np.logaddexp.reduce(self._log_capital)) - math.log(_N_BETS)

    @property
    def corrected_rate(self) -> float | None:
        """The mean of Z: an unbiased estimate of the rate so far; None without rows."""
        return self._sum / self.rows if self.rows else None
