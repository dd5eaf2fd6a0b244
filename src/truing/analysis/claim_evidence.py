"""What a claim about two models is decided from: one object for each question and judge.

It holds, for both variants, the prompts as clusters with unscored answers as bounds, the judge with
its lineage and card, people's labels, and whether a run was stopped by its own figures. Decisions
are in `claim_decisions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.corrected_deltas import PairLabels
from truing.analysis.deltas import PairCounts, completed_bounds
from truing.analysis.judge_facts import JudgeFacts, facts_of_judge
from truing.analysis.lineage_relations import relate_judges, warnings_about
from truing.analysis.pairing import RunPair
from truing.analysis.prompt_counts import Mask, count_prompts, row_groups, select_samples
from truing.analysis.rates import AXES, AxisVerdicts, axis_verdicts
from truing.analysis.stopped_runs import draw_order, stopped_early
from truing.analysis.verdict_table import (
    ABSENT,
    FAILED,
    NO,
    UNSCORED,
    YES,
    read_verdict_table,
)
from truing.runs.folder import JudgeRecord
from truing.stats.sequential import BettingSequence

Bounds = tuple[float, float]
Rates = NDArray[np.float64]

EXACT_JUDGES = ("engine", "human:", "rules:check")
"""Judges whose verdict is the fact asked for, and no estimate of it."""


class DrawnPairs(Struct, frozen=True):
    """Share of events by sample in the order drawn: lowest and highest possible, in both runs."""

    low_a: Rates
    high_a: Rates
    low_b: Rates
    high_b: Rates


class PairedPrompts(Struct, frozen=True):
    """Verdicts of one judge on prompts of both runs; `drawn` if a run was stopped by its figures.

    All intervals are of a weighted change, `weight_b` b - `weight_a` a, with the answers that were
    not scored at their lowest for the lower end and at their highest for the upper end.
    """

    counts: PairCounts
    drawn: DrawnPairs | None = None

    @property
    def n(self) -> int:
        """Number of prompts with answers in both runs."""
        return int(self.counts.in_both.sum())

    @property
    def unscored(self) -> int:
        """Number of answers of these prompts without a verdict, in both runs together."""
        by_prompt = self.counts.a.unscored + self.counts.b.unscored
        return int(by_prompt[self.counts.in_both].sum())

    def bounds(self, level: float, weight_a: float = 1.0, weight_b: float = 1.0) -> Bounds:
        """Returns the ends of the interval; anytime-valid if a run was stopped by its figures."""
        if self.drawn is not None:
            return self._sequence_bounds(level, weight_a, weight_b)
        if weight_a == weight_b == 1.0:
            return self.counts.worst_case(level)
        in_both = self.counts.in_both
        a, b = self.counts.a, self.counts.b
        lowest = weight_b * b.lowest[in_both] - weight_a * a.highest[in_both]
        highest = weight_b * b.highest[in_both] - weight_a * a.lowest[in_both]
        return completed_bounds(lowest, highest, level)

    def middle(self, weight_a: float = 1.0, weight_b: float = 1.0) -> float:
        """Returns the weighted change with unscored answers half-way; NaN without prompts."""
        in_both = self.counts.in_both
        if not in_both.any():
            return math.nan
        a, b = self.counts.a, self.counts.b
        mean_a = (a.lowest[in_both] + a.highest[in_both]).mean() / 2
        mean_b = (b.lowest[in_both] + b.highest[in_both]).mean() / 2
        return float(weight_b * mean_b - weight_a * mean_a)

    def rates(self) -> tuple[float, float]:
        """Returns the rates of both runs over the prompts scored in both; NaN without."""
        paired = self.counts.paired
        if not paired.any():
            return math.nan, math.nan
        return (
            float(self.counts.a.rate[paired].mean()),
            float(self.counts.b.rate[paired].mean()),
        )

    def _sequence_bounds(self, level: float, weight_a: float, weight_b: float) -> Bounds:
        drawn = self.drawn
        if drawn is None or not len(drawn.low_a):
            return -weight_a, weight_b
        low = weight_b * drawn.low_b - weight_a * drawn.high_a
        high = weight_b * drawn.high_b - weight_a * drawn.low_a
        width = weight_a + weight_b

        def sequence(values: Rates) -> Bounds:
            betting = BettingSequence(level, grid=2000)
            for value in np.clip((values + weight_a) / width, 0, 1).tolist():
                betting.add(value)
            interval = betting.interval()
            return interval.lower * width - weight_a, interval.upper * width - weight_a

        lower, upper = sequence(low)
        return lower, upper if np.array_equal(low, high) else sequence(high)[1]


class ChangeEvidence(Struct, frozen=True, kw_only=True, dict=True):
    """Everything known about the change of one rate, by one judge.

    Attributes:
        question: question or axis.
        pairs: the prompts concerned.
        control: the same judge on benign prompts, for questions of harm on harmful prompts: what
            changes there is no harm, but the judge's false alarms.
        labels: people's labels of both runs.
        facts: the judge's card, given or shipped.
        struck: why the judge may not measure one of the models; None if it may.
        warnings: what the judge shares with a model.
        failed: mean share of answers that failed, by prompt, added over both runs: nobody can
            label these.
        labelable: share of all answers of each run that the question concerns.
        group: ``attacked`` where a run holds plain and attacked prompts, of which only the attacked
            ones count here; empty for other runs.
    """

    question: str
    record: JudgeRecord
    pairs: PairedPrompts
    control: PairedPrompts | None = None
    labels: PairLabels
    facts: JudgeFacts | None = None
    struck: str | None = None
    warnings: tuple[str, ...] = ()
    failed: float = 0.0
    labelable: tuple[float, float] = (1.0, 1.0)
    group: str = ""

    @property
    def judge(self) -> str:
        """Name of the judge."""
        return self.record.name

    @property
    def is_exact(self) -> bool:
        """Whether the verdict is the fact itself."""
        return self.judge.startswith(EXACT_JUDGES)

    @property
    def stopped(self) -> bool:
        """Whether a run was stopped by its own figures, so that only sequences are valid."""
        return self.pairs.drawn is not None

    @cached_property
    def n_labels(self) -> tuple[int, int]:
        """Numbers of labels of the prompts concerned, in both runs."""
        return self.labels.count(self.judge, self.question)

    def corrected_bounds(self, level: float) -> Bounds | None:
        """Returns the corrected change with failed answers at their worst; None without labels."""
        interval = self.labels.corrected(self.judge, self.question, level)
        if interval is None:
            return None
        covered = max(0.0, 1.0 - self.failed)
        return interval.lower * covered - self.failed, interval.upper * covered + self.failed


def collect_evidence(
    pair: RunPair, labels: PairLabels, question: str, cards: Mapping[str, Path]
) -> list[ChangeEvidence]:
    """Returns the evidence on a question or axis: the quoted judge's first, then of others.

    The others are judges that may measure both models and share no training prompts or ancestors
    with the first. Empty if no judge answered the question in both runs on a prompt of both.
    Attacked prompts are preferred; a question that none of them asks (tasks of agents are attacked
    where the task is benign) is answered on plain ones.
    """
    groups = row_groups(pair.a)
    return next(filter(None, (_collect_in(g, pair, labels, question, cards) for g in groups)), [])


def _collect_in(
    group: str, pair: RunPair, labels: PairLabels, question: str, cards: Mapping[str, Path]
) -> list[ChangeEvidence]:
    judges = _judges_of(pair, question)
    order = _paired_draw_order(pair)
    evidence: list[ChangeEvidence] = []
    for judge in judges:
        verdicts = [axis_verdicts(t, question, judge, every_row=True) for t in (pair.a, pair.b)]
        if verdicts[0] is None or verdicts[1] is None:
            continue
        mask = select_samples(pair.a, verdicts[0].expects, group)
        pairs = _paired_prompts(pair, verdicts[0], verdicts[1], mask, order)
        if not pairs.n:
            continue
        record = verdicts[0].record
        if evidence and not _confirms(record, evidence[0].record):
            continue
        control = None
        if question == "attack_success":
            benign = select_samples(pair.a, ("comply",), group)
            control = _paired_prompts(pair, verdicts[0], verdicts[1], benign, order)
        evidence.append(
            ChangeEvidence(
                question=question,
                record=record,
                pairs=pairs,
                control=control if control is not None and control.n > 1 else None,
                labels=labels,
                facts=facts_of_judge(record, cards),
                struck=pair.b.struck_reason(record) or pair.a.struck_reason(record),
                warnings=_warnings(pair, record.name),
                failed=_failed_share(pair, mask),
                labelable=(float(mask.mean()), float(mask.mean())),
                group=group,
            )
        )
    return evidence


def _judges_of(pair: RunPair, question: str) -> list[str]:
    """Returns the judges of a question: the quoted one, then others that may measure."""
    if question == "cut":
        return ["engine"]
    judge_question = "refused" if question == "answers_benign" else question
    judge_question = AXES[judge_question].question if judge_question in AXES else judge_question
    quoted = pair.a.headline_column(judge_question)
    if quoted is None:
        return []
    other_judges = [
        column.record.name
        for (_, of_column), column in pair.a.columns.items()
        if of_column == judge_question
        and not column.is_human
        and column.record.name != quoted.record.name
        and pair.a.struck_reason(column.record) is None
        and pair.b.struck_reason(column.record) is None
    ]
    return [quoted.record.name, *other_judges]


def _confirms(record: JudgeRecord, first: JudgeRecord) -> bool:
    """Returns whether a second judge has nothing in common with the first that strikes it."""
    relation = relate_judges(first, record)
    return relation is None or relation.consequence != "strike"


def _warnings(pair: RunPair, judge: str) -> tuple[str, ...]:
    of_runs = (*warnings_about(pair.b.relations, judge), *warnings_about(pair.a.relations, judge))
    return tuple(dict.fromkeys(of_runs))


def _paired_prompts(
    pair: RunPair, a: AxisVerdicts, b: AxisVerdicts, mask: Mask, order: Sequence[int] | None
) -> PairedPrompts:
    counts = PairCounts(count_prompts(pair.a, a.codes, mask), count_prompts(pair.b, b.codes, mask))
    if order is None:
        return PairedPrompts(counts)
    drawn = [position for position in order if mask[position]]
    low_a, high_a = _shares_by_sample(a.codes, drawn)
    low_b, high_b = _shares_by_sample(b.codes, drawn)
    known = ~np.isnan(low_a) & ~np.isnan(low_b)
    return PairedPrompts(
        counts, DrawnPairs(low_a[known], high_a[known], low_b[known], high_b[known])
    )


def _shares_by_sample(codes: Sequence[bytes], drawn: Sequence[int]) -> tuple[Rates, Rates]:
    """Returns the lowest and highest share of events of each drawn sample; NaN without answers."""
    rows = np.stack([np.frombuffer(array, np.uint8) for array in codes])[:, list(drawn)]
    events = (rows == YES).sum(0)
    unscored = (rows == UNSCORED).sum(0)
    n = events + unscored + (rows == NO).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = events / n, (events + unscored) / n
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def _paired_draw_order(pair: RunPair) -> list[int] | None:
    """Returns the paired positions in the order drawn, if a run was stopped by its figures."""
    if stopped_early(pair.b):
        stopped, positions = pair.b, pair.positions_b
    elif stopped_early(pair.a):
        stopped, positions = pair.a, pair.positions_a
    else:
        return None
    paired_position = {original: i for i, original in enumerate(positions)}
    order = draw_order(read_verdict_table(stopped.path))
    return [paired_position[position] for position in order if position in paired_position]


def _failed_share(pair: RunPair, mask: Mask) -> float:
    """Returns the mean share of failed answers by prompt, added over both runs; at most 1."""
    total = 0.0
    for table in (pair.a, pair.b):
        codes = [bytes(states).translate(_FAILURE_CODES) for states in table.response_states]
        counts = count_prompts(table, codes, mask)
        with_answers = counts.rows > 0
        if with_answers.any():
            total += float(counts.rate[with_answers].mean())
    return min(1.0, total)


# State of an answer -> YES if it failed, NO if there is one, ABSENT if none was asked for.
_FAILURE_CODES = bytes(
    ABSENT if state == ABSENT else YES if state == FAILED else NO for state in range(256)
)
