"""Refines the deltas of a comparison by labels, by judge cards, and by sequences.

Labels drawn in both runs give corrected deltas; a card of the judge gives transported ones; and
where a run was stopped by its own figures, a betting sequence replaces interval and p value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from truing.analysis.card_files import read_card
from truing.analysis.corrections import (
    LabelledPair,
    collect_labelled_pair,
    corrected_difference_interval,
    count_labels,
)
from truing.analysis.deltas import Delta
from truing.analysis.labels import UsableLabels, use_labels
from truing.analysis.pairing import RunPair
from truing.analysis.rates import ALL_AXES, AXES, PREDICTED_SUFFIX, belongs_to_category
from truing.analysis.stopped_runs import draw_order, drawn_prompt_means, stopped_early
from truing.analysis.summary import RunSummary, summarise
from truing.analysis.transport import check_card_matches, transport_difference
from truing.analysis.verdict_table import VerdictTable, read_verdict_table
from truing.runs.folder import Run
from truing.stats.intervals import Interval
from truing.stats.sequential import PairedBettingSequence


def refine_deltas(
    pair: RunPair,
    deltas: Sequence[Delta],
    labels: PairLabels,
    cards: Mapping[str, Path] | None,
) -> list[Delta]:
    """Applies all three refinements where they are possible. `cards`: judge -> card.json."""
    refined = add_corrected_deltas(labels, deltas)
    if cards:
        refined = add_transported_deltas(pair, refined, cards)
    return use_paired_sequences(pair, refined)


def add_corrected_deltas(
    labels: PairLabels, deltas: Sequence[Delta], level: float = 0.95
) -> list[Delta]:
    """Returns the deltas with the corrected difference, if both runs have drawn labels."""
    if not labels.exist:
        return list(deltas)
    return [
        replace(delta, corrected=interval)
        if (interval := labels.corrected(delta.judge, delta.question, level, delta.category))
        else delta
        for delta in deltas
    ]


class PairLabels:
    """People's labels of two paired runs that may enter a correction.

    Only labels of rows that were drawn at random, as recorded in the run, do; see `labels`.
    """

    def __init__(self, pair: RunPair) -> None:
        self._pair = pair
        self.exist = all(
            (table.path / "labels" / "draws.jsonl").is_file() for table in (pair.a, pair.b)
        )
        self._by_question: list[dict[str, UsableLabels]] = []
        if self.exist:
            self._by_question = [
                _labels_by_paired_position(pair.a.path, pair.positions_a),
                _labels_by_paired_position(pair.b.path, pair.positions_b),
            ]
        self._pairs: dict[tuple[str, str], LabelledPair | None] = {}

    def corrected(
        self, judge: str, question: str, level: float = 0.95, category: str | None = None
    ) -> Interval | None:
        """Returns the corrected change of a question or axis; None unless both have labels."""
        labelled = self._labelled_pair(judge, question)
        return corrected_difference_interval(labelled, category, level) if labelled else None

    def count(self, judge: str, question: str) -> tuple[int, int]:
        """Returns how many labels of the prompts concerned the runs have."""
        labelled = self._labelled_pair(judge, question)
        return count_labels(labelled) if labelled else (0, 0)

    def _labelled_pair(self, judge: str, question: str) -> LabelledPair | None:
        """Returns the labelled verdicts of a judge; None if a run has no labels of its question."""
        key = (judge, question)
        if key not in self._pairs:
            self._pairs[key] = self._collect(judge, question) if self.exist else None
        return self._pairs[key]

    def _collect(self, judge: str, question: str) -> LabelledPair | None:
        axis = question if question in AXES or question == "answers_benign" else ""
        if question == "answers_benign":
            judge_question = "refused"
        else:
            judge_question = AXES[question].question if axis else question
        a, b = self._pair.a, self._pair.b
        column_a = a.columns.get((judge, judge_question))
        column_b = b.columns.get((judge, judge_question))
        if column_a is None or column_b is None or column_a.is_human:
            return None
        usable = [
            of_run[judge_question] for of_run in self._by_question if judge_question in of_run
        ]
        if len(usable) < 2:
            return None
        return collect_labelled_pair(a, b, column_a, column_b, usable, axis)


def _labels_by_paired_position(run: Path, positions: Sequence[int]) -> dict[str, UsableLabels]:
    """Returns a run's usable labels by question, with positions as in the pair."""
    paired_position = {original: i for i, original in enumerate(positions)}
    by_question = {}
    for question, labels in use_labels(read_verdict_table(run)).items():
        rows = {
            (paired_position[position], index): label
            for (position, index), label in labels.rows.items()
            if position in paired_position
        }
        by_question[question] = replace(labels, rows=rows)
    return by_question


