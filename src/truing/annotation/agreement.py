"""How far raters agree, live: Krippendorff's alpha with bootstrap intervals, by category and by rater; rater bias."""

from __future__ import annotations

import json
import math
from collections import defaultdict

from msgspec import Struct
from sqlalchemy import func, select

from truing.annotation.store import Tx
from truing.annotation.study import as_list, harmful
from truing.annotation.tables import Item, Person, Rating
from truing.stats.agreement import BootstrapOptions, krippendorff_alpha, leave_one_out_alpha
from truing.stats.intervals import Interval

_FEWEST = 5  # items below which a category's alpha says nothing
_MOST_RATERS = 40  # leaving each out in turn costs one alpha a rater


class Opinions(Struct, frozen=True, kw_only=True):
    """Counted ratings as columns: rater names, item-and-response units, grades and ticked categories."""

    raters: tuple[str, ...]
    units: tuple[tuple[str, int], ...]
    grades: dict[tuple[str, str, int], int]  # rater, item, response -> grade
    ticks: dict[tuple[str, str], tuple[str, ...]]  # rater, item -> categories


class Bias(Struct, frozen=True, kw_only=True):
    """A rater beside the others on the same responses: mean difference of grades, share judged harmful, alpha without."""

    rater: str
    n: int
    difference: float
    harmful_share: float
    alpha_without: float | None = None


class Agreement(Struct, frozen=True, kw_only=True):
    """What the agreement page shows; an alpha is none where it is undefined."""

    n_ratings: int
    n_units: int
    n_paired: int
    n_raters: int
    ordinal: Interval | None
    nominal: Interval | None
    verdict: Interval | None
    categories: dict[str, tuple[int, Interval | None]]
    bias: tuple[Bias, ...]


def stamp(tx: Tx) -> tuple[int, float]:
    """Changes whenever a rating came or went: the key of a cache."""
    row = tx.session.execute(
        select(func.count(Rating.id), func.max(Rating.at)).where(Rating.counted)
    ).one()
    return int(row[0]), float(row[1] or 0.0)


def opinions(tx: Tx) -> Opinions:
    """All counted ratings of real (not gold) items."""
    rows = tx.session.execute(
        select(Rating.item_id, Rating.grades, Rating.categories, Person.pseudonym)
        .join(Item, Item.id == Rating.item_id)
        .join(Person, Person.id == Rating.person_id)
        .where(Rating.counted, Item.gold.is_(None))
        .order_by(Rating.item_id)
    ).all()
    grades: dict[tuple[str, str, int], int] = {}
    ticks: dict[tuple[str, str], tuple[str, ...]] = {}
    units: dict[tuple[str, int], None] = {}
    for row in rows:
        ticks[row.pseudonym, row.item_id] = tuple(as_list(row.categories))
        for at, grade in enumerate(json.loads(row.grades)):
            grades[row.pseudonym, row.item_id, at] = int(grade)
            units[row.item_id, at] = None
    raters = tuple(sorted({r.pseudonym for r in rows}))
    return Opinions(raters=raters, units=tuple(units), grades=grades, ticks=ticks)


def _defined(found: Interval) -> Interval | None:
    return None if math.isnan(found.estimate) else found


def measure(said: Opinions, categories: tuple[str, ...], *, draws: int = 200) -> Agreement:
    """Alpha over all responses (grades, verdicts), over each category's ticks, and each rater beside the others."""
    nan = float("nan")
    options = BootstrapOptions(draws=draws)
    grades = [
        [float(said.grades.get((r, i, at), nan)) for i, at in said.units] for r in said.raters
    ]
    verdicts = [[nan if math.isnan(g) else float(harmful(int(g))) for g in row] for row in grades]
    counts = [sum(not math.isnan(row[c]) for row in grades) for c in range(len(said.units))]
    paired = sum(c >= 2 for c in counts)
    usable = paired >= 2
    without: dict[str, Interval] = {}
    if usable and 3 <= len(said.raters) <= _MOST_RATERS:
        without = leave_one_out_alpha(
            grades, said.raters, "ordinal", options=BootstrapOptions(draws=1)
        )
    return Agreement(
        n_ratings=len(said.ticks),
        n_units=len(said.units),
        n_paired=paired,
        n_raters=len(said.raters),
        ordinal=_defined(krippendorff_alpha(grades, "ordinal", options=options))
        if usable
        else None,
        nominal=_defined(krippendorff_alpha(grades, "nominal", options=options))
        if usable
        else None,
        verdict=_defined(krippendorff_alpha(verdicts, "nominal", options=options))
        if usable
        else None,
        categories=_by_category(said, categories, options),
        bias=_bias(said, without),
    )


def _by_category(
    said: Opinions, categories: tuple[str, ...], options: BootstrapOptions
) -> dict[str, tuple[int, Interval | None]]:
    """Category -> (items on which somebody ticked it, alpha of ticked or not)."""
    items = sorted({i for _, i in said.ticks})
    found: dict[str, tuple[int, Interval | None]] = {}
    for category in categories:
        matrix = [
            [
                float(category in said.ticks[r, i]) if (r, i) in said.ticks else float("nan")
                for i in items
            ]
            for r in said.raters
        ]
        ticked = len({i for (_, i), cs in said.ticks.items() if category in cs})
        alpha = (
            _defined(krippendorff_alpha(matrix, "nominal", options=options))
            if ticked >= _FEWEST
            else None
        )
        found[category] = ticked, alpha
    return found


def _bias(said: Opinions, without: dict[str, Interval]) -> tuple[Bias, ...]:
    by_unit: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for (rater, item, at), grade in said.grades.items():
        by_unit[item, at][rater] = grade
    rows = []
    for rater in said.raters:
        gaps, verdicts = [], []
        for unit in by_unit.values():
            if rater not in unit:
                continue
            verdicts.append(harmful(unit[rater]))
            others = [g for name, g in unit.items() if name != rater]
            if others:
                gaps.append(unit[rater] - sum(others) / len(others))
        alone = without.get(rater)
        rows.append(
            Bias(
                rater=rater,
                n=len(verdicts),
                difference=sum(gaps) / len(gaps) if gaps else 0.0,
                harmful_share=sum(verdicts) / len(verdicts) if verdicts else 0.0,
                alpha_without=None
                if alone is None or math.isnan(alone.estimate)
                else alone.estimate,
            )
        )
    return tuple(sorted(rows, key=lambda b: -abs(b.difference)))
