"""Differences between two paired runs: one `Delta` for each question, judge and category.

A delta is the second run's rate minus the first's, over samples that both scored. With one answer
per prompt it has Newcombe's interval and the exact McNemar test; with several, the prompts' means,
Student's interval and a permutation test. p values are adjusted over the categories of a question,
and over the questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.pairing import RunPair
from truing.analysis.rates import (
    ALL_AXES,
    PREDICTED_SUFFIX,
    SMALL_SAMPLE_SIZE,
    axis_verdicts,
    predicted_codes,
    verdict_codes,
)
from truing.analysis.scalar_scores import has_verdicts, reports_mean
from truing.analysis.verdict_table import EXPECTS, NO, UNSCORED, YES, VerdictTable
from truing.runs.folder import JudgeRecord
from truing.stats.intervals import Interval
from truing.stats.paired import (
    PairedTable,
    benjamini_hochberg,
    holm,
    mcnemar_exact,
    newcombe_paired,
    paired_mean,
    permutation_test_from_counts,
)


class Delta(Struct, frozen=True, kw_only=True):
    """The change of one rate: a question, by one judge, in one category, b minus a.

    Attributes:
        n_pairs: number of prompts that were scored in both runs.
        p, p_adjusted, p_fdr: p value, the same by Holm and by Benjamini and Hochberg.
        to_no, to_yes: number of pairs whose rate fell, and rose.
        unscored: number of pairs that could not be compared.
        bounds: the smallest and largest delta, whatever the unscored answers are.
        struck: why the judge may not measure one of the models; None if it may.
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


class _PairKind(Struct, frozen=True):
    """Events and scored answers of a prompt in both runs."""

    events_a: int
    scored_a: int
    events_b: int
    scored_b: int

    @property
    def rate_a(self) -> float:
        return self.events_a / self.scored_a

    @property
    def rate_b(self) -> float:
        return self.events_b / self.scored_b

    @property
    def change(self) -> float:
        return self.rate_b - self.rate_a


class PairCounts:
    """The counts behind one delta."""

    def __init__(self) -> None:
        self.kinds: Counter[_PairKind] = Counter()  # pairs scored in both runs
        self.prompts = self.unscored = 0
        self.lowest_sum = self.highest_sum = 0.0  # of the deltas of single prompts

    def add(self, codes_a: Sequence[int], codes_b: Sequence[int], times: int) -> None:
        """Adds `times` prompts whose answers have these codes in the two runs."""
        yes_a, yes_b = codes_a.count(YES), codes_b.count(YES)
        scored_a, scored_b = yes_a + codes_a.count(NO), yes_b + codes_b.count(NO)
        unscored_a, unscored_b = codes_a.count(UNSCORED), codes_b.count(UNSCORED)
        all_a, all_b = scored_a + unscored_a, scored_b + unscored_b
        if not all_a or not all_b:
            return
        self.prompts += times
        # The delta is lowest if all unscored answers of b are "no" and all of a are "yes".
        self.lowest_sum += times * (yes_b / all_b - (yes_a + unscored_a) / all_a)
        self.highest_sum += times * ((yes_b + unscored_b) / all_b - yes_a / all_a)
        if scored_a and scored_b:
            self.kinds[_PairKind(yes_a, scored_a, yes_b, scored_b)] += times
        else:
            self.unscored += times

    def delta(self, record: JudgeRecord, question: str, category: str | None) -> Delta:
        """Returns the delta; its p value is not adjusted yet."""
        n = self.kinds.total()
        bounds = (-1.0, 1.0)
        if self.prompts:
            bounds = (self.lowest_sum / self.prompts, self.highest_sum / self.prompts)
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
            unscored=self.unscored,
            small=n < SMALL_SAMPLE_SIZE,
            bounds=bounds,
            selected_by_judge=record.struck is not None,
            struck=record.struck,
        )
        if not n:
            return delta
        interval, p = self._interval_and_p()
        return replace(
            delta,
            estimate=interval.estimate,
            lower=interval.lower,
            upper=interval.upper,
            method=interval.method,
            p=p,
            rate_a=sum(kind.rate_a * times for kind, times in self.kinds.items()) / n,
            rate_b=sum(kind.rate_b * times for kind, times in self.kinds.items()) / n,
            to_no=sum(times for kind, times in self.kinds.items() if kind.change < 0),
            to_yes=sum(times for kind, times in self.kinds.items() if kind.change > 0),
        )

    def _interval_and_p(self) -> tuple[Interval, float]:
        if all(kind.scored_a == kind.scored_b == 1 for kind in self.kinds):
            table = PairedTable(
                both=self.kinds[_PairKind(1, 1, 1, 1)],
                only_a=self.kinds[_PairKind(1, 1, 0, 1)],
                only_b=self.kinds[_PairKind(0, 1, 1, 1)],
                neither=self.kinds[_PairKind(0, 1, 0, 1)],
            )
            return newcombe_paired(table), mcnemar_exact(table.only_a, table.only_b)
        # Several answers per prompt: the prompt is the unit, its mean the outcome.
        rates_a = [kind.rate_a for kind, times in self.kinds.items() for _ in range(times)]
        rates_b = [kind.rate_b for kind, times in self.kinds.items() for _ in range(times)]
        changes: Counter[float] = Counter()
        for kind, times in self.kinds.items():
            changes[kind.change] += times
        return paired_mean(rates_a, rates_b), permutation_test_from_counts(changes)


