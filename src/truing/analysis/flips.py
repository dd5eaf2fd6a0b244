"""Answers whose verdict or outcome differs between two paired runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from truing.analysis.outcomes import outcome_codes, outcome_name
from truing.analysis.pairing import RunPair
from truing.analysis.rates import verdict_codes
from truing.analysis.verdict_table import ABSENT, NO, YES


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
            for position, (code_a, code_b) in enumerate(zip(codes_a, codes_b)):
                # Unscored on either side is no flip: it is counted in the bounds of the delta.
                if code_a != code_b and code_a in names and code_b in names:
                    flip = _flip(pair, position, index, question, names[code_a], names[code_b])
                    flips.append(flip)
    for index, position, outcome_a, outcome_b in _paired_outcomes(pair):
        if outcome_a != outcome_b:
            flips.append(_flip(pair, position, index, "outcome", outcome_a, outcome_b))
    return flips


def count_outcome_changes(pair: RunPair) -> dict[str, dict[str, int]]:
    """Returns outcome in a -> outcome in b -> number of answers, unchanged ones included."""
    counts: dict[str, Counter[str]] = {}
    for _, _, outcome_a, outcome_b in _paired_outcomes(pair):
        counts.setdefault(outcome_a, Counter())[outcome_b] += 1
    return {outcome: dict(changes) for outcome, changes in counts.items()}


def _flip(pair: RunPair, position: int, index: int, question: str, before: str, after: str) -> Flip:
    sample_id = pair.keys[position]
    return Flip(sample_id=sample_id, index=index, question=question, from_=before, to=after)


def _paired_outcomes(pair: RunPair) -> Iterator[tuple[int, int, str, str]]:
    """Yields (index, position, outcome in a, outcome in b) of answers that both runs have."""
    codes = zip(outcome_codes(pair.a), outcome_codes(pair.b))
    for index, (arrays_a, arrays_b) in enumerate(codes):
        for position, (codes_a, codes_b) in enumerate(zip(zip(*arrays_a), zip(*arrays_b))):
            if codes_a[0] != ABSENT and codes_b[0] != ABSENT:
                yield index, position, outcome_name(*codes_a), outcome_name(*codes_b)
