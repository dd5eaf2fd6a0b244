"""Budgets of plans: prices by variant, shares of the runs, and faults before the first call."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import UNSET

from truing.core.errors import PlanError
from truing.core.prices import Price
from truing.plan import parse_plan, run_plan
from truing.plan.spending import find_budget_faults, read_variant_prices
from truing.runs.folder import Run

PLAN = """
[models]
plain = "scripted:comply"
polite = 'prompted,system="Be kind.",of=(scripted:comply)'
never = "scripted:refuse"
[run]
judges = ["rules:refusal"]
limit = 60
max_tokens = 32
prices = "{prices}"
{limits}
[data]
safety = "builtin:safety"
helpful = "builtin:helpful"
"""
PRICES = """
[comply]
input = 1
output = 2
[never]
input = 1
output = 4
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(PRICES)
    return path


def spent(folder: Path) -> dict[str, float]:
    """Returns the money of each run under a folder, by variant and data set."""
    money = {}
    for path in sorted(folder.glob("*/*/manifest.json")):
        spending = Run(path.parent).manifest.spending
        assert spending is not UNSET and spending.money is not None
        money[f"{path.parent.parent.name}/{path.parent.name}"] = spending.money
    return money


def test_all_runs_get_a_share_of_the_budget(tmp_path: Path, prices: Path) -> None:
    out = tmp_path / "out"
    text = PLAN.format(prices=prices, limits="budget = 0.012")
    report = run_plan(parse_plan(text), out)
    money = spent(out)
    assert len(money) == 6 and 0 < sum(money.values()) <= 0.012
    for variant in report.variants:
        for data in report.data:
            run = Run(out / variant.name / data)
            assert "drawn at random" in run.manifest.notes["budget"]
            summary = variant.summaries[data]
            assert 5 <= summary.responses < 60 and not summary.complete
            assert any("stopped by its budget" in note for note in summary.notes)
    calls = sum(v.summaries[d].responses for v in report.variants for d in report.data)
    whole = run_plan(parse_plan(PLAN.format(prices=prices, limits="budget = 5")), out)
    assert calls < sum(v.summaries[d].responses for v in whole.variants for d in whole.data)
    assert all(s.complete for v in whole.variants for s in v.summaries.values())


def test_what_one_run_leaves_over_goes_to_the_others(tmp_path: Path, prices: Path) -> None:
    """Answers are much shorter than allowed: the shares, by their largest cost, leave most over."""
    out = tmp_path / "out"
    limits = "budget = 0.02"
    run_plan(parse_plan(PLAN.format(prices=prices, limits=limits)), out)
    assert sum(spent(out).values()) > 0.016


def test_a_budget_in_tokens_needs_no_prices(tmp_path: Path) -> None:
    text = PLAN.format(prices="", limits="budget_tokens = 4000")
    report = run_plan(parse_plan(text), tmp_path / "out")
    costs = [s.cost for v in report.variants for s in v.summaries.values()]
    assert all(cost is not UNSET and cost.money is None for cost in costs)
    assert 2000 < sum(cost.tokens for cost in costs if cost is not UNSET) <= 4000


def test_a_variant_without_a_price_is_named_before_any_call(tmp_path: Path, prices: Path) -> None:
    prices.write_text(PRICES.replace("[never]", "[other]"))
    text = PLAN.format(prices=prices, limits="budget = 1")
    with pytest.raises(PlanError, match="models.never: .*no price of 'refuse'"):
        run_plan(parse_plan(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prices_are_found_by_variant_by_name_and_inside_of_wrappers(prices: Path) -> None:
    models = {
        "never": "scripted:refuse",
        "a": "scripted:comply",
        "b": "best-of:4,by=(rules:refusal),of=(prompted:hhh,of=(scripted:comply))",
    }
    cheap = Price(input=1, output=2)
    assert read_variant_prices(models, str(prices)) == {
        "never": Price(input=1, output=4),
        "a": cheap,
        "b": cheap,
    }
    assert read_variant_prices(models, "") == {}


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("budget = 0", "run.budget: expected an amount of money above 0"),
        ("budget = nan", "run.budget: expected an amount of money above 0"),
        ('budget = "5"', "run.budget: expected float or int"),
        ("budget_tokens = 0", "run.budget_tokens: expected a number of tokens above 0"),
        ("budget_tokens = 1.5", "run.budget_tokens: expected int"),
    ],
)
def test_wrong_budgets_are_faults_of_the_plan(limits: str, fault: str, prices: Path) -> None:
    with pytest.raises(PlanError, match=fault):
        parse_plan(PLAN.format(prices=prices, limits=limits))


def test_money_without_prices_is_a_fault() -> None:
    assert "needs prices" in find_budget_faults(1.0, None, "")["budget"]
    assert find_budget_faults(None, 5, "") == {}
