"""Figures of runs that were stopped by their own figures: betting sequences instead of Wilson.

A run with `--until` has looked at its figures, and so has everything measured along with them.
Each rate is therefore the confidence sequence over prompts in the order drawn (arXiv 2010.09686),
which is valid whenever one stops. One prompt is one draw; its value is the mean over its scored
answers. The price is width.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.rates import (
    ALL_AXES,
    PREDICTED_SUFFIX,
    Rate,
    axis_verdicts,
    belongs_to_category,
    verdict_codes,
)
from truing.analysis.verdict_table import ABSENT, NO, YES, VerdictTable
from truing.core.jsonl import read_records
from truing.runs.parts import read_run_records
from truing.runs.run_files import locate_run_file
from truing.stats.intervals import Interval
from truing.stats.sequential import betting_interval


class _Sample(Struct, frozen=True):
    id: str
    parent: str | None = None


def stopped_early(table: VerdictTable) -> bool:
    """Returns whether the length of a run depended, or could have, on what it found."""
    manifest = table.manifest
    return (
        bool(manifest.plan.get("until"))
        or "until" in manifest.notes
        or "extended" in manifest.notes
    )


def draw_order(table: VerdictTable) -> list[int]:
    """Returns the positions of the samples in the order drawn, without those never answered.

    The order is the evaluation's: a shuffle of the data set with the run's seed.
    """
    parents = locate_run_file(table.path, "parents.jsonl")
    positions: list[int | None]
    if parents.is_file():  # with an attack, the samples before the attack were drawn
        samples = read_run_records(table.path, "samples.jsonl", _Sample)
        by_parent = {sample.parent or sample.id: i for i, sample in enumerate(samples)}
        positions = [by_parent.get(parent.id) for parent in read_records(parents, _Sample)]
    else:
        positions = list(range(table.size))
    # Shuffling depends on the length only, so any sequence of this length gives the same order.
    shuffled = array("I", range(len(positions)))
    random.Random(table.manifest.seed).shuffle(shuffled)
    states = table.response_states[0] if table.response_states else bytes(table.size)
    return [
        position
        for i in shuffled
        if (position := positions[i]) is not None and states[position] != ABSENT
    ]


def prompt_means(codes: Sequence[bytes], positions: Sequence[int]) -> Iterator[tuple[int, float]]:
    """Yields (position, share of "yes" among the scored answers) of prompts with scored answers."""
    for position in positions:
        codes_of_prompt = [array[position] for array in codes]
        events = codes_of_prompt.count(YES)
        scored = events + codes_of_prompt.count(NO)
        if scored:
            yield position, events / scored


def drawn_prompt_means(
    table: VerdictTable, judge: str, question: str, drawn: Sequence[int]
) -> list[tuple[int, float]]:
    """Returns (position, mean) of the prompts that a question or axis concerns, in draw order."""
    column = table.columns.get((judge, question))
    if column is not None:
        return list(prompt_means(verdict_codes(table, column), drawn))
    verdicts = axis_verdicts(table, question)
    if verdicts is None:
        return []
    return [
        (position, mean)
        for position, mean in prompt_means(verdicts.codes, drawn)
        if table.expect(position) in verdicts.expects
    ]


def use_sequence_intervals(table: VerdictTable, rates: Sequence[Rate]) -> list[Rate]:
    """Returns the rates of a stopped run with the sequence's estimate and interval as `raw`."""
    drawn = draw_order(table)
    means: dict[tuple[str, str], list[tuple[int, float]]] = {}
    replaced = []
    for rate in rates:
        if rate.raw is None:
            replaced.append(rate)
            continue
        interval: Interval | None = None
        if not rate.question.endswith(PREDICTED_SUFFIX):
            key = (rate.judge, rate.question)
            if key not in means:
                means[key] = drawn_prompt_means(table, *key, drawn)
            axis = rate.question in ALL_AXES
            values = [
                mean
                for position, mean in means[key]
                if belongs_to_category(table, position, rate.category, axis=axis)
            ]
            interval = betting_interval(values) if values else None
        replaced.append(replace(rate, raw=interval or _vacuous_interval(rate)))
    return replaced


def _vacuous_interval(rate: Rate) -> Interval:
    """Returns the rate without any claim about its error, where no sequence is computed."""
    method = "none: the run was stopped by its own figures"
    return Interval(rate.events / rate.scored, 0.0, 1.0, method)
