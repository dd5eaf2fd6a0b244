"""Counts of judged rows, and the sum of their ids, by which an output proves to be whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from truing.bulk.row_files import InputRow
from truing.bulk.row_ids import hash_row
from truing.core.flagged_categories import UNCATEGORISED

ID_MODULUS = 1 << 128


class RowTotals(Struct, frozen=True, kw_only=True):
    """Counts of judged rows; those of several shards add up to those of all.

    `ids` is the sum of the rows' content ids modulo 2^128, in hexadecimal: it does not depend on
    the order, and differs (but for a probability of 2^-128) if a row is missing or doubled.
    """

    rows: int = 0
    flagged: int = 0
    unscored: int = 0
    skipped: int = 0
    categories: dict[str, int] = field(default_factory=dict)
    ids: str = "0" * 32

    def add(self, other: RowTotals) -> RowTotals:
        """Returns the counts of both."""
        categories = Counter(self.categories)
        categories.update(other.categories)
        return RowTotals(
            rows=self.rows + other.rows,
            flagged=self.flagged + other.flagged,
            unscored=self.unscored + other.unscored,
            skipped=self.skipped + other.skipped,
            categories=dict(sorted(categories.items())),
            ids=f"{(int(self.ids, 16) + int(other.ids, 16)) % ID_MODULUS:032x}",
        )


def count_rows(rows: Sequence[InputRow], values: Sequence[tuple[Any, ...]]) -> RowTotals:
    """Returns the counts of rows with the values of `judged_values`."""
    categories: Counter[str] = Counter()
    n_flagged = n_unscored = 0
    for _, verdict, _, flagged_categories, uncategorised, _ in values:
        if verdict:
            n_flagged += 1
            categories.update(flagged_categories)
            categories[UNCATEGORISED] += uncategorised
        elif verdict is None:
            n_unscored += 1
    ids = sum(int.from_bytes(hash_row(row.fields), "big") for row in rows) % ID_MODULUS
    return RowTotals(
        rows=len(rows),
        flagged=n_flagged,
        unscored=n_unscored,
        categories={name: n for name, n in sorted(categories.items()) if n},
        ids=f"{ids:032x}",
    )
