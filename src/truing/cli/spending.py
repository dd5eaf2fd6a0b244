"""Flags of what the answers of a run may cost."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from truing.cli.tables import print_text
from truing.core.errors import PlanError
from truing.specs.parser import redact_spec

if TYPE_CHECKING:
    from truing.core.prices import Price
    from truing.evaluation.options import RunBudget
    from truing.runs.folder import Manifest

STOPPED_BY_BUDGET = 3
"""Exit status of a command whose budget ended before the run: inconclusive, every figure may still
change.
"""


@Parameter(name="*")
@dataclass(frozen=True)
class SpendingFlags:
    """What the answers may cost.

    Parameters
    ----------
    budget
        Stop before the answers cost more than this, in the currency of the prices; stored answers
        count, and a higher budget continues. Calls of judges and attacks are not counted.
    budget_tokens
        Stop before more tokens than this are read and written for answers.
    prices
        TOML file: a table for each model, with input and output, the price of a million tokens.
    """

    budget: float | None = None
    budget_tokens: int | None = None
    prices: Path | None = None

    @property
    def are_given(self) -> bool:
        """Whether any of the flags is set."""
        return self != SpendingFlags()

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget."""
        return self.budget is not None or self.budget_tokens is not None

    def run_budget(self) -> RunBudget:
        """Returns the limits. Raises PlanError with the flags that are wrong."""
        from truing.evaluation.options import RunBudget
        from truing.plan.spending import find_budget_faults

        prices = str(self.prices or "")
        faults = find_budget_faults(self.budget, self.budget_tokens, prices)
        if faults:
            raise PlanError(
                *(f"--{key.replace('_', '-')}: {fault}" for key, fault in faults.items())
            )
        return RunBudget(money=self.budget, tokens=self.budget_tokens)

    def price_of(self, model: str) -> Price | None:
        """Returns the price of a model's spec, None without a file. Raises PlanError if the file
        does not have it.
        """
        from truing.plan.spending import read_variant_prices

        return read_variant_prices({"model": model}, str(self.prices or "")).get("model")


_ENDPOINT = re.compile(r"(?:^|[=(])(?:openai|openai-moderation|http):")


def warn_of_uncounted_calls(judges: Iterable[str], datasets: Iterable[str]) -> None:
    """Writes to standard error which judges and attacks ask an endpoint, whose calls no budget
    counts.
    """
    specs = [spec for spec in dict.fromkeys([*judges, *datasets]) if _ENDPOINT.search(spec)]
    if specs:
        spec_texts = ", ".join(redact_spec(spec) for spec in specs)
        print_text(
            f"truing: the budget counts answers alone, not what these ask for: {spec_texts}",
            file=sys.stderr,
        )


def check_flags(faults: Mapping[str, str]) -> None:
    """Raises PlanError if there are faults of settings; their keys become names of flags."""
    if faults:
        raise PlanError(*(f"--{k.replace('_', '-')}: {fault}" for k, fault in faults.items()))


def describe_budget_stop(name: str, manifest: Manifest) -> str:
    """Returns a line about a run that its budget has stopped, and "" for any other."""
    note = manifest.notes.get("budget", "")
    return f"{name}: {note}" if note else ""
