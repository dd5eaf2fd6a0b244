"""Means of judges that give values in their own unit (rewards, costs, grades), and their changes.

A rate counts verdicts, and a reward has none. A prompt counts once, with the mean over its answers;
intervals are Student's over prompts. Means are shown for judges without verdicts, and for judges
whose values leave [0, 1] (a cost, a grade).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from truing.analysis.pairing import RunPair
from truing.analysis.verdict_table import ABSENT, NO, YES, VerdictColumn, VerdictTable
from truing.stats.intervals import Interval, student_quantile


class MeanScore(Struct, frozen=True, kw_only=True):
    """One judge's mean value on one question: `n` answers on `prompts` prompts.

    `missing` answers have no value. `value` is None with values on fewer than two prompts.
    """

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
    """Returns the mean with Student's 95 % interval; None below two values."""
    n = len(values)
    if n < 2:  # a single value has no spread to estimate
        return None
    mean = math.fsum(values) / n
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half_width = student_quantile(0.95, n - 1) * math.sqrt(variance / n)
    return Interval(mean, mean - half_width, mean + half_width, method)


def has_verdicts(column: VerdictColumn) -> bool:
    """Returns whether a column holds any "yes" or "no"."""
    return any(YES in codes or NO in codes for codes in column.codes)


def reports_mean(column: VerdictColumn) -> bool:
    """Returns whether a mean is reported: the judge gives values, and these are no plain rate."""
    return column.value_counts is not None and (
        column.exceeds_unit_interval or not has_verdicts(column)
    )


def _mean_by_prompt(table: VerdictTable, column: VerdictColumn) -> dict[int, float]:
    """Returns prompt -> mean of the values of all its answers."""
    if column.value_counts is None or column.value_sums is None:
        return {}
    sums: dict[int, float] = {}
    counts: dict[int, int] = {}
    for prompt, value, count in zip(table.prompt_ids, column.value_sums, column.value_counts):
        if count:
            sums[prompt] = sums.get(prompt, 0.0) + value
            counts[prompt] = counts.get(prompt, 0) + count
    return {prompt: total / counts[prompt] for prompt, total in sums.items()}


def mean_scores(table: VerdictTable) -> list[MeanScore]:
    """Returns the means of a run, one for each column that reports one."""
    means = []
    for column in table.columns.values():
        if not reports_mean(column) or column.value_counts is None:
            continue
        # Answers to one prompt are not independent: the prompt is the unit.
        mean_of_prompt = _mean_by_prompt(table, column)
        n = sum(column.value_counts)
        judged = sum(len(codes) - codes.count(ABSENT) for codes in column.codes)
        struck = table.struck_reason(column.record)
        means.append(
            MeanScore(
                question=column.question,
                judge=column.record.name,
                judge_hash=column.record.lineage.hash,
                n=n,
                prompts=len(mean_of_prompt),
                # A judge that judged an answer twice (a resumed run) has two values of it.
                missing=max(0, judged - n),
                value=student_mean_interval(list(mean_of_prompt.values())),
                selected_by_judge=struck is not None,
                struck=struck,
            )
        )
    return means


def mean_score_deltas(pair: RunPair) -> list[MeanScoreDelta]:
    """Returns the changes of means between two runs, over prompts with values in both."""
    deltas = []
    for key, column in pair.a.columns.items():
        other = pair.b.columns[key]
        if not (reports_mean(column) or reports_mean(other)):
            continue
        a, b = _mean_by_prompt(pair.a, column), _mean_by_prompt(pair.b, other)
        shared = [prompt for prompt in a if prompt in b]
        if not shared:
            continue
        changes = [b[prompt] - a[prompt] for prompt in shared]
        struck = column.record.struck
        deltas.append(
            MeanScoreDelta(
                question=column.question,
                judge=column.record.name,
                judge_hash=column.record.lineage.hash,
                n_pairs=len(shared),
                mean_a=math.fsum(a[prompt] for prompt in shared) / len(shared),
                mean_b=math.fsum(b[prompt] for prompt in shared) / len(shared),
                delta=student_mean_interval(changes, "paired by prompt"),
                selected_by_judge=struck is not None,
                struck=struck,
            )
        )
    return deltas
