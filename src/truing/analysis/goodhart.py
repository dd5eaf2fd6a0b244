"""The Goodhart ledger: what a lever gained by the judge that it optimised, minus what an independent judge saw of it.

A judge that chose, trained or blocked a variant is no witness for it (its cells are struck out), but its figure is of
use beside a lineage-disjoint judge's: the difference is how much of the gain is the judge's own error being found
(Gao, Schulman & Hilton 2022, arXiv 2210.10760). Gains are by prompt, paired, with Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from truing.analysis.pairing import RunPair
from truing.analysis.rates import verdict_codes
from truing.analysis.verdict_table import NO, YES, VerdictColumn, VerdictTable
from truing.core.jsonl import read_records
from truing.stats.intervals import Interval, student_quantile

LOW_IS_GOOD = frozenset({"harmful", "degenerate", "bare_refusal"})
_FEWEST = 5


class GoodhartEntry(Struct, frozen=True, kw_only=True):
    """One optimised judge. `unit` is ``rate`` (shares of prompts) or ``sd`` (standard deviations of the baseline).

    `inflation` = gain by the optimised judge minus gain by the independent one, over prompts that both scored in both
    runs; none with a `note` where there is no independent judge, or too few prompts.
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


class _Valued(Struct, frozen=True):
    sample_id: str
    question: str
    value: float | None = None


class _Id(Struct, frozen=True):
    id: str


def mean_difference_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of a mean of differences; a pseudo-pair each way keeps a width where all are alike."""
    n = len(values)
    mean = sum(values) / n
    spread = sum((v - mean) ** 2 for v in values) + 1.0
    half = student_quantile(level, n - 1) * math.sqrt(spread / (n - 1) / n)
    return Interval(mean, mean - half, mean + half, "paired by prompt")


def _means(columns: VerdictTable, column: VerdictColumn) -> dict[int, float]:
    layers = verdict_codes(columns, column)
    out = {}
    for at in range(columns.size):
        marks = [layer[at] for layer in layers]
        scored = marks.count(YES) + marks.count(NO)
        if scored:
            out[at] = marks.count(YES) / scored
    return out


def _gains(pair: RunPair, key: tuple[str, str]) -> dict[int, float]:
    """Position -> how much better the second run is by a judge's verdicts."""
    a, b = _means(pair.a, pair.a.columns[key]), _means(pair.b, pair.b.columns[key])
    sign = -1.0 if key[1] in LOW_IS_GOOD else 1.0
    return {at: sign * (b[at] - a[at]) for at in a if at in b}


def _values(columns: VerdictTable, at: Sequence[int], key: tuple[str, str]) -> dict[int, float]:
    """Position in the pair -> mean value of a judge that gives values."""
    ids = [s.id for s in read_records(columns.path / "samples.jsonl", _Id)]
    place = {ids[original]: i for i, original in enumerate(at)}
    sums: dict[int, list[float]] = {}
    for row in read_records(columns.path / columns.columns[key].record.file, _Valued):
        i = place.get(row.sample_id)
        if i is not None and row.value is not None and row.question == key[1]:
            sums.setdefault(i, []).append(row.value)
    return {i: sum(v) / len(v) for i, v in sums.items()}


def _deviation(values: Mapping[int, float]) -> float:
    mean = sum(values.values()) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values.values()) / max(1, len(values) - 1))


def _standard_gains(pair: RunPair, key: tuple[str, str]) -> dict[int, float]:
    """Gains in standard deviations of the baseline, of values or (if there are none) of verdicts."""
    a, b = _values(pair.a, pair.positions_a, key), _values(pair.b, pair.positions_b, key)
    sign = -1.0 if "cost" in key[0] else 1.0
    if not a or not b:
        a, b = _means(pair.a, pair.a.columns[key]), _means(pair.b, pair.b.columns[key])
        sign = -1.0 if key[1] in LOW_IS_GOOD else 1.0
    scale = _deviation(a) if len(a) > 1 else 0.0
    return {at: sign * (b[at] - a[at]) / scale for at in a if at in b} if scale > 0 else {}


def _independent(pair: RunPair, key: tuple[str, str]) -> tuple[str, str] | None:
    """The judge to set beside: not struck, not of people, of the same question (or of harm)."""
    free = [
        k
        for k, c in pair.a.columns.items()
        if c.record.struck is None and not k[0].startswith("human:")
    ]
    same = [k for k in free if k[1] == key[1]]
    return next(iter(same or [k for k in free if k[1] == "harmful"]), None)


def _line(pair: RunPair, key: tuple[str, str]) -> GoodhartEntry | None:
    other = _independent(pair, key)
    verdicts = _gains(pair, key)
    by_rate = bool(verdicts) and (other is None or other[1] == key[1])
    mine = verdicts if by_rate else _standard_gains(pair, key)
    if not mine:
        return None
    theirs = (
        {} if other is None else _gains(pair, other) if by_rate else _standard_gains(pair, other)
    )
    both = sorted(mine.keys() & theirs.keys())
    note = ""
    if other is None:
        note = "no judge of another lineage scored both runs: the gain has no witness"
    elif len(both) < _FEWEST:
        note = f"both judges scored {len(both)} prompts only"
    at = both if len(both) >= _FEWEST else sorted(mine)
    enough = len(both) >= _FEWEST
    return GoodhartEntry(
        question=key[1],
        optimised=key[0],
        independent=other[0] if other else None,
        why=pair.a.columns[key].record.struck or "",
        n=len(at),
        unit="rate" if by_rate else "sd",
        note=note,
        gain_optimised=mean_difference_interval([mine[i] for i in at])
        if len(at) >= _FEWEST
        else None,
        gain_independent=mean_difference_interval([theirs[i] for i in both]) if enough else None,
        inflation=mean_difference_interval([mine[i] - theirs[i] for i in both]) if enough else None,
    )


def goodhart_entries(pair: RunPair) -> tuple[GoodhartEntry, ...]:
    """One line for each judge that chose, trained or blocked the second run's model (or the first's)."""
    struck = [k for k, c in pair.a.columns.items() if c.record.struck is not None]
    return tuple(line for key in struck if (line := _line(pair, key)) is not None)
