"""Differences between two paired runs: one `Delta` for each question, judge and category.

A delta is the second run's rate minus the first's, over prompts that both scored. With one answer
per prompt it has Newcombe's interval and the exact McNemar test; with several (n answers to a
sample, or several samples with one prompt), the prompts' means, Student's interval and a
permutation test. p values are adjusted over the categories of a question,
and over the questions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from truing.analysis.pairing import RunPair
from truing.analysis.prompt_counts import (
    Mask,
    PromptCounts,
    count_by_category,
    count_prompts,
    row_groups,
    select_samples,
)
from truing.analysis.rates import (
    ALL_AXES,
    PREDICTED_SUFFIX,
    SMALL_SAMPLE_SIZE,
    axis_verdicts,
    predicted_codes,
    verdict_codes,
)
from truing.analysis.scalar_scores import has_verdicts, reports_mean
from truing.analysis.verdict_table import VerdictTable
from truing.core.flagged_categories import UNCATEGORISED
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import Interval, student_quantile
from truing.stats.paired import (
    PairedTable,
    benjamini_hochberg,
    holm,
    mcnemar_exact,
    newcombe_paired,
    paired_mean,
    permutation_test_from_counts,
)
from truing.stats.pooling import partial_pooling_of_changes

Rates = NDArray[np.float64]


class Delta(Struct, frozen=True, kw_only=True):
    """The change of one rate: a question, by one judge, in one category, b minus a.

    Attributes:
        n_pairs: number of prompts that were scored in both runs.
        p, p_adjusted, p_fdr: p value, the same by Holm and by Benjamini and Hochberg.
        to_no, to_yes: number of pairs whose rate fell, and rose.
        unscored: number of pairs that could not be compared.
        bounds: the smallest and largest delta, whatever the unscored answers are.
        worst_case: the ends of the intervals of these two, which hold whatever the unscored
            answers are; equal to `lower` and `upper` if all were scored.
        group: as in `Rate`.
        struck: why the judge may not measure one of the models; None if it may.
        pooled: of a small category: the change drawn towards those of the other categories.
    """

    question: str
    category: str | None
    judge: str
    judge_hash: str
    n_pairs: int
    estimate: float | None
    lower: float | None
    upper: float | None
    p: float | None
    p_adjusted: float | None = None
    p_fdr: float | None = None
    method: str = ""
    rate_a: float | None = None
    rate_b: float | None = None
    to_no: int = 0
    to_yes: int = 0
    unscored: int = 0
    bounds: tuple[float, float] = (-1.0, 1.0)
    small: bool = False
    selected_by_judge: bool = False
    struck: str | None = None
    corrected: Interval | None = None
    transported: Interval | None = None
    worst_case: tuple[float, float] = (-1.0, 1.0)
    group: str = ""
    pooled: Interval | None = None


class PairCounts(Struct, frozen=True):
    """The counts behind one delta, by prompt, in both runs."""

    a: PromptCounts
    b: PromptCounts

    @property
    def in_both(self) -> Mask:
        """Which prompts have answers in both runs, scored or not."""
        return np.asarray((self.a.rows > 0) & (self.b.rows > 0), bool)

    @property
    def paired(self) -> Mask:
        """Which prompts have scored answers in both runs."""
        return self.in_both & (self.a.scored > 0) & (self.b.scored > 0)

    @property
    def has_unscored(self) -> bool:
        """Whether some answer to a prompt of both runs has no verdict."""
        return bool((self.a.unscored + self.b.unscored)[self.in_both].any())

    def delta(self, record: JudgeRecord, question: str, category: str | None) -> Delta:
        """Returns the delta; its p value is not adjusted yet."""
        in_both, paired = self.in_both, self.paired
        prompts, n = int(in_both.sum()), int(paired.sum())
        bounds = (-1.0, 1.0)
        if prompts:
            # Lowest if all unscored answers of b are "no" and all of a are "yes".
            lowest = self.b.lowest[in_both] - self.a.highest[in_both]
            highest = self.b.highest[in_both] - self.a.lowest[in_both]
            bounds = (float(lowest.mean()), float(highest.mean()))
        delta = Delta(
            question=question,
            category=category,
            judge=record.name,
            judge_hash=record.lineage.hash,
            n_pairs=n,
            estimate=None,
            lower=None,
            upper=None,
            p=None,
            unscored=prompts - n,
            small=n < SMALL_SAMPLE_SIZE,
            bounds=bounds,
            selected_by_judge=record.struck is not None,
            struck=record.struck,
        )
        if not n:
            return delta
        rates_a, rates_b = self.a.rate[paired], self.b.rate[paired]
        changes = rates_b - rates_a
        interval = self.interval()
        return replace(
            delta,
            estimate=interval.estimate,
            lower=interval.lower,
            upper=interval.upper,
            method=interval.method,
            p=self._p_value(rates_a, rates_b),
            rate_a=float(rates_a.mean()),
            rate_b=float(rates_b.mean()),
            to_no=int((changes < 0).sum()),
            to_yes=int((changes > 0).sum()),
            worst_case=self.worst_case(),
        )

    def interval(self, level: float = 0.95) -> Interval:
        """Returns the interval of the change over the prompts scored in both runs."""
        paired = self.paired
        rates_a, rates_b = self.a.rate[paired], self.b.rate[paired]
        return difference_interval(rates_a, rates_b, level, binary=self._is_binary(paired))

    def worst_case(self, level: float = 0.95) -> tuple[float, float]:
        """Returns bounds of the change that hold whatever the verdicts of unscored answers are.

        No completion of the data has an interval that reaches further, all prompts of both runs
        included. Equal to the interval if every answer was scored.
        """
        in_both = self.in_both
        if not in_both.any():
            return -1.0, 1.0
        binary = bool((self.a.rows[in_both] == 1).all() and (self.b.rows[in_both] == 1).all())
        low_a, high_a = self.a.lowest[in_both], self.a.highest[in_both]
        low_b, high_b = self.b.lowest[in_both], self.b.highest[in_both]
        if binary:
            # Newcombe's ends move with the completion, so the extreme ones are the furthest.
            lower = difference_interval(high_a, low_b, level, binary=True).lower
            return lower, difference_interval(low_a, high_b, level, binary=True).upper
        lower, upper = completed_bounds(low_b - high_a, high_b - low_a, level)
        return max(-1.0, lower), min(1.0, upper)

    def sums_of_changes(self) -> tuple[float, float]:
        """Returns by how much rates fell, and rose, summed over the prompts scored in both runs."""
        changes = (self.b.rate - self.a.rate)[self.paired]
        return float(np.maximum(-changes, 0).sum()), float(np.maximum(changes, 0).sum())

    def _is_binary(self, paired: Mask) -> bool:
        return bool((self.a.scored[paired] == 1).all() and (self.b.scored[paired] == 1).all())

    def _p_value(self, rates_a: Rates, rates_b: Rates) -> float:
        if self._is_binary(self.paired):
            table = _paired_table(rates_a, rates_b)
            return mcnemar_exact(table.only_a, table.only_b)
        changes, times = np.unique(rates_b - rates_a, return_counts=True)
        return permutation_test_from_counts(dict(zip(changes.tolist(), times.tolist())))


def difference_interval(a: Rates, b: Rates, level: float = 0.95, *, binary: bool) -> Interval:
    """Returns the interval of the mean of b - a over prompts.

    Newcombe's if every prompt has one answer in each run (`binary`), else Student's over the
    prompts' means.
    """
    if binary:
        return newcombe_paired(_paired_table(a, b), level)
    return paired_mean(a.tolist(), b.tolist(), level)


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


def completed_bounds(lowest: Rates, highest: Rates, level: float) -> tuple[float, float]:
    """Returns ends that Student's interval of no completion of the data exceeds.

    `lowest` and `highest` are the possible changes of each prompt. The mean is that of the extreme
    completion, the variance the largest of any: a completion that moves the mean up may have a
    smaller variance than another. As in `mean_difference_interval`, one pseudo-pair is added.
    """
    n = len(lowest)
    if n < 2:  # no variance: so wide that nothing is shown
        return float(lowest.mean()) - 2.0, float(highest.mean()) + 2.0
    # Squares about the mean are at most those about any c, and these are largest at an end.
    squares = _least_squares(lowest, highest) + 1.0
    half_width = student_quantile(level, n - 1) * math.sqrt(squares / (n - 1) / n)
    return float(lowest.mean()) - half_width, float(highest.mean()) + half_width


def _least_squares(lowest: Rates, highest: Rates) -> float:
    """Returns the least sum, over c, of the squared distances of c to the further end."""

    def sum_at(c: float) -> float:
        return float(np.maximum((lowest - c) ** 2, (highest - c) ** 2).sum())

    low, high = float(lowest.mean()), float(highest.mean())
    if low == high:
        return sum_at(low)  # nothing is missing
    low, high = float(lowest.min()), float(highest.max())
    for _ in range(50):  # the sum is convex in c
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if sum_at(left) <= sum_at(right) else (left, high)
    return sum_at((low + high) / 2)


def _paired_table(a: Rates, b: Rates) -> PairedTable:
    yes_a, yes_b = a > 0.5, b > 0.5
    return PairedTable(
        both=int((yes_a & yes_b).sum()),
        only_a=int((yes_a & ~yes_b).sum()),
        only_b=int((~yes_a & yes_b).sum()),
        neither=int((~yes_a & ~yes_b).sum()),
    )


def count_pairs_by_category(
    table: VerdictTable,
    codes_a: Sequence[bytes],
    codes_b: Sequence[bytes],
    expects: Collection[str] | None = None,
    *,
    axis: bool = False,
    group: str = "",
) -> dict[str | None, PairCounts]:
    """Counts pairs of codes by category; arguments as of `prompt_counts.count_by_category`."""
    counts_of_a = count_by_category(table, codes_a, expects, axis=axis, group=group)
    counts_of_b = count_by_category(table, codes_b, expects, axis=axis, group=group)
    return {
        category: PairCounts(counts_of_a[category].by_prompt, counts_of_b[category].by_prompt)
        for category in counts_of_a
    }


def paired_deltas(pair: RunPair) -> list[Delta]:
    """Returns the deltas of every question by every shared judge, and of every axis.

    p values of the rows over all categories are adjusted among themselves, struck judges left out.
    """
    deltas: list[Delta] = []
    for key, column in pair.a.columns.items():
        column_b = pair.b.columns[key]
        if all(reports_mean(c) and not has_verdicts(c) for c in (column, column_b)):
            continue  # a reward has no verdicts: `scalar_scores` has its change
        codes_a, codes_b = verdict_codes(pair.a, column), verdict_codes(pair.b, column_b)
        for group in row_groups(pair.a):
            counts = count_pairs_by_category(pair.a, codes_a, codes_b, group=group)
            deltas += _deltas_of_question(column.record, column.question, counts, group)
        deltas += _deltas_by_predicted_category(pair, key)
    for axis in ALL_AXES:
        deltas += _deltas_of_axis(pair, axis)
    # A struck judge must not cost the others power: its tests are not in the family.
    overall = [
        i
        for i, delta in enumerate(deltas)
        if delta.category is None and delta.p is not None and not delta.selected_by_judge
    ]
    return _adjust_p(deltas, overall)


def _deltas_of_question(
    record: JudgeRecord,
    question: str,
    counts_by_category: Mapping[str | None, PairCounts],
    group: str = "",
) -> list[Delta]:
    """Returns the deltas of one question, p values adjusted over its categories."""
    deltas = [
        replace(counts.delta(record, question, category), group=group)
        for category, counts in sorted(counts_by_category.items(), key=lambda item: item[0] or "")
        if counts.in_both.any()
    ]
    in_category = [
        i for i, delta in enumerate(deltas) if delta.category is not None and delta.p is not None
    ]
    return _adjust_p(_pool_small(deltas, in_category, counts_by_category), in_category)


def _pool_small(
    deltas: list[Delta], family: Sequence[int], counts: Mapping[str | None, PairCounts]
) -> list[Delta]:
    """Returns the deltas with `pooled` set in small categories, if there are several categories."""
    if len(family) < 2 or not any(deltas[i].small and deltas[i].struck is None for i in family):
        return deltas
    sums = [counts[deltas[i].category].sums_of_changes() for i in family]
    sizes = [deltas[i].n_pairs for i in family]
    pooled = list(deltas)
    intervals = partial_pooling_of_changes([f for f, _ in sums], [r for _, r in sums], sizes)
    for i, interval in zip(family, intervals):
        if deltas[i].small:
            pooled[i] = replace(deltas[i], pooled=interval)
    return pooled


def _adjust_p(deltas: list[Delta], family: Sequence[int]) -> list[Delta]:
    """Returns the deltas with p values adjusted within a family, given by its indices."""
    p = [deltas[i].p or 0.0 for i in family]
    adjusted = list(deltas)
    for i, p_holm, p_fdr in zip(family, holm(p), benjamini_hochberg(p)):
        adjusted[i] = replace(deltas[i], p_adjusted=p_holm, p_fdr=p_fdr)
    return adjusted


def _deltas_by_predicted_category(pair: RunPair, key: tuple[str, str]) -> list[Delta]:
    """Returns the deltas of "yes, and in this category" by the judge's own categories."""
    a, b = pair.a.columns[key], pair.b.columns[key]
    codes_a, codes_b = verdict_codes(pair.a, a), verdict_codes(pair.b, b)
    deltas = []
    for group in row_groups(pair.a):
        mask = select_samples(pair.a, group=group)
        counts: dict[str | None, PairCounts] = {}
        # A category that one run never predicts counts as "no" there.
        for category in dict.fromkeys([*a.predicted_categories, *b.predicted_categories]):
            if category == UNCATEGORISED:  # no category: what it holds differs from run to run
                continue
            counts[category] = PairCounts(
                count_prompts(pair.a, predicted_codes(a, codes_a, category), mask),
                count_prompts(pair.b, predicted_codes(b, codes_b, category), mask),
            )
        deltas += _deltas_of_question(a.record, a.question + PREDICTED_SUFFIX, counts, group)
    return deltas


def _deltas_of_axis(pair: RunPair, axis: str) -> list[Delta]:
    a, b = axis_verdicts(pair.a, axis), axis_verdicts(pair.b, axis)
    if a is None or b is None:
        return []
    deltas = []
    for group in row_groups(pair.a):
        counts = count_pairs_by_category(
            pair.a, a.codes, b.codes, a.expects, axis=True, group=group
        )
        deltas += _deltas_of_question(a.record, axis, counts, group)
    return deltas
