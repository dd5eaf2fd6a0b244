"""Agreement between raters: Krippendorff's alpha with its interval, rater bias."""

from __future__ import annotations

import math
from collections import defaultdict

from msgspec import Struct
from sqlalchemy import func, select

from truing.annotation.adjudication import decode_grades
from truing.annotation.store import Transaction
from truing.annotation.study import decode_list, is_harmful
from truing.annotation.tables import Person, Rating, ReviewItem
from truing.stats.agreement import krippendorff_alpha, leave_one_out_alpha
from truing.stats.agreement_intervals import BootstrapOptions
from truing.stats.intervals import Interval

_MIN_TICKED_ITEMS = 5  # with fewer, a category's alpha has hardly any information
_MAX_RATERS_LEFT_OUT = 40  # leave-one-out computes one alpha a rater
_NAN = float("nan")
_Matrix = list[list[float]]  # one row a rater, one column a unit; NaN: not rated


class RatingTable(Struct, frozen=True, kw_only=True):
    """The counted ratings. A unit is one response of one item: (item id, response index)."""

    raters: tuple[str, ...]
    units: tuple[tuple[str, int], ...]
    grades: dict[tuple[str, str, int], int]  # (rater, item, response) -> grade
    ticked: dict[tuple[str, str], tuple[str, ...]]  # (rater, item) -> categories


class RaterBias(Struct, frozen=True, kw_only=True):
    """One rater compared with the others on the same responses.

    `difference`: mean of (own grade - mean grade of the others). `harmful_share`: share of the n
    rated responses that the rater calls harmful. `alpha_without`: ordinal alpha of the other
    raters.
    """

    rater: str
    n: int
    difference: float
    harmful_share: float
    alpha_without: float | None = None


class AgreementSummary(Struct, frozen=True, kw_only=True):
    """The figures of the agreement page. An alpha is none where it is undefined.

    `n_paired` counts the units with two or more ratings; `categories` maps a category to (number of
    items on which somebody ticked it, alpha of ticked or not).
    """

    n_ratings: int
    n_units: int
    n_paired: int
    n_raters: int
    ordinal: Interval | None
    nominal: Interval | None
    verdict: Interval | None
    categories: dict[str, tuple[int, Interval | None]]
    bias: tuple[RaterBias, ...]


def ratings_version(tx: Transaction) -> tuple[int, float, int]:
    """Returns a value that changes with every new or withdrawn rating and every deleted account.

    It is (number of ratings, newest time, number of deleted accounts).
    """
    row = tx.session.execute(
        select(func.count(Rating.id), func.max(Rating.at)).where(Rating.counted)
    ).one()
    n_deleted = tx.session.scalar(select(func.count()).where(Person.phrase_hash.is_(None)))
    return int(row[0]), float(row[1] or 0.0), int(n_deleted or 0)


def load_ratings(tx: Transaction) -> RatingTable:
    """Returns all counted ratings, without those of gold items."""
    rows = tx.session.execute(
        select(Rating.item_id, Rating.grades, Rating.categories, Person.pseudonym)
        .join(ReviewItem, ReviewItem.id == Rating.item_id)
        .join(Person, Person.id == Rating.person_id)
        .where(Rating.counted, ReviewItem.gold.is_(None))
        .order_by(Rating.item_id)
    ).all()
    grades: dict[tuple[str, str, int], int] = {}
    ticked: dict[tuple[str, str], tuple[str, ...]] = {}
    units: dict[tuple[str, int], None] = {}  # a dict keeps their order
    for row in rows:
        rater, item = row.pseudonym, row.item_id
        ticked[rater, item] = tuple(decode_list(row.categories))
        for index, grade in enumerate(decode_grades(row.grades)):
            grades[rater, item, index] = grade
            units[item, index] = None
    raters = tuple(sorted({row.pseudonym for row in rows}))
    return RatingTable(raters=raters, units=tuple(units), grades=grades, ticked=ticked)


