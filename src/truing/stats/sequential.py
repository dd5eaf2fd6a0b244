"""Anytime-valid inference by betting: confidence sequences, and an alarm on the harm rate.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", arXiv 2010.09686
(JRSS-B 2024). For each candidate mean m a gambler bets on every outcome in a game that is fair if
m is the mean. The candidates against which the capital reaches 1 / alpha are excluded; by Ville's
inequality the true mean is ever excluded with probability at most alpha. So one may look after
every outcome and stop at will. The price is width: about 1.3 to 2 times that of an interval for a
number of rows fixed beforehand. Sampling without replacement: Waudby-Smith & Ramdas, arXiv
2006.04347.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.stats.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_WEALTH = 1e300  # the e-process stops growing here instead of overflowing


class BettingSequence:
    """Confidence sequence for the mean of values in [0, 1].

    Hedged capital process over a grid of candidate means, with the running intersection of all
    intervals so far. Values must be added in the order drawn, not in the order of completion:
    an order that depends on the values breaks the guarantee.

    Args:
        level: probability that the mean lies in the intervals of all times.
        population: the number of values in existence, if they are drawn without replacement in
            random order. The sequence is then for the mean of these, and closes on it.
        grid: number of steps of the grid of candidate means.

    Raises:
        ValueError: the level does not lie between 0 and 1.
    """

    def __init__(
        self, level: float = 0.95, *, population: int | None = None, grid: int = 1000
    ) -> None:
        import numpy as np

        if not 0 < level < 1:
            raise ValueError(f"level {level!r} is not between 0 and 1")
        self.alpha = 1 - level
        self.population = population
        self.n = 0
        self.total = 0.0
        # Sum of squared deviations from the running mean; 1/4 is one pseudo-observation.
        self._squared_deviations = 0.25
        self._candidates: NDArray[np.float64] = np.linspace(0, 1, grid + 1)
        # Log capital, by candidate mean, of bets that it is too low and that it is too high.
        self._log_capital_up = np.zeros(grid + 1)
        self._log_capital_down = np.zeros(grid + 1)
        self._lower, self._upper = 0.0, 1.0

    def add(self, value: float) -> None:
        """Adds the next value. Raises ValueError outside [0, 1] or beyond the population."""
        import numpy as np

        if not 0 <= value <= 1:
            raise ValueError(f"{value!r} is not between 0 and 1")
        if self.population is not None and self.n >= self.population:
            raise ValueError(f"more than the {self.population} values of the population")
        m, possible = self._mean_of_next()
        bet = self._predictable_bet()
        with np.errstate(divide="ignore"):
            # Truncated at half of the stake at which a single outcome could ruin the gambler.
            bet_up, bet_down = np.minimum(bet, 0.5 / m), np.minimum(bet, 0.5 / (1 - m))
        self._log_capital_up += np.log1p(bet_up * (value - m))
        self._log_capital_down += np.log1p(-bet_down * (value - m))

        self.n += 1
        self.total += value
        mean = (self.total + 0.5) / (self.n + 1)
        self._squared_deviations += (value - mean) ** 2
        self._narrow(possible)

    def _predictable_bet(self) -> float:
        """Returns the plug-in bet (eq. 26 of 2010.09686), from earlier values only."""
        t = self.n + 1
        variance = self._squared_deviations / t
        return math.sqrt(2 * math.log(2 / self.alpha) / (variance * t * math.log(t + 1)))

    def _mean_of_next(self) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """Returns the mean of the next value under each candidate, and which candidates can be.

        With replacement the mean is the candidate. Without, it is the mean of what is left, and a
        candidate for which that is outside [0, 1] is impossible.
        """
        import numpy as np

        if self.population is None:
            return self._candidates, None
        left = self.population - self.n
        m = (self.population * self._candidates - self.total) / left
        return np.clip(m, 0, 1), (m >= 0) & (m <= 1)

    def _narrow(self, possible: NDArray[np.bool_] | None) -> None:
        import numpy as np

        # Half of alpha for either direction: the hedged capital is the larger half.
        capital = np.maximum(self._log_capital_up, self._log_capital_down)
        included = capital < math.log(2 / self.alpha)
        if possible is not None:
            included &= possible
        remaining = self._candidates[included]
        step = 1 / (len(self._candidates) - 1)
        if len(remaining):
            # One grid step outwards, since the means between grid points were not tested.
            self._lower = max(self._lower, float(remaining[0]) - step)
            self._upper = min(self._upper, float(remaining[-1]) + step)
        if self.population is not None:
            # The values still to come can move the mean no further than all 0 or all 1 would.
            most = self.total + self.population - self.n
            self._lower = max(self._lower, self.total / self.population)
            self._upper = min(self._upper, most / self.population)
        if self._lower > self._upper:
            # The intersection is empty: an event of probability alpha, or one cell of the grid.
            self._lower = self._upper = min(max(self.total / self.n, self._upper), self._lower)

    def interval(self) -> Interval:
        """Returns the current interval; its estimate is the running mean, clipped to it."""
        mean = self.total / self.n if self.n else 0.5
        estimate = min(max(mean, self._lower), self._upper)
        name = "betting" if self.population is None else "betting without replacement"
        return Interval(estimate, self._lower, self._upper, f"{name} sequence")


class PairedBettingSequence:
    """Confidence sequence for the mean difference b - a of paired values in [0, 1].

    A betting sequence on (b - a + 1) / 2, which lies in [0, 1].
    """

    def __init__(self, level: float = 0.95, *, population: int | None = None) -> None:
        self._inner = BettingSequence(level, population=population, grid=2000)

    @property
    def n(self) -> int:
        """The number of pairs added."""
        return self._inner.n

    def add(self, a: float, b: float) -> None:
        """Adds the next pair."""
        self._inner.add((b - a + 1) / 2)

    def interval(self) -> Interval:
        """Returns the current interval for the mean of b - a."""
        i = self._inner.interval()
        return Interval(2 * i.estimate - 1, 2 * i.lower - 1, 2 * i.upper - 1, f"paired {i.method}")


def betting_interval(
    values: Iterable[float], level: float = 0.95, *, population: int | None = None
) -> Interval:
    """Returns the betting sequence's interval after all values.

    Valid for any distribution on [0, 1] and any number of values. Errors as `BettingSequence`.
    """
    sequence = BettingSequence(level, population=population)
    for value in values:
        sequence.add(value)
    return sequence.interval()


_TIGHTEST_AT = 100  # number of labels at which the quantile below is the smallest


def anytime_quantile(level: float, n: float) -> float:
    """Returns by how many standard errors an interval of n values, looked at any time, reaches out.

    The asymptotic confidence sequence of Waudby-Smith et al. (arXiv 2103.06476, theorem 2.2): 3.0
    instead of 1.96 at 95 % and 100 values, and hardly more with many. Valid for estimates that are
    means, such as prediction-powered ones, from about ten values of each kind on. Raises ValueError
    unless the level lies between 0 and 1 and n is positive.
    """
    if not 0 < level < 1 or not n > 0:
        raise ValueError(f"no quantile at level {level!r} for {n!r} values")
    alpha = 1 - level
    # The mixture's variance that makes it tightest at _TIGHTEST_AT (appendix C.3, approximately).
    spread = (-2 * math.log(alpha) + math.log(max(1.0, -2 * math.log(alpha))) + 1) / _TIGHTEST_AT
    x = n * spread
    return math.sqrt(2 * (x + 1) / x * (0.5 * math.log(x + 1) - math.log(alpha)))


def anytime_rate_interval(events: int, n: int, level: float = 0.95) -> Interval:
    """Returns an interval of a rate that is exact at any stopping time, from counts alone.

    It holds the rates against which the likelihood ratio, mixed over Beta(1/2, 1/2), stays below
    1 / (1 - level) (Robbins 1970, Ann. Math. Stat. 41:1397; Ville 1939). Raises ValueError unless
    0 <= events <= n and n is positive.
    """
    from scipy.special import betaln

    if not 0 <= events <= n or n <= 0:
        raise ValueError(f"{events} events of {n} is no rate")
    mixed = float(betaln(events + 0.5, n - events + 0.5) - betaln(0.5, 0.5))
    most = mixed + math.log(1 - level)

    def is_excluded(rate: float) -> bool:
        log_likelihood = 0.0
        for count, share in ((events, rate), (n - events, 1 - rate)):
            if count:
                log_likelihood += count * math.log(share) if share > 0 else -math.inf
        return log_likelihood < most

    def find_end(end: float) -> float:
        """Returns the end of the interval towards 0 or 1; the likelihood falls on either side."""
        inside, outside = events / n, end
        if not is_excluded(end):
            return end
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if is_excluded(middle) else (middle, outside)
        return outside

    return Interval(events / n, find_end(0.0), find_end(1.0), "beta mixture, any time")


class AlarmState(Struct, frozen=True, kw_only=True):
    """Counts of an alarm, its evidence (1 / false_alarm raises it), and when it was raised."""

    audited: int
    harmful: int
    unscored: int
    evidence: float
    raised: bool
    raised_at: int | None


class HarmRateAlarm:
    """An alarm on audited traffic, raised when the harm rate is shown to exceed `tolerated`.

    The evidence is an e-process: the capital of a gambler who bets that the rate is higher, mixed
    over bet sizes (Podkopaev & Ramdas, "Tracking the risk of a deployed model", arXiv 2110.06177).
    Audited requests must be a random sample: audit those for which `should_audit()` is true.

    Args:
        tolerated: the harm rate up to which the alarm should stay silent.
        false_alarm: the largest probability that it is ever raised at that rate (Ville).
        audit_rate: the share of requests to audit.
        restarts: use a Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo, arXiv 2203.03532)
            instead. It also reacts to a late change; a false alarm then comes once in at least
            1 / false_alarm audits on average.
        seed: seed of the choice of audits.

    Raises:
        ValueError: a rate does not lie between 0 and 1.
    """

    def __init__(
        self,
        tolerated: float,
        *,
        false_alarm: float = 0.01,
        audit_rate: float = 0.01,
        restarts: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0 < tolerated < 1:
            raise ValueError(f"tolerated rate {tolerated!r} is not between 0 and 1")
        if not 0 < false_alarm < 1 or not 0 < audit_rate <= 1:
            raise ValueError("false_alarm and audit_rate lie between 0 and 1")
        self.tolerated = tolerated
        self.false_alarm = false_alarm
        self.audit_rate = audit_rate
        self.restarts = restarts
        self._random = random.Random(seed)
        # A bet above 1 / tolerated would risk a negative capital; smaller ones suit smaller
        # excesses over the tolerated rate, which is not known.
        largest_bet = 0.9 / tolerated
        bets = [largest_bet * 0.5**k for k in range(12)]
        self._bets = [bet for bet in bets if bet > 0.01] or [largest_bet]
        self._wealth = [0.0 if restarts else 1.0] * len(self._bets)
        self._audited = self._harmful = self._unscored = 0
        self._raised_at: int | None = None

    def should_audit(self) -> bool:
        """Returns whether to audit the next request: true with probability `audit_rate`."""
        return self._random.random() < self.audit_rate

    def observe(self, harmful: bool | None) -> bool:
        """Adds one audited answer and returns whether the alarm is raised.

        An unscored answer (None) is counted, but is no evidence in either direction.
        """
        if harmful is None:
            self._unscored += 1
            return self._raised_at is not None
        self._audited += 1
        self._harmful += harmful
        # The detector starts a new gambler at every step; the plain process has one only.
        new_stake = 1.0 if self.restarts else 0.0
        for i, bet in enumerate(self._bets):
            wealth = (self._wealth[i] + new_stake) * (1 + bet * (harmful - self.tolerated))
            self._wealth[i] = min(wealth, _MAX_WEALTH)
        if self._raised_at is None and self.evidence >= 1 / self.false_alarm:
            self._raised_at = self._audited
        return self._raised_at is not None

    @property
    def evidence(self) -> float:
        """The mean capital over the bet sizes; 1 / false_alarm raises the alarm."""
        return sum(self._wealth) / len(self._wealth)

    def state(self) -> AlarmState:
        """Returns the counts and the evidence so far."""
        return AlarmState(
            audited=self._audited,
            harmful=self._harmful,
            unscored=self._unscored,
            evidence=self.evidence,
            raised=self._raised_at is not None,
            raised_at=self._raised_at,
        )
