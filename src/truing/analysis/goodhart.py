"""Goodhart's law, measured: gains by the judge that was optimised, and by an independent one.

A judge that chose, trained or blocked a model may not measure it, and its figures are struck out.
But the difference between its gain and that of a judge of another lineage tells how much of the
gain is an exploited error of the optimised judge (Gao, Schulman & Hilton 2022, arXiv 2210.10760).
Gains are paired by prompt, with Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from truing.analysis.pairing import RunPair
from truing.analysis.rates import verdict_codes
from truing.analysis.stopped_runs import prompt_means
from truing.analysis.verdict_table import VerdictColumn, VerdictTable
from truing.runs.run_files import read_run_records
from truing.stats.intervals import Interval, student_quantile

LOWER_IS_BETTER = frozenset({"harmful", "degenerate", "bare_refusal"})
_MIN_PROMPTS = 5  # fewer prompts give no interval

ColumnKey = tuple[str, str]


class GoodhartEntry(Struct, frozen=True, kw_only=True):
    """The gain by one optimised judge, and by an independent one.

    Attributes:
        why: why the optimised judge is struck.
        n: number of prompts.
        inflation: gain by the optimised judge minus gain by the independent one, over prompts
            that both scored in both runs; None, with a `note`, without an independent judge or
            with too few prompts.
        unit: ``rate`` (shares of prompts) or ``sd`` (standard deviations of the baseline).
    """

    question: str
    optimised: str
    independent: str | None
    why: str
    n: int
    gain_optimised: Interval | None
    gain_independent: Interval | None
    inflation: Interval | None
    unit: str = "rate"
    note: str = ""


class _Value(Struct, frozen=True):
    sample_id: str
    question: str
    value: float | None = None


class _Id(Struct, frozen=True):
    id: str


def goodhart_entries(pair: RunPair) -> tuple[GoodhartEntry, ...]:
    """Returns one entry for each judge that chose, trained or blocked either run's model."""
    struck = [key for key, column in pair.a.columns.items() if column.record.struck is not None]
    entries = (_goodhart_entry(pair, key) for key in struck)
    return tuple(entry for entry in entries if entry is not None)


def _goodhart_entry(pair: RunPair, optimised: ColumnKey) -> GoodhartEntry | None:
    independent = _find_independent(pair, optimised)
    gains = _verdict_gains(pair, optimised)
    # Gains in verdicts have the unit of the report's rates, but can only be compared between
    # judges of the same question; otherwise both are expressed in standard deviations.
    by_rate = bool(gains) and (independent is None or independent[1] == optimised[1])
    gains_of = _verdict_gains if by_rate else _standardised_gains
    if not by_rate:
        gains = _standardised_gains(pair, optimised)
    if not gains:
        return None
    independent_gains = {} if independent is None else gains_of(pair, independent)
    shared = sorted(gains.keys() & independent_gains.keys())
    enough = len(shared) >= _MIN_PROMPTS
    note = ""
    if independent is None:
        note = "no judge of another lineage scored both runs: nothing confirms the gain"
    elif not enough:
        note = f"both judges scored {len(shared)} prompts only"
    prompts = shared if enough else sorted(gains)

    gain_optimised = gain_independent = inflation = None
    if len(prompts) >= _MIN_PROMPTS:
        gain_optimised = mean_difference_interval([gains[i] for i in prompts])
    if enough:
        gain_independent = mean_difference_interval([independent_gains[i] for i in shared])
        inflation = mean_difference_interval([gains[i] - independent_gains[i] for i in shared])
    return GoodhartEntry(
        question=optimised[1],
        optimised=optimised[0],
        independent=independent[0] if independent else None,
        why=pair.a.columns[optimised].record.struck or "",
        n=len(prompts),
        unit="rate" if by_rate else "sd",
        note=note,
        gain_optimised=gain_optimised,
        gain_independent=gain_independent,
        inflation=inflation,
    )


def _find_independent(pair: RunPair, optimised: ColumnKey) -> ColumnKey | None:
    """Returns a judge that is neither struck nor a person: of the same question, else of harm."""
    candidates = [
        key
        for key, column in pair.a.columns.items()
        if column.record.struck is None and not column.is_human
    ]
    # Often no other judge answers the question (a reward): harm then shows what the gain is worth.
    for question in (optimised[1], "harmful"):
        for key in candidates:
            if key[1] == question:
                return key
    return None


def mean_difference_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Returns the mean of at least two paired differences with Student's interval.

    One pseudo-pair of difference +1 or -1 keeps a width where all values are equal. Not clipped,
    unlike `stats.paired.paired_mean`: gains in standard deviations may exceed 1.
    """
    n = len(values)
    mean = sum(values) / n
    squares = sum((v - mean) ** 2 for v in values) + 1.0
    half_width = student_quantile(level, n - 1) * math.sqrt(squares / (n - 1) / n)
    return Interval(mean, mean - half_width, mean + half_width, "paired by prompt")


def _mean_verdicts(table: VerdictTable, column: VerdictColumn) -> dict[int, float]:
    return dict(prompt_means(verdict_codes(table, column), range(table.size)))


def _verdict_gains(pair: RunPair, key: ColumnKey) -> dict[int, float]:
    """Returns position -> how much better the second run is by a judge's verdicts."""
    a = _mean_verdicts(pair.a, pair.a.columns[key])
    b = _mean_verdicts(pair.b, pair.b.columns[key])
    sign = -1.0 if key[1] in LOWER_IS_BETTER else 1.0
    return {position: sign * (b[position] - a[position]) for position in a if position in b}


def _standardised_gains(pair: RunPair, key: ColumnKey) -> dict[int, float]:
    """Returns gains in standard deviations of the baseline, of values or else of verdicts."""
    a = _mean_values(pair.a, pair.positions_a, key)
    b = _mean_values(pair.b, pair.positions_b, key)
    # Values have no question that tells their direction: costs fall, rewards and grades rise.
    sign = -1.0 if "cost" in key[0] else 1.0
    if not a or not b:
        a = _mean_verdicts(pair.a, pair.a.columns[key])
        b = _mean_verdicts(pair.b, pair.b.columns[key])
        sign = -1.0 if key[1] in LOWER_IS_BETTER else 1.0
    deviation = _standard_deviation(a) if len(a) > 1 else 0.0
    if deviation <= 0:
        return {}
    return {
        position: sign * (b[position] - a[position]) / deviation for position in a if position in b
    }


def _mean_values(table: VerdictTable, positions: Sequence[int], key: ColumnKey) -> dict[int, float]:
    """Returns position in the pair -> mean of the values that a judge gave.

    Read from the run folder, since `positions` are those of the whole run.
    """
    ids = [sample.id for sample in read_run_records(table.path, "samples.jsonl", _Id)]
    paired_position = {ids[original]: i for i, original in enumerate(positions)}
    values: dict[int, list[float]] = {}
    for row in read_run_records(table.path, table.columns[key].record.file, _Value):
        position = paired_position.get(row.sample_id)
        if position is not None and row.value is not None and row.question == key[1]:
            values.setdefault(position, []).append(row.value)
    return {position: sum(v) / len(v) for position, v in values.items()}


def _standard_deviation(values: Mapping[int, float]) -> float:
    mean = sum(values.values()) / len(values)
    squares = sum((v - mean) ** 2 for v in values.values())
    return math.sqrt(squares / max(1, len(values) - 1))