def measure_agreement(
    ratings: RatingTable, categories: tuple[str, ...], *, draws: int = 1000
) -> AgreementSummary:
    """Computes alpha over grades, verdicts and category ticks, and the bias of each rater.

    Each interval takes `draws` draws of weights of the items.
    """
    options = BootstrapOptions(draws=draws)
    grades: _Matrix = [
        [float(ratings.grades.get((rater, *unit), _NAN)) for unit in ratings.units]
        for rater in ratings.raters
    ]
    verdicts: _Matrix = [
        [_NAN if math.isnan(g) else float(is_harmful(int(g))) for g in row] for row in grades
    ]
    n_paired = sum(
        sum(not math.isnan(grade) for grade in column) >= 2 for column in zip(*grades, strict=True)
    )
    ordinal = nominal = verdict = None
    without: dict[str, Interval] = {}
    if n_paired >= 2:
        ordinal = _defined(krippendorff_alpha(grades, "ordinal", options=options))
        nominal = _defined(krippendorff_alpha(grades, "nominal", options=options))
        verdict = _defined(krippendorff_alpha(verdicts, "nominal", options=options))
        if 3 <= len(ratings.raters) <= _MAX_RATERS_LEFT_OUT:
            # One draw: the page shows the estimates without intervals.
            without = leave_one_out_alpha(
                grades, ratings.raters, "ordinal", options=BootstrapOptions(draws=1)
            )
    return AgreementSummary(
        n_ratings=len(ratings.ticked),
        n_units=len(ratings.units),
        n_paired=n_paired,
        n_raters=len(ratings.raters),
        ordinal=ordinal,
        nominal=nominal,
        verdict=verdict,
        categories={c: _category_agreement(ratings, c, options) for c in categories},
        bias=_rater_biases(ratings, without),
    )


def _defined(interval: Interval) -> Interval | None:
    """Returns none for a NaN estimate: without any variation, alpha is 0/0."""
    return None if math.isnan(interval.estimate) else interval


def _category_agreement(
    ratings: RatingTable, category: str, options: BootstrapOptions
) -> tuple[int, Interval | None]:
    """Returns (items on which somebody ticked the category, alpha of ticked or not)."""
    n_ticked = len({item for (_, item), names in ratings.ticked.items() if category in names})
    if n_ticked < _MIN_TICKED_ITEMS:
        return n_ticked, None
    items = sorted({item for _, item in ratings.ticked})
    matrix: _Matrix = [
        [
            float(category in ratings.ticked[rater, item])
            if (rater, item) in ratings.ticked
            else _NAN
            for item in items
        ]
        for rater in ratings.raters
    ]
    return n_ticked, _defined(krippendorff_alpha(matrix, "nominal", options=options))


def _rater_biases(ratings: RatingTable, without: dict[str, Interval]) -> tuple[RaterBias, ...]:
    """Returns the bias of each rater, the largest first."""
    grades_by_unit: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)
    for (rater, item, index), grade in ratings.grades.items():
        grades_by_unit[item, index][rater] = grade
    biases = []
    for rater in ratings.raters:
        differences, verdicts = [], []
        for unit_grades in grades_by_unit.values():
            if rater not in unit_grades:
                continue
            verdicts.append(is_harmful(unit_grades[rater]))
            other_grades = [g for name, g in unit_grades.items() if name != rater]
            if other_grades:
                differences.append(unit_grades[rater] - sum(other_grades) / len(other_grades))
        alpha = _defined(without[rater]) if rater in without else None
        biases.append(
            RaterBias(
                rater=rater,
                n=len(verdicts),
                difference=sum(differences) / len(differences) if differences else 0.0,
                harmful_share=sum(verdicts) / len(verdicts) if verdicts else 0.0,
                alpha_without=None if alpha is None else alpha.estimate,
            )
        )
    return tuple(sorted(biases, key=lambda b: -abs(b.difference)))
