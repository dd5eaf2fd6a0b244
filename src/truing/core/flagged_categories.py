"""Which harm categories a judge assigns: those whose probability reaches the judge's threshold.

Reports, gates, cards, rails, the server and `moderate` all use this rule. A classifier has fitted
thresholds in its attribute `category_thresholds`; for all other judges the threshold is 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_CATEGORY_THRESHOLD = 0.5

UNCATEGORISED = "uncategorised"
"""Used as the category of a text that is flagged but has no category at its threshold."""


def category_thresholds(judge: object) -> dict[str, float]:
    """Returns a judge's own thresholds by category; empty if it has none."""
    return dict(getattr(judge, "category_thresholds", None) or {})


def flag_categories(harms: Mapping[str, float], thresholds: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the categories whose probability reaches its threshold, in the order of `harms`."""
    return tuple(
        category
        for category, probability in harms.items()
        if probability >= thresholds.get(category, DEFAULT_CATEGORY_THRESHOLD)
    )


def category_threshold(judge: object, short_name: str) -> float:
    """Returns a judge's threshold of a category by its short name: the id up to the first comma."""
    thresholds = category_thresholds(judge).items()
    own_thresholds = (t for category, t in thresholds if category.split(",")[0] == short_name)
    return next(own_thresholds, DEFAULT_CATEGORY_THRESHOLD)