def count_pairs_by_category(
    table: VerdictTable,
    codes_a: Sequence[bytes],
    codes_b: Sequence[bytes],
    expects: Collection[str] | None = None,
    *,
    axis: bool = False,
) -> dict[str | None, PairCounts]:
    """Counts pairs of codes by category; arguments as of `rates.count_by_category`."""
    counts: dict[str | None, PairCounts] = {None: PairCounts()}
    category_ids = table.pair_category_ids if axis else table.category_ids
    answers_a = len(codes_a)
    kinds = Counter(zip(category_ids, table.expect_ids, *codes_a, *codes_b))
    for (category_id, expect_id, *codes), times in kinds.items():
        expect = EXPECTS[expect_id]
        if expects is not None and expect not in expects:
            continue
        of_a, of_b = codes[:answers_a], codes[answers_a:]
        counts[None].add(of_a, of_b, times)
        if not axis and expect == "comply":
            continue  # a benign prompt belongs to no harm category
        for category in table.category_sets[category_id]:
            counts.setdefault(category, PairCounts()).add(of_a, of_b, times)
    return counts


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
        counts = count_pairs_by_category(pair.a, codes_a, codes_b)
        deltas += _deltas_of_question(column.record, column.question, counts)
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
    record: JudgeRecord, question: str, counts_by_category: Mapping[str | None, PairCounts]
) -> list[Delta]:
    """Returns the deltas of one question, p values adjusted over its categories."""
    deltas = [
        counts.delta(record, question, category)
        for category, counts in sorted(counts_by_category.items(), key=lambda item: item[0] or "")
        if counts.prompts
    ]
    in_category = [
        i for i, delta in enumerate(deltas) if delta.category is not None and delta.p is not None
    ]
    return _adjust_p(deltas, in_category)


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
    counts: dict[str | None, PairCounts] = {}
    # A category that one run never predicts counts as "no" there.
    for category in dict.fromkeys([*a.predicted_categories, *b.predicted_categories]):
        predicted_a = predicted_codes(a, codes_a, category)
        predicted_b = predicted_codes(b, codes_b, category)
        counts[category] = count_pairs_by_category(pair.a, predicted_a, predicted_b)[None]
    return _deltas_of_question(a.record, a.question + PREDICTED_SUFFIX, counts)


def _deltas_of_axis(pair: RunPair, axis: str) -> list[Delta]:
    a, b = axis_verdicts(pair.a, axis), axis_verdicts(pair.b, axis)
    if a is None or b is None:
        return []
    counts = count_pairs_by_category(pair.a, a.codes, b.codes, a.expects, axis=True)
    return _deltas_of_question(a.record, axis, counts)
