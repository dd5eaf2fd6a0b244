"""The options of an evaluation, and the interfaces of a stopping rule and a progress callback."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from truing.core.prices import Price, format_money
from truing.core.types import Sampling

DEFAULT_PART_ROWS = 1000
"""Rows of a part of a run, where an evaluation is divided among processes."""


class StoppingRule(Protocol):
    """Decides when a run has seen enough samples.

    Samples are drawn in a random order that the seed determines; one sample is one draw.
    """

    @property
    def question(self) -> str:
        """The question whose verdicts the rule looks at."""
        ...

    def observe(self, sample_id: str, verdict: float | None) -> bool:
        """Takes the next draw and returns whether the run stops.

        `verdict` is the mean over the sample's answers (1 true, 0 false), None if all are unscored.
        """
        ...


class ProgressCallback(Protocol):
    """Receives the progress of a run."""

    def __call__(self, done: int, total: int, failures: int) -> None:
        """Called after each sample; must return quickly."""
        ...


class RunBudget(Struct, frozen=True, kw_only=True):
    """The most that a run's answers may cost, in money and in tokens read and written.

    Stored answers of earlier calls count; None is no limit. Money needs a price.
    """

    money: float | None = None
    tokens: int | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.money is not None or self.tokens is not None

    def find_faults(self, price: Price | None) -> list[str]:
        """Returns what is wrong with the limits of a run whose tokens have this price.

        0 is a limit: the share of a run may be used up before it begins.
        """
        faults = []
        # A NaN is neither below 0 nor at least 0.
        if self.money is not None and not 0 <= self.money < math.inf:
            faults.append(f"budget: money {self.money!r} is no amount; give one above 0")
        if self.tokens is not None and self.tokens < 0:
            faults.append(f"budget: {self.tokens:,} tokens are no limit; give a number above 0")
        if self.money is not None and price is None:
            faults.append("budget: money needs the price of the model's tokens; give price")
        return faults

    def describe(self) -> str:
        """Returns the limits in words."""
        limits = [format_money(self.money)] if self.money is not None else []
        limits += [f"{self.tokens:,} tokens"] if self.tokens is not None else []
        return " and ".join(limits)


class EvaluateOptions(Struct, frozen=True, kw_only=True):
    """How to run an evaluation.

    - `sampling`: how answers are generated; its seed is replaced for each sample
    - `seed`: determines the random stream of each sample
    - `limit`: use only so many rows of the data set
    - `sample`: which rows, if there are more than `limit`: ``random`` draws prompts by the seed,
      ``first`` takes the first rows
    - `concurrency`: number of samples in progress at a time
    - `until`: stops the run early
    - `plan`: the user's plan, stored in the manifest beside the settings
    - `retry_failures`: which failures of an earlier call are repeated: None, those that may pass
      (`Failure.transient`: the endpoint was down); True, all; False, none
    - `authorised`: who allowed an attack on an endpoint that is not this machine
    - `rate`: maximum requests per second to the model's endpoint; without it, 5 in an attack on
      another machine, else no maximum
    - `budget`: what the answers may cost, stored ones included; under one, samples are taken in a
      random order, and the run stops, not complete, before the request that would pass it
    - `price`: of the model's tokens; with one, the manifest gets what the answers cost
    """

    sampling: Sampling = Sampling()
    seed: int = 0
    limit: int | None = None
    sample: Literal["random", "first"] = "random"
    concurrency: int = 16
    until: StoppingRule | None = None
    progress: ProgressCallback | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    taxonomy: str = "beavertails"
    retry_failures: bool | None = None
    authorised: str = ""
    rate: float | None = None
    budget: RunBudget = RunBudget()
    price: Price | None = None
