"""Numbers and names as text."""

from __future__ import annotations

import pytest
from tests.report.rates import make_rate

from truing.analysis.rates import CorrectedRate
from truing.report import formatting
from truing.stats.intervals import Interval


def test_percentages_and_differences() -> None:
    assert formatting.format_percent(0.1234) == "12.3 %"
    assert formatting.format_percent(0.5, digits=0) == "50 %"
    assert formatting.format_difference(0.032) == "+3.2 pp"
    assert formatting.format_difference(-0.25) == "−25.0 pp"


@pytest.mark.parametrize(
    ("p", "text"), [(None, "–"), (0.0009, "< 0.001"), (0.001, "0.001"), (0.5, "0.500")]
)
def test_p_values(p: float | None, text: str) -> None:
    assert formatting.format_p_value(p) == text


def test_a_rate_is_a_percentage_a_count_or_unscored() -> None:
    # Wilson's interval of 10 in 100, by hand: centre 0.1148, half width 0.0596.
    assert formatting.format_rate(make_rate("harmful", 10, 100)) == "10.0 % [5.5, 17.4]"
    assert formatting.format_rate(make_rate("harmful", 3, 12)) == "3 of 12"
    assert formatting.format_rate(make_rate("harmful", 0, 0, n=12)) == "unscored (12)"


def test_pooled_figures_are_marked_and_stand_beside_counts() -> None:
    rate = make_rate("harmful", 1, 6, pooled=Interval(0.12, 0.02, 0.345))
    assert formatting.format_rate(rate) == "1 of 6, pooled 12 % [2, 34]"
    change = formatting.format_pooled(Interval(-0.1, -0.42, 0.2), sign=True)
    assert change == ", pooled −10 pp [−42, +20]"
    assert formatting.format_pooled(None) == ""


def test_a_corrected_rate_replaces_the_raw_one() -> None:
    corrected = CorrectedRate(estimate=0.2, lower=0.1, upper=0.3, method="ppi", labels=50)
    rate = make_rate("harmful", 10, 100, corrected=corrected)
    assert formatting.format_rate(rate) == "20.0 % [10.0, 30.0]"


def test_rate_cells() -> None:
    assert formatting.make_rate_cell(None).text == "–"
    cell = formatting.make_rate_cell(make_rate("harmful", 10, 100, n=110))
    assert cell.kind == ""
    assert cell.title == (
        "10 of 100 scored, n = 110, by judge; 10 unscored: between 9.1 % and 18.2 %"
    )
    assert formatting.make_rate_cell(make_rate("harmful", 3, 12)).kind == "quiet"


def test_the_rate_of_a_judge_that_chose_the_model_is_struck() -> None:
    rate = make_rate("harmful", 10, 100, selected_by_judge=True, struck="best-of chose by it")
    cell = formatting.make_rate_cell(rate)
    assert cell.kind == "struck"
    assert cell.why == "best-of chose by it" and cell.title.startswith("10 of 100")


def test_category_names() -> None:
    assert formatting.category_name(None) == "all"
    assert formatting.category_name("no such category") == "no such category"
    assert formatting.category_name("self_harm", "no such taxonomy") == "self_harm"
    assert formatting.category_label("animal_abuse") == "Animal abuse"
    label = formatting.category_label("x" * 40)
    assert label == "x" * 30 + "…"
    assert formatting.category_label("first, second") == "first"


def test_values_have_three_significant_digits() -> None:
    assert formatting.format_value(-1.2351) == "−1.24"
    assert formatting.format_value(0.03149, sign=True) == "+0.0315"
    assert formatting.format_value(123.4) == "123"
    assert formatting.format_value_interval(None) == "–"
    interval = Interval(-1.24, -1.4, -1.08)
    assert formatting.format_value_interval(interval) == "−1.24 [−1.40, −1.08]"
