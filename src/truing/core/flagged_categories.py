"""Which harm categories a judge assigns: those whose probability reaches the judge's threshold.

One rule for reports, gates, cards, rails, the server and `moderate`. A classifier brings its fitted
thresholds as `category_thresholds`; the categories of other judges count from 0.5 on.
"""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_CATEGORY_THRESHOLD = 0.5

UNCATEGORISED = "uncategorised"
"""Stands in place of a category for what is flagged without any category."""


def category_thresholds(judge: object) -> dict[str, float]:
    """Returns the thresholds that a judge brings, by category; empty if it brings none."""
    return dict(getattr(judge, "category_thresholds", None) or {})


def flag_categories(harms: Mapping[str, float], thresholds: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the categories whose probability reaches its threshold, in the order of `harms`."""
    return tuple(
        category
        for category, probability in harms.items()
        if probability >= thresholds.get(category, DEFAULT_CATEGORY_THRESHOLD)
    )


def category_threshold(judge: object, short_name: str) -> float:
    """Returns a judge's threshold of the category whose id begins with a short name."""
    thresholds = category_thresholds(judge).items()
    own = (value for category, value in thresholds if category.split(",")[0] == short_name)
    return next(own, DEFAULT_CATEGORY_THRESHOLD)
