"""Template filters, by expected strings."""

from __future__ import annotations

import pytest

from truing.serve.annotation.template_filters import (
    format_count,
    format_interval,
    format_iso,
    format_percent,
    format_utc,
)
from truing.stats.intervals import Interval


def test_times_are_in_utc() -> None:
    seconds = 1_800_000_059.9  # 15 January 2027, 08:00:59 UTC
    assert format_utc(seconds) == "2027-01-15 08:00"
    assert format_iso(seconds) == "2027-01-15T08:00:59Z"
    assert format_utc(0.0) == ""


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 items"), (1, "1 item"), (2, "2 items"), (1200, "1,200 items")]
)
def test_counts_agree_with_their_noun(count: int, expected: str) -> None:
    assert format_count(count, "item") == expected


def test_an_irregular_plural_is_used() -> None:
    assert (format_count(1, "person", "people"), format_count(2, "person", "people")) == (
        "1 person",
        "2 people",
    )


def test_an_undefined_interval_is_a_dash() -> None:
    assert format_interval(None) == "\u2013"
    interval = Interval(estimate=0.7043, lower=0.4, upper=0.915)
    assert format_interval(interval) == "0.70 [0.40, 0.92]"


def test_percentages_are_whole() -> None:
    assert [format_percent(share) for share in (0.0, 0.125, 0.996, 1.0)] == [
        "0 %",
        "12 %",
        "100 %",
        "100 %",
    ]
