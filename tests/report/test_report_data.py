"""The data of a report."""

from __future__ import annotations

import pytest
from tests.report.rates import make_rate, make_report, make_summary, make_variant

from truing.report.report_data import Variant


def test_find_takes_the_first_data_set_that_has_answers_to_the_question() -> None:
    variant = Variant(
        name="a",
        summaries={
            "none": make_summary(make_rate("refused", 1, 2)),
            "empty": make_summary(make_rate("harmful", 0, 0)),
            "first": make_summary(make_rate("harmful", 1, 40)),
            "second": make_summary(make_rate("harmful", 2, 40)),
        },
    )
    rate = variant.find("harmful")
    assert rate is not None and rate.events == 1
    assert variant.find("harmful", "self_harm") is None
    assert variant.find("degenerate") is None


def test_find_by_category() -> None:
    variant = make_variant(
        "a", make_rate("harmful", 5, 40), make_rate("harmful", 3, 20, category="self_harm")
    )
    rate = variant.find("harmful", "self_harm")
    assert rate is not None and (rate.events, rate.scored) == (3, 20)


def test_the_series_of_a_variant_is_its_position() -> None:
    report = make_report(make_variant("a"), make_variant("b"))
    assert [report.series(name) for name in ("a", "b")] == [0, 1]
    with pytest.raises(ValueError, match="'c' is not in list"):
        report.series("c")
