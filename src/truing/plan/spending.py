"""Money and tokens of a plan: the price of each variant, and the share of each run in the budget.

Runs come one after the other, but the budget is for all of them: each gets a share of the rest in
proportion to what its unanswered rows may cost at most, so that all variants come to about the
same rows. What a run leaves over goes to those after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import UNSET, Struct

from truing.core.errors import PlanError, SpecError
from truing.core.prices import Price, Spending, estimate_tokens, find_price, read_prices
from truing.core.protocols import Dataset
from truing.core.types import Row
from truing.evaluation.options import RunBudget
from truing.evaluation.spending import read_spending
from truing.runs.folder import Run
from truing.specs.parser import Spec, parse_spec


class DataSize(Struct, frozen=True):
    """The rows of a data set that a run asks, and the mean tokens of a prompt, estimated."""

    rows: int
    prompt_tokens: float


class PlannedRun(Struct, frozen=True, kw_only=True):
    """A run of a plan: its folder, and what limits its cost."""

    variant: str
    data: str
    path: Path
    answers: int = 1
    max_tokens: int = 256
    price: Price | None = None


def measure_dataset(dataset: Dataset, limit: int | None) -> DataSize:
    """Returns the size of a data set; reads it to its end."""
    rows = characters = 0
    for row in dataset.rows():
        rows += 1
        characters += _prompt_length(row)
    prompt_tokens = estimate_tokens(characters) / max(1, rows)
    return DataSize(min(rows, limit or rows), prompt_tokens)


def _prompt_length(row: Row) -> int:
    return sum(len(message.content) for message in row.sample.conversation.messages)


def read_variant_prices(models: Mapping[str, str], path: str) -> dict[str, Price]:
    """Returns the price of each variant from a file of prices; {} without a path.

    A price is found by the name of the variant, by the name in its spec, or by the name of the
    model that the spec wraps (`of=`). Raises PlanError with all variants that have none.
    """
    if not path:
        return {}
    prices = read_prices(Path(path))
    by_variant = {
        variant: find_price(prices, (variant, *_model_names(spec)))
        for variant, spec in models.items()
    }
    faults = [
        f"models.{variant}: {path} has no price of {_describe_names(models[variant])}; a model "
        "that costs nothing has input = 0 and output = 0"
        for variant, price in by_variant.items()
        if price is None
    ]
    if faults:
        raise PlanError(*faults)
    return {variant: price for variant, price in by_variant.items() if price is not None}


def _model_names(text: str) -> list[str]:
    """Returns the names in a model's spec, from the outermost to the innermost."""
    names = []
    try:
        spec: object = parse_spec(text)
    except SpecError:
        return []  # its fault is reported where the spec is resolved
    while isinstance(spec, Spec):
        inner = spec.args.get("of")
        # Of a wrapper, the name is that of a prompt, a folder or a number of answers.
        names += [spec.name, str(spec)] if inner is None else [str(spec)]
        spec = inner
    return [name for name in names if name]


def _describe_names(text: str) -> str:
    names = _model_names(text)
    return repr(names[-2]) if len(names) > 1 else repr(text)


class BudgetShares:
    """Gives each run of a plan its share of what the whole plan may cost."""

    def __init__(
        self, budget: RunBudget, runs: Sequence[PlannedRun], sizes: Mapping[str, DataSize]
    ) -> None:
        self._budget = budget
        self._sizes = sizes
        self._runs = list(runs)
        self._spent = {run.path: _stored_spending(run) for run in runs}

    def share(self, run: PlannedRun, later_runs: Sequence[PlannedRun]) -> RunBudget:
        """Returns what a run may cost, its stored answers included; `later_runs` come after it."""
        spent = self._spent.values()
        own = self._spent[run.path]
        money = tokens = None
        if self._budget.money is not None:
            unspent = self._budget.money - sum(s.money or 0.0 for s in spent)
            costs = [self._largest_cost(r, r.price or Price(input=0, output=0)) for r in later_runs]
            share = _share(self._largest_cost(run, run.price or Price(input=0, output=0)), costs)
            money = (own.money or 0.0) + max(0.0, unspent) * share
        if self._budget.tokens is not None:
            unspent = self._budget.tokens - sum(s.tokens for s in spent)
            by_token = Price(input=1, output=1)
            costs = [self._largest_cost(r, by_token) for r in later_runs]
            share = _share(self._largest_cost(run, by_token), costs)
            tokens = own.tokens + int(max(0.0, unspent) * share)
        return RunBudget(money=money, tokens=tokens)

    def update(self, run: PlannedRun) -> bool:
        """Reads what a run has cost; returns whether its share ended it."""
        self._spent[run.path] = _stored_spending(run)
        return "budget" in Run(run.path).manifest.notes

    @property
    def answers(self) -> int:
        """Number of stored answers of all runs."""
        return sum(spending.answers for spending in self._spent.values())

    def _largest_cost(self, run: PlannedRun, price: Price) -> float:
        """Returns what the unanswered rows of a run cost if all answers are as long as allowed."""
        size = self._sizes[run.data]
        # At least one row: stored failures are asked again.
        rows = max(1.0, size.rows - self._spent[run.path].answers / run.answers)
        return rows * price.money(size.prompt_tokens, run.answers * run.max_tokens)


def _share(cost: float, later_costs: Sequence[float]) -> float:
    """Returns the share of a run in what is left for it and the later ones."""
    total = cost + sum(later_costs)
    return cost / total if total > 0 else 1.0


def _stored_spending(run: PlannedRun) -> Spending:
    """Returns what a run has cost so far; nothing if it has not begun."""
    if not (run.path / "manifest.json").is_file():
        return Spending(price=run.price)
    stored = Run(run.path)
    spending = stored.manifest.spending
    # After a kill the manifest is older than the answers, so they are counted.
    if spending is UNSET or not stored.manifest.complete:
        return read_spending(stored, run.price)
    return spending if spending.price == run.price else read_spending(stored, run.price)


def find_budget_faults(budget: float | None, tokens: int | None, prices: str) -> dict[str, str]:
    """Returns what is wrong with the settings of a budget, by key."""
    faults = {}
    if budget is not None and not 0 < budget < float("inf"):
        faults["budget"] = f"expected an amount of money above 0, got {budget!r}"
    if tokens is not None and tokens < 1:
        faults["budget_tokens"] = f"expected a number of tokens above 0, got {tokens!r}"
    if budget is not None and not prices:
        faults["budget"] = (
            "needs prices, the path of a TOML file with what a million tokens of each model cost"
        )
    return faults
