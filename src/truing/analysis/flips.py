"""Answers whose verdict or outcome differs between two paired runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.outcomes import OUTCOME_NAMES, outcome_arrays
from truing.analysis.pairing import RunPair
from truing.analysis.rates import verdict_codes
from truing.analysis.verdict_table import NO, YES

Outcomes = NDArray[np.uint8]


class Flip(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One answer whose verdict (yes, no) or outcome (question ``outcome``) has changed."""

    sample_id: str
    index: int
    question: str
    from_: str
    to: str


def find_flips(pair: RunPair) -> list[Flip]:
    """Returns the changed verdicts of the judge quoted for each question, then changed outcomes."""
    flips: list[Flip] = []
    names = {YES: "yes", NO: "no"}
    for question in dict.fromkeys(question for _, question in pair.a.columns):
        a, b = pair.a.headline_column(question), pair.b.headline_column(question)
        if a is None or b is None:
            continue
        codes = zip(verdict_codes(pair.a, a), verdict_codes(pair.b, b))
        for index, (codes_a, codes_b) in enumerate(codes):
            before, after = np.frombuffer(codes_a, np.uint8), np.frombuffer(codes_b, np.uint8)
            # Unscored on either side is no flip: it is counted in the bounds of the delta.
            scored = np.isin(before, list(names)) & np.isin(after, list(names))
            for position in np.flatnonzero(scored & (before != after)).tolist():
                verdicts = names[codes_a[position]], names[codes_b[position]]
                flips.append(_flip(pair, position, index, question, *verdicts))
    for index, (of_a, of_b) in enumerate(_paired_outcomes(pair)):
        for position in np.flatnonzero(_in_both(of_a, of_b) & (of_a != of_b)).tolist():
            outcomes = OUTCOME_NAMES[of_a[position]], OUTCOME_NAMES[of_b[position]]
            flips.append(_flip(pair, position, index, "outcome", *outcomes))
    return flips


def count_outcome_changes(pair: RunPair) -> dict[str, dict[str, int]]:
    """Returns outcome in a -> outcome in b -> number of answers, unchanged ones included."""
    n = len(OUTCOME_NAMES)
    table = np.zeros((n, n), np.int64)
    first_seen: dict[tuple[int, int], None] = {}
    for of_a, of_b in _paired_outcomes(pair):
        in_both = _in_both(of_a, of_b)
        changes = of_a[in_both].astype(np.int64) * n + of_b[in_both]
        table += np.bincount(changes, minlength=n * n).reshape(n, n)
        values, first = np.unique(changes, return_index=True)
        # In the order in which they occur.
        first_seen |= dict.fromkeys(divmod(int(v), n) for v in values[np.argsort(first)])
    counts: dict[str, dict[str, int]] = {}
    for a, b in first_seen:
        counts.setdefault(OUTCOME_NAMES[a], {})[OUTCOME_NAMES[b]] = int(table[a, b])
    return counts


def _flip(pair: RunPair, position: int, index: int, question: str, before: str, after: str) -> Flip:
    sample_id = pair.keys[position]
    return Flip(sample_id=sample_id, index=index, question=question, from_=before, to=after)


def _paired_outcomes(pair: RunPair) -> Iterator[tuple[Outcomes, Outcomes]]:
    """Yields the outcomes in both runs by position, for each answer index of both."""
    return zip(outcome_arrays(pair.a), outcome_arrays(pair.b))


def _in_both(of_a: Outcomes, of_b: Outcomes) -> NDArray[np.bool_]:
    absent = OUTCOME_NAMES.index("absent")
    return np.asarray((of_a != absent) & (of_b != absent))
