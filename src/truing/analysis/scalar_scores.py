"""What judges give in their own unit (rewards, costs, grades of 1 to 5): means with intervals, and paired changes.

A rate counts verdicts, and a reward has none. A prompt counts once, by the mean over its answers; intervals are Student's
over prompts. Shown for judges without verdicts, and for those whose values leave [0, 1] (a cost, a grade).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from truing.analysis.verdict_table import NO, YES, VerdictColumn, VerdictTable
from truing.stats.intervals import Interval, student_quantile

if TYPE_CHECKING:
    from truing.analysis.pairing import RunPair


class MeanScore(Struct, frozen=True, kw_only=True):
    """One judge's mean value on one question, in its own unit; `n` answers on `prompts` prompts, `missing` without value."""

    question: str
    judge: str
    judge_hash: str
    n: int
    prompts: int
    missing: int
    value: Interval | None
    selected_by_judge: bool = False
    struck: str | None = None


class MeanScoreDelta(Struct, frozen=True, kw_only=True):
    """The second run's mean minus the first's, paired by prompt, in the judge's unit."""

    question: str
    judge: str
    judge_hash: str
    n_pairs: int
    mean_a: float
    mean_b: float
    delta: Interval | None
    selected_by_judge: bool = False
    struck: str | None = None


def student_mean_interval(
    values: Sequence[float], method: str = "student by prompt"
) -> Interval | None:
    """The mean with Student's 95 % interval; none under two values, which tell nothing of their spread."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    spread = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = student_quantile(0.95, n - 1) * math.sqrt(spread / n)
    return Interval(mean, mean - half, mean + half, method)


def reports_mean(column: VerdictColumn) -> bool:
    """Whether a mean says more of a column than a rate: it has values, and no verdicts or values outside [0, 1]."""
    return column.value_counts is not None and (
        column.exceeds_unit_interval or not has_verdicts(column)
    )


def has_verdicts(column: VerdictColumn) -> bool:
    """Whether a column has a single yes or no."""
    return any(YES in layer or NO in layer for layer in column.codes)


def _by_prompt(column: VerdictColumn) -> dict[int, float]:
    if column.value_counts is None or column.value_sums is None:
        return {}
    return {at: column.value_sums[at] / n for at, n in enumerate(column.value_counts) if n}


def mean_scores(columns: VerdictTable) -> list[MeanScore]:
    """The means of a run."""
    out = []
    for column in columns.columns.values():
        if not reports_mean(column) or column.value_counts is None:
            continue
        values, n, struck = (
            _by_prompt(column),
            sum(column.value_counts),
            columns.struck_reason(column.record),
        )
        rows = sum(len(layer) - layer.count(0) for layer in column.codes)
        out.append(
            MeanScore(
                question=column.question,
                judge=column.record.name,
                judge_hash=column.record.lineage.hash,
                n=n,
                prompts=len(values),
                missing=max(0, rows - n),
                value=student_mean_interval(list(values.values())),
                selected_by_judge=struck is not None,
                struck=struck,
            )
        )
    return out


def mean_score_deltas(pair: RunPair) -> list[MeanScoreDelta]:
    """The changes of means between two runs, over prompts with values in both."""
    out = []
    for key, column in pair.a.columns.items():
        other = pair.b.columns[key]
        if not (reports_mean(column) or reports_mean(other)):
            continue
        a, b = _by_prompt(column), _by_prompt(other)
        shared = [at for at in a if at in b]
        if not shared:
            continue
        struck = column.record.struck
        out.append(
            MeanScoreDelta(
                question=column.question,
                judge=column.record.name,
                judge_hash=column.record.lineage.hash,
                n_pairs=len(shared),
                mean_a=math.fsum(a[p] for p in shared) / len(shared),
                mean_b=math.fsum(b[p] for p in shared) / len(shared),
                delta=student_mean_interval([b[p] - a[p] for p in shared], "paired by prompt"),
                selected_by_judge=struck is not None,
                struck=struck,
            )
        )
    return out
