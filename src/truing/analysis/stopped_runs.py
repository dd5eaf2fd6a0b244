"""Figures of runs that were stopped when enough was known: the betting sequence's interval, never Wilson's.

A run stopped by `--until` has looked at its own figures, and so have all that go with them: each of its rates is the
confidence sequence over prompts in the order drawn (arXiv 2010.09686), valid whenever one stops. One prompt is one
draw; its value is the mean over its scored answers. The price is width.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.rates import AXES, Rate, axis_verdicts, verdict_codes
from truing.analysis.verdict_table import ABSENT, EXPECTS, NO, YES, VerdictTable
from truing.core.jsonl import read_records
from truing.stats.intervals import Interval
from truing.stats.sequential import BettingSequence


class _Id(Struct, frozen=True):
    id: str
    parent: str | None = None


def stopped_early(columns: VerdictTable) -> bool:
    """Whether the run's length depended (or could have depended) on what it found."""
    manifest = columns.manifest
    return (
        bool(manifest.plan.get("until"))
        or "until" in manifest.notes
        or "extended" in manifest.notes
    )


def draw_order(columns: VerdictTable) -> list[int]:
    """Positions in the order in which they were drawn; prompts that were never asked are left out."""
    parents = columns.path / "parents.jsonl"
    if parents.is_file():  # an attack: draws are of the samples before it
        asked = {
            s.parent or s.id: at
            for at, s in enumerate(read_records(columns.path / "samples.jsonl", _Id))
        }
        places = [asked.get(s.id) for s in read_records(parents, _Id)]
    else:
        places = list(range(columns.size))
    drawn = array("I", range(len(places)))
    random.Random(columns.manifest.seed).shuffle(drawn)
    first = columns.response_states[0] if columns.response_states else bytes(columns.size)
    return [at for i in drawn if (at := places[i]) is not None and first[at] != ABSENT]


def prompt_means(layers: Sequence[bytes], at: Sequence[int]) -> Iterator[tuple[int, float]]:
    """(position, mean over the scored answers) of the prompts that have a scored answer."""
    for position in at:
        verdicts = [layer[position] for layer in layers]
        scored = verdicts.count(YES) + verdicts.count(NO)
        if scored:
            yield position, verdicts.count(YES) / scored


def sequence_interval(values: Sequence[float]) -> Interval | None:
    """The confidence sequence after these draws; none without any."""
    if not values:
        return None
    sequence = BettingSequence()
    for value in values:
        sequence.add(value)
    return sequence.interval()


def use_sequence_intervals(columns: VerdictTable, rates: Sequence[Rate]) -> list[Rate]:
    """The rates of a stopped run with the sequence's estimate and interval instead of Wilson's."""
    drawn = draw_order(columns)
    out = []
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for rate in rates:
        key = (rate.judge, rate.question)
        if key not in found:
            layers, keep = verdict_codes_of_rate(columns, rate)
            found[key] = [
                (p, v)
                for p, v in prompt_means(layers, drawn)
                if keep(EXPECTS[columns.expect_ids[p]])
            ]
        axis = rate.question in AXES or rate.question in ("answers_benign", "cut")
        where = columns.pair_category_ids if axis else columns.category_ids
        values = [
            v
            for p, v in found[key]
            if rate.category is None
            or (
                rate.category in columns.category_sets[where[p]]
                and (axis or EXPECTS[columns.expect_ids[p]] != "comply")
            )
        ]
        made = (
            sequence_interval(values)
            if rate.raw is not None and not rate.question.endswith("_predicted")
            else None
        )
        out.append(replace(rate, raw=made if made is not None or rate.raw is None else _wide(rate)))
    return out


def _wide(rate: Rate) -> Interval:
    """Where no sequence is kept (a judge's own categories): the rate with no claim about its error."""
    return Interval(
        rate.events / rate.scored, 0.0, 1.0, "none: the run was stopped by its own figures"
    )


def verdict_codes_of_rate(
    columns: VerdictTable, rate: Rate
) -> tuple[list[bytes], Callable[[str], bool]]:
    """The codes behind a rate and the expectations that it concerns."""
    column = columns.columns.get((rate.judge, rate.question))
    if column is not None:
        return verdict_codes(columns, column), lambda expect: True
    question = rate.question.removesuffix("_predicted")
    column = columns.columns.get((rate.judge, question))
    if column is not None:
        return verdict_codes(columns, column), lambda expect: True
    found = axis_verdicts(columns, rate.question)
    if found is None:
        return [], lambda expect: False
    _, layers, expects = found
    return layers, lambda expect: expect in expects
