"""Goodhart's law, measured: gains by the judge that was optimised, and by an independent one.

A judge that chose, trained or blocked a model may not measure it, and its figures are struck out.
But the difference between its gain and that of a judge of another lineage tells how much of the
gain is an exploited error of the optimised judge (Gao, Schulman & Hilton 2022, arXiv 2210.10760),
provided that the quality of both is allowed for: a better judge sees larger gains. Gains are paired
by prompt, with Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.corrected_deltas import PairLabels
from truing.analysis.deltas import mean_difference_interval
from truing.analysis.judge_facts import facts_of_judge
from truing.analysis.pairing import RunPair
from truing.analysis.rates import verdict_codes
from truing.analysis.stopped_runs import prompt_means
from truing.analysis.verdict_table import VerdictColumn, VerdictTable
from truing.core.judgement_scores import HARM_QUESTIONS
from truing.runs.parts import read_run_records
from truing.stats.intervals import Interval
from truing.stats.judge_error import MIN_YOUDEN

# Not `refused`: to refuse may be the right answer.
LOWER_IS_BETTER = HARM_QUESTIONS | {"bare_refusal", "degenerate"}
_MIN_PROMPTS = 5  # fewer prompts give no interval

ColumnKey = tuple[str, str]


class GoodhartEntry(Struct, frozen=True, kw_only=True):
    """The gain by one optimised judge, and by an independent one.

    Attributes:
        why: why the optimised judge is struck.
        n: number of prompts.
        inflation: gain by the optimised judge minus gain by the independent one (or by labels),
            over prompts that both scored in both runs, each divided by the judge's Youden index
            from its card; None, with a `note`, where it cannot be told.
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


def goodhart_entries(
    pair: RunPair, labels: PairLabels, cards: Mapping[str, Path]
) -> tuple[GoodhartEntry, ...]:
    """Returns one entry for each judge that chose, trained or blocked either run's model."""
    # A judge that was merely trained on prompts of the run was not optimised.
    optimised = {
        relation.judge
        for relation in (*pair.a.relations, *pair.b.relations)
        if relation.kind == "judge and model" and relation.consequence == "strike"
    }
    keys = [key for key in pair.a.columns if key[0] in optimised]
    entries = (_goodhart_entry(pair, key, labels, cards) for key in keys)
    return tuple(entry for entry in entries if entry is not None)


def _goodhart_entry(
    pair: RunPair, optimised: ColumnKey, labels: PairLabels, cards: Mapping[str, Path]
) -> GoodhartEntry | None:
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
    own = [gains[prompt] for prompt in (shared if enough else sorted(gains))]
    other = [independent_gains[prompt] for prompt in shared] if enough else []
    entry = GoodhartEntry(
        question=optimised[1],
        optimised=optimised[0],
        independent=independent[0] if independent else None,
        why=pair.a.columns[optimised].record.struck or "",
        n=len(own),
        unit="rate" if by_rate else "sd",
        gain_optimised=mean_difference_interval(own) if len(own) >= _MIN_PROMPTS else None,
        gain_independent=mean_difference_interval(other) if enough else None,
        inflation=None,
    )
    if len(own) < _MIN_PROMPTS:
        return replace(entry, note=f"{len(own)} prompts only")
    if not by_rate:
        return replace(entry, note="cannot be told: a score has no known rate of errors")
    return _with_inflation(pair, entry, own, other, labels, cards)


def _with_inflation(
    pair: RunPair,
    entry: GoodhartEntry,
    own: Sequence[float],
    other: Sequence[float],
    labels: PairLabels,
    cards: Mapping[str, Path],
) -> GoodhartEntry:
    """Returns the entry with the inflation, if it can be told from the quality of the judges.

    Two judges that err at different, constant rates see different gains although none was
    exploited. So the gain of each is divided by its Youden index (sensitivity + specificity - 1)
    over the range that its card leaves open; labels of both runs replace the independent judge.
    """
    question = entry.question
    of_optimised = _youden_range(pair, (entry.optimised, question), cards)
    if of_optimised is None:
        return replace(entry, note=_unknown_quality(entry.optimised))
    corrected = labels.corrected(entry.optimised, question)
    if corrected is not None:
        sign = -1.0 if question in LOWER_IS_BETTER else 1.0
        true_gain = _scaled(corrected, sign)
        claimed = _range_over([_scaled(mean_difference_interval(own), 1 / j) for j in of_optimised])
        note = "the gain by people's labels stands for the independent judge"
        return replace(entry, inflation=_minus(claimed, true_gain), note=note)
    if entry.independent is None:
        note = "no judge of another lineage scored both runs: nothing confirms the gain"
        return replace(entry, note=note)
    if not other:
        return replace(entry, note="the two judges scored too few prompts in common")
    of_independent = _youden_range(pair, (entry.independent, question), cards)
    if of_independent is None:
        return replace(entry, note=_unknown_quality(entry.independent))
    corners = [
        mean_difference_interval([x / j - y / k for x, y in zip(own, other)])
        for j in of_optimised
        for k in of_independent
    ]
    return replace(entry, inflation=_range_over(corners))


