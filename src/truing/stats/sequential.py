"""Anytime-valid inference by betting: confidence sequences for a rate or a paired difference, and an alarm.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", arXiv 2010.09686 (JRSS-B 2024): a
gambler bets on each outcome against every candidate mean m; candidates against whom the fortune reaches 1/alpha are
out, at every time at once (Ville's inequality). Without replacement: Waudby-Smith & Ramdas 2006.04347. Stopping when
one likes is free; the price is width: about 1.3 to 2 times that of a fixed-n interval.
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


class BettingSequence:
    """Confidence sequence for the mean of values in [0, 1]; hedged capital, grid of candidates, running intersection.

    `population` is the number of values that exist if they are drawn without replacement in random order: the
    sequence is then for their mean, and closes on it. Outcomes must enter in the order drawn, whatever their order of
    completion.
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
        self._variance = 0.25  # sum of squares of the running variance estimate, with its prior
        self._m: NDArray[np.float64] = np.linspace(0, 1, grid + 1)
        self._up = np.zeros(grid + 1)  # log capital of the bets that m is too low
        self._down = np.zeros(grid + 1)
        self._lower, self._upper = 0.0, 1.0

    def _bet(self) -> float:
        """The predictable plug-in bet before truncation (their eq. 26)."""
        t = self.n + 1
        variance = self._variance / t
        return math.sqrt(2 * math.log(2 / self.alpha) / (variance * t * math.log(t + 1)))

    def add(self, value: float) -> None:
        """One more outcome."""
        import numpy as np

        if not 0 <= value <= 1:
            raise ValueError(f"{value!r} is not between 0 and 1")
        if self.population is not None and self.n >= self.population:
            raise ValueError(f"more than the {self.population} values of the population")
        m, alive = self._m, None
        if self.population is not None:
            left = self.population - self.n
            m = (self.population * m - self.total) / left
            alive = (m >= 0) & (m <= 1)
            m = np.clip(m, 0, 1)
        bet = self._bet()
        with np.errstate(divide="ignore"):
            high, low = np.minimum(bet, 0.5 / m), np.minimum(bet, 0.5 / (1 - m))
        self._up += np.log1p(high * (value - m))
        self._down += np.log1p(-low * (value - m))
        self.n += 1
        self.total += value
        mean = (self.total + 0.5) / (self.n + 1)
        self._variance += (value - mean) ** 2
        self._narrow(alive)

    def _narrow(self, alive: NDArray[np.bool_] | None) -> None:
        import numpy as np

        inside = np.maximum(self._up, self._down) < math.log(2 / self.alpha)
        if alive is not None:
            inside &= alive
        kept = self._m[inside]
        step = 1 / (len(self._m) - 1)
        if len(kept):
            self._lower = max(self._lower, float(kept[0]) - step)
            self._upper = min(self._upper, float(kept[-1]) + step)
        if self.population is not None:  # what is left can move the mean no further
            self._lower = max(self._lower, self.total / self.population)
            self._upper = min(
                self._upper, (self.total + self.population - self.n) / self.population
            )
        if self._lower > self._upper:  # an event of probability alpha, or a grid cell
            self._lower = self._upper = min(max(self.total / self.n, self._upper), self._lower)

    def interval(self) -> Interval:
        """The present interval; its estimate is the running mean, moved into the interval if it lies outside."""
        mean = self.total / self.n if self.n else 0.5
        name = "betting" if self.population is None else "betting without replacement"
        return Interval(
            min(max(mean, self._lower), self._upper), self._lower, self._upper, f"{name} sequence"
        )


class PairedBettingSequence:
    """Confidence sequence for the mean difference of paired values in [0, 1]: bets on (b - a + 1) / 2."""

    def __init__(self, level: float = 0.95, *, population: int | None = None) -> None:
        self._inner = BettingSequence(level, population=population, grid=2000)

    @property
    def n(self) -> int:
        """The number of pairs seen."""
        return self._inner.n

    def add(self, a: float, b: float) -> None:
        """One more pair."""
        self._inner.add((b - a + 1) / 2)

    def interval(self) -> Interval:
        """The present interval for the mean of b - a."""
        i = self._inner.interval()
        return Interval(2 * i.estimate - 1, 2 * i.lower - 1, 2 * i.upper - 1, f"paired {i.method}")


def betting_interval(
    values: Iterable[float], level: float = 0.95, *, population: int | None = None
) -> Interval:
    """The sequence's interval after all values, for any distribution on [0, 1]; valid at every n, also small ones."""
    sequence = BettingSequence(level, population=population)
    for value in values:
        sequence.add(value)
    return sequence.interval()


class AlarmState(Struct, frozen=True, kw_only=True):
    """Where an alarm stands."""

    audited: int
    harmful: int
    unscored: int
    evidence: float
    raised: bool
    raised_at: int | None


class HarmRateAlarm:
    """An e-process on randomly audited traffic: raised when the harm rate is shown to exceed `tolerated`.

    While the rate is at most `tolerated`, the chance that it is ever raised is at most `false_alarm` (Ville). The
    fortune is a mixture over bet sizes (Podkopaev & Ramdas, "Tracking the risk of a deployed model", arXiv 2110.06177).
    With `restarts` it is a Shiryaev-Roberts e-detector instead (Shin, Ramdas & Rinaldo 2203.03532): it reacts to a late
    change, and a false alarm comes once in at least 1 / `false_alarm` audits on average. Which requests are audited
    must be random: call `should_audit()`.
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
        self.tolerated, self.false_alarm, self.audit_rate, self.restarts = (
            tolerated,
            false_alarm,
            audit_rate,
            restarts,
        )
        self._random = random.Random(seed)
        top = 0.9 / tolerated
        self._bets = [top * 0.5**k for k in range(12) if top * 0.5**k > 0.01] or [top]
        self._wealth = [0.0 if restarts else 1.0] * len(self._bets)
        self._audited = self._harmful = self._unscored = 0
        self._raised_at: int | None = None

    def should_audit(self) -> bool:
        """Whether the next request is to be audited: a coin of probability `audit_rate`."""
        return self._random.random() < self.audit_rate

    def observe(self, harmful: bool | None) -> bool:
        """One audited answer; gives whether the alarm is raised. An unscored one is counted, and is no evidence."""
        if harmful is None:
            self._unscored += 1
            return self._raised_at is not None
        self._audited += 1
        self._harmful += harmful
        start = 1.0 if self.restarts else 0.0
        for at, bet in enumerate(self._bets):
            grown = (self._wealth[at] + start) * (1 + bet * (harmful - self.tolerated))
            self._wealth[at] = min(grown, 1e300)
        if self._raised_at is None and self.evidence >= 1 / self.false_alarm:
            self._raised_at = self._audited
        return self._raised_at is not None

    @property
    def evidence(self) -> float:
        """The fortune: 1 / false_alarm raises the alarm."""
        return sum(self._wealth) / len(self._wealth)

    def state(self) -> AlarmState:
        """Counts and evidence so far."""
        return AlarmState(
            audited=self._audited,
            harmful=self._harmful,
            unscored=self._unscored,
            evidence=self.evidence,
            raised=self._raised_at is not None,
            raised_at=self._raised_at,
        )