def add_transported_deltas(
    pair: RunPair, deltas: Sequence[Delta], cards: Mapping[str, Path]
) -> list[Delta]:
    """Returns the deltas with the transported difference.

    None where the raw rate of either run contradicts the card. Raises DataError for a card of
    another version of its judge.
    """
    transported = list(deltas)
    for judge, path in cards.items():
        if all(delta.judge != judge for delta in transported):
            continue  # not in both runs, or in two versions
        card = read_card(path)
        summaries: list[RunSummary] = []
        for table in (pair.a, pair.b):
            # Read again: the paired table holds shared judges with their strikes only.
            manifest = Run(table.path).manifest
            record = next((r for r in manifest.judges if r.name == judge), None)
            if record is not None:
                check_card_matches(card, record, path)
                summaries.append(summarise(table.path, {judge: path}))
        if len(summaries) < 2:
            continue
        for i, delta in enumerate(transported):
            if delta.judge != judge:
                continue
            if delta.estimate is None or delta.lower is None or delta.upper is None:
                continue
            interval = None
            if all(_is_transportable(summary, delta) for summary in summaries):
                question = delta.question  # cards know the judge's questions, not the axes
                if question in AXES:
                    question = AXES[question].question
                raw = Interval(delta.estimate, delta.lower, delta.upper, delta.method)
                interval = transport_difference(raw, card, question)
            transported[i] = replace(delta, transported=interval)
    return transported


def _is_transportable(summary: RunSummary, delta: Delta) -> bool:
    rate = summary.find(delta.question, delta.category, delta.judge)
    return (
        rate is not None and rate.transported is not None and rate.transported.estimate is not None
    )


def use_paired_sequences(pair: RunPair, deltas: Sequence[Delta]) -> list[Delta]:
    """Returns deltas by a betting sequence without p values, if a run was stopped by its figures.

    The pairs enter in the order in which the stopped run drew them, the second run's if both were
    stopped. Without such a sequence nothing is claimed: the interval is [-1, 1].
    """
    if stopped_early(pair.b):
        stopped, positions = pair.b, pair.positions_b
    elif stopped_early(pair.a):
        stopped, positions = pair.a, pair.positions_a
    else:
        return list(deltas)
    # The order is that of the whole run; samples outside the pair are passed over.
    paired_position = {original: i for i, original in enumerate(positions)}
    order = draw_order(read_verdict_table(stopped.path))
    drawn = [paired_position[position] for position in order if position in paired_position]
    return [_with_sequence(pair, delta, drawn) for delta in deltas]


def _with_sequence(pair: RunPair, delta: Delta, drawn: Sequence[int]) -> Delta:
    if delta.estimate is None:
        return delta
    delta = replace(delta, p=None, p_adjusted=None, p_fdr=None, pooled=None)
    means_a, means_b = (_means_behind(table, delta, drawn) for table in (pair.a, pair.b))
    sequence = PairedBettingSequence()
    for position in drawn:
        if position in means_a and position in means_b:
            sequence.add(means_a[position], means_b[position])
    if not sequence.n:
        return replace(delta, lower=-1.0, upper=1.0)
    i = sequence.interval()
    return replace(delta, estimate=i.estimate, lower=i.lower, upper=i.upper, method=i.method)


def _means_behind(table: VerdictTable, delta: Delta, drawn: Sequence[int]) -> dict[int, float]:
    """Returns position -> mean verdict of the prompts behind a delta, in one run."""
    if delta.question.endswith(PREDICTED_SUFFIX):
        return {}
    axis = delta.question in ALL_AXES
    return {
        position: mean
        for position, mean in drawn_prompt_means(table, delta.judge, delta.question, drawn)
        if belongs_to_category(table, position, delta.category, axis=axis)
    }