def _unknown_quality(judge: str) -> str:
    return (
        f"cannot be told: without a card of {judge}, or with one too near to chance, constant "
        "errors of the judges look like a gain"
    )


def _youden_range(
    pair: RunPair, key: ColumnKey, cards: Mapping[str, Path]
) -> tuple[float, float, float] | None:
    """Returns a judge's Youden index by its card: as estimated, lowest, highest; None if
    unknown.
    """
    facts = facts_of_judge(pair.a.columns[key].record, cards)
    if facts is None or facts.sensitivity is None or facts.specificity is None:
        return None
    lowest = facts.sensitivity.lower + facts.specificity.lower - 1
    if lowest < MIN_YOUDEN:
        return None
    return (
        facts.sensitivity.estimate + facts.specificity.estimate - 1,
        lowest,
        facts.sensitivity.upper + facts.specificity.upper - 1,
    )


def _scaled(i: Interval, factor: float) -> Interval:
    ends = sorted((i.lower * factor, i.upper * factor))
    return Interval(i.estimate * factor, ends[0], ends[1], i.method)


def _range_over(intervals: Sequence[Interval]) -> Interval:
    """Returns the first estimate with the lowest and the highest end of all intervals."""
    return Interval(
        intervals[0].estimate,
        min(i.lower for i in intervals),
        max(i.upper for i in intervals),
        "paired by prompt, over the range of the judges' cards",
    )


def _minus(a: Interval, b: Interval) -> Interval:
    """Returns a - b of independent estimates, squared distances added (Zou & Donner 2008)."""
    estimate = a.estimate - b.estimate
    return Interval(
        estimate,
        estimate - math.hypot(a.estimate - a.lower, b.upper - b.estimate),
        estimate + math.hypot(a.upper - a.estimate, b.estimate - b.lower),
        a.method,
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


def _mean_verdicts(table: VerdictTable, column: VerdictColumn) -> dict[int, float]:
    return dict(prompt_means(verdict_codes(table, column), range(table.size)))


def _verdict_gains(pair: RunPair, key: ColumnKey) -> dict[int, float]:
    """Returns prompt -> how much better the second run is by a judge's verdicts."""
    a = _mean_verdicts(pair.a, pair.a.columns[key])
    b = _mean_verdicts(pair.b, pair.b.columns[key])
    sign = -1.0 if key[1] in LOWER_IS_BETTER else 1.0
    by_position = {position: sign * (b[position] - a[position]) for position in a if position in b}
    return _by_prompt(pair, by_position)


def _by_prompt(pair: RunPair, by_position: Mapping[int, float]) -> dict[int, float]:
    """Returns prompt -> mean over its samples: these are not independent."""
    values: dict[int, list[float]] = {}
    for position, value in by_position.items():
        values.setdefault(pair.a.prompt_ids[position], []).append(value)
    return {prompt: sum(v) / len(v) for prompt, v in values.items()}


def _standardised_gains(pair: RunPair, key: ColumnKey) -> dict[int, float]:
    """Returns prompt -> gain in standard deviations of the baseline, by values or verdicts."""
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
    by_position = {
        position: sign * (b[position] - a[position]) / deviation for position in a if position in b
    }
    return _by_prompt(pair, by_position)


def _mean_values(table: VerdictTable, positions: Sequence[int], key: ColumnKey) -> dict[int, float]:
    """Returns position in the pair -> mean of the values that a judge gave.

    Read from the run folder, since `positions` are those of the whole run.
    """
    sample_ids = [sample.id for sample in read_run_records(table.path, "samples.jsonl", _Id)]
    paired_position = {sample_ids[original]: i for i, original in enumerate(positions)}
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
