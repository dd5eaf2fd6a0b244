"""Refines the deltas of a comparison by labels, by judge cards, and by sequences.

Labels drawn in both runs give corrected deltas; a card of the judge gives transported ones; and
where a run was stopped by its own figures, a betting sequence replaces interval and p value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from truing.analysis.corrections import (
    LabelledPair,
    collect_labelled_pair,
    corrected_difference_interval,
)
from truing.analysis.deltas import Delta
from truing.analysis.judge_card import read_card
from truing.analysis.labels import UsableLabels, read_labels
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
    pair: RunPair, deltas: Sequence[Delta], cards: Mapping[str, Path] | None
) -> list[Delta]:
    """Applies all three refinements where they are possible. `cards`: judge -> card.json."""
    refined = add_corrected_deltas(pair, deltas)
    if cards:
        refined = add_transported_deltas(pair, refined, cards)
    return use_paired_sequences(pair, refined)


def add_corrected_deltas(pair: RunPair, deltas: Sequence[Delta]) -> list[Delta]:
    """Returns the deltas with the corrected difference, if both runs have drawn labels."""
    if not all((table.path / "labels" / "draws.jsonl").is_file() for table in (pair.a, pair.b)):
        return list(deltas)
    labels_a = _labels_by_paired_position(pair.a.path, pair.positions_a)
    labels_b = _labels_by_paired_position(pair.b.path, pair.positions_b)
    labelled: dict[tuple[str, str], LabelledPair | None] = {}
    corrected = []
    for delta in deltas:
        key = (delta.judge, delta.question)
        if key not in labelled:
            labelled[key] = _labelled_pair(pair, delta, labels_a, labels_b)
        verdicts = labelled[key]
        if verdicts is not None:
            interval = corrected_difference_interval(verdicts, delta.category)
            delta = replace(delta, corrected=interval)
        corrected.append(delta)
    return corrected


def _labels_by_paired_position(run: Path, positions: Sequence[int]) -> dict[str, UsableLabels]:
    """Returns a run's usable labels by question, with positions as in the pair."""
    paired_position = {original: i for i, original in enumerate(positions)}
    by_question = {}
    for question, labels in read_labels(read_verdict_table(run)).items():
        rows = {
            (paired_position[position], index): label
            for (position, index), label in labels.rows.items()
            if position in paired_position
        }
        by_question[question] = replace(labels, rows=rows)
    return by_question


def _labelled_pair(
    pair: RunPair,
    delta: Delta,
    labels_a: Mapping[str, UsableLabels],
    labels_b: Mapping[str, UsableLabels],
) -> LabelledPair | None:
    """Returns the labelled verdicts behind a delta; None if a run has no labels of its question."""
    axis = delta.question if delta.question in AXES or delta.question == "answers_benign" else ""
    if delta.question == "answers_benign":
        question = "refused"
    else:
        question = AXES[delta.question].question if axis else delta.question
    column_a = pair.a.columns.get((delta.judge, question))
    column_b = pair.b.columns.get((delta.judge, question))
    if column_a is None or column_b is None or column_a.is_human:
        return None
    labels = [of_run.get(question) for of_run in (labels_a, labels_b)]
    usable = [of_question for of_question in labels if of_question and of_question.rows]
    if len(usable) < 2:
        return None
    return collect_labelled_pair(pair.a, pair.b, column_a, column_b, usable, axis)


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
    delta = replace(delta, p=None, p_adjusted=None, p_fdr=None)
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
