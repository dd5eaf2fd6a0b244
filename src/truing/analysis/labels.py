"""People's labels of drawn rows, and which of them may enter a correction.

    labels/labels.jsonl         one line per label: a Judgement by `human:NAME`

A label counts only if its row was drawn (`label_draws`), and only as far as each batch was
labelled without a gap in the order shown: a person who stops half-way has labelled a random part
of it. Rows that were labelled for any other reason never enter a correction.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from truing.analysis.label_draws import (
    EVEN,
    WEIGHTED,
    Key,
    LabelDraw,
    labelable_rows,
    read_draws,
    read_weights,
)
from truing.analysis.label_files import append_lines, labels_folder
from truing.analysis.looks import Look, label_subject, record_look, was_fixed
from truing.analysis.verdict_table import VerdictTable
from truing.core.errors import DataError, TruingError
from truing.core.jsonl import read_records
from truing.core.types import AnswerIndex, Judgement
from truing.runs.folder import Run, encode_line
from truing.runs.parts import read_run_records

RowKey = tuple[str, int]  # (sample id, answer index)


class RowLabel(Struct, frozen=True, kw_only=True):
    """The label of one row (None: people could not tell), and the probability that it was drawn."""

    verdict: bool | None
    probability: float


class UsableLabels(Struct, kw_only=True):
    """The labels of one question that may enter a correction, by (position, index).

    `drawn` is the number of drawn rows; `ignored` counts the labels left out, by reason. `planned`
    says that their number was fixed at the draw (`draw_rows(fixed=True)`): there is no other draw,
    all of it is labelled, and nobody looked before. Otherwise people may have looked, or may look
    again, and intervals have to allow for it.
    """

    question: str
    rows: dict[Key, RowLabel] = field(default_factory=dict)
    drawn: int = 0
    planned: bool = False
    ignored: Counter[str] = field(default_factory=Counter)


class _ImportedLabel(Struct, frozen=True, kw_only=True):
    sample_id: str
    index: AnswerIndex = 0
    question: str = "harmful"
    verdict: bool | None = None
    judge: str = ""
    rater: str | None = None


def add_label(run: Run | str | Path, label: Judgement) -> None:
    """Appends a label. Raises DataError if its row was not drawn for that question."""
    drawn = {(draw.sample_id, draw.index) for draw in read_draws(run, label.question)}
    if (label.sample_id, label.index) not in drawn:
        raise DataError(
            f"{label.sample_id}/{label.index} was not drawn for {label.question!r}: "
            "its label proves nothing about the run"
        )
    append_lines(labels_folder(run) / "labels.jsonl", encode_line(label))


def import_labels(
    run: Run | str | Path, path: Path, rater: str = "import"
) -> tuple[int, dict[str, int]]:
    """Takes labels from a JSONL file of judgements.

    Returns the number of labels taken, and of those left out, by reason. `rater` names the labels
    that name nobody. Raises DataError if there is no such file.
    """
    folder = run if isinstance(run, Run) else Run(run)
    drawn = {(draw.sample_id, draw.index, draw.question) for draw in read_draws(folder)}
    ids = {sample.id for sample in folder.samples()}
    if not path.is_file():
        raise DataError(f"{path}: no such file of labels")
    new_labels: list[bytes] = []
    left_out: Counter[str] = Counter()
    for row in read_records(path, _ImportedLabel):
        if row.sample_id not in ids:
            left_out["of rows not in the run"] += 1
        elif (row.sample_id, row.index, row.question) not in drawn:
            left_out["of rows not drawn"] += 1
        else:
            is_human = row.judge.startswith("human:")
            label = Judgement(
                sample_id=row.sample_id,
                index=row.index,
                judge=row.judge if is_human else f"human:{row.judge or rater}",
                question=row.question,
                verdict=row.verdict,
                rater=row.rater,
            )
            new_labels.append(encode_line(label))
    if new_labels:
        append_lines(labels_folder(folder) / "labels.jsonl", b"".join(new_labels))
    return len(new_labels), dict(left_out)


def read_votes(run: Run | str | Path) -> dict[tuple[str, int, str], list[bool | None]]:
    """Returns (sample, index, question) -> the labels given, the newest of each rater.

    From `labels.jsonl`, and from people's judgements in the run, where the rating pages export
    them: a drawn row may be labelled anywhere.
    """
    folder = run if isinstance(run, Run) else Run(run)
    by_rater: dict[tuple[str, int, str], dict[str, bool | None]] = {}
    judgements = [r.file for r in folder.manifest.judges if r.name.startswith("human:")]
    for name in (*judgements, "labels/labels.jsonl"):
        for row in read_run_records(folder.path, name, Judgement):
            if row.verdict is None and row.value is not None:
                continue  # a grade is no answer to a yes-or-no question
            votes = by_rater.setdefault((row.sample_id, row.index, row.question), {})
            # The rating pages export all raters under one judge, so both names identify a person.
            votes[f"{row.judge}/{row.rater}"] = row.verdict
    return {key: list(votes.values()) for key, votes in by_rater.items()}


def majority_vote(votes: Sequence[bool | None]) -> bool | None:
    """Returns what most raters who could tell say; None for a tie, or if nobody could tell."""
    balance = sum(1 if vote else -1 for vote in votes if vote is not None)
    return None if balance == 0 else balance > 0


def unlabelled_draws(run: Run | str | Path, question: str) -> list[LabelDraw]:
    """Returns the drawn rows without a label, each once, in the order drawn."""
    labelled = read_votes(run)
    # A row may be in several draws, but is shown once.
    waiting: dict[RowKey, LabelDraw] = {}
    for draw in read_draws(run, question):
        if (draw.sample_id, draw.index, question) not in labelled:
            waiting.setdefault((draw.sample_id, draw.index), draw)
    return list(waiting.values())


def use_labels(table: VerdictTable) -> dict[str, UsableLabels]:
    """Returns `read_labels`, for figures that somebody will see, and stores this look in the run.

    A folder that cannot be written to is no error: only a number fixed at the draw depends on it.
    """
    labels = read_labels(table)
    for question, usable in labels.items():
        if usable.rows:
            planned = usable.drawn if usable.planned else None
            look = Look(subject=label_subject(question), labels=len(usable.rows), planned=planned)
            with contextlib.suppress(OSError, TruingError):
                record_look(table.path, look)
    return labels


def read_labels(table: VerdictTable) -> dict[str, UsableLabels]:
    """Returns the labels of a run that may enter a correction, by question.

    Empty if nothing was drawn.
    """
    draws_by_question: dict[str, list[LabelDraw]] = {}
    for draw in read_draws(table.path):
        # Draws for a certificate are of prompts instead of answers, and serve only that.
        if draw.design in (EVEN, WEIGHTED):
            draws_by_question.setdefault(draw.question, []).append(draw)
    votes = read_votes(table.path) if draws_by_question else {}
    return {
        question: _select_usable(
            table,
            question,
            draws,
            {(id_, index): v for (id_, index, asked), v in votes.items() if asked == question},
        )
        for question, draws in draws_by_question.items()
    }


def _select_usable(
    table: VerdictTable,
    question: str,
    draws: Sequence[LabelDraw],
    votes: Mapping[RowKey, list[bool | None]],
) -> UsableLabels:
    n_drawn = len({(draw.sample_id, draw.index) for draw in draws})
    is_whole = all((draw.sample_id, draw.index) in votes for draw in draws)
    is_planned = is_whole and was_fixed(table.path, question, n_drawn)
    usable = UsableLabels(question=question, drawn=n_drawn, planned=is_planned)
    rows = labelable_rows(table)
    # The stored probabilities hold for the population drawn from, and for no other.
    if draws[0].rows != len(rows):
        reason = f"(the run had {draws[0].rows} answers when they were drawn, and has {len(rows)})"
        usable.ignored[reason] = len(votes)
        return usable
    labelled_draws, probabilities = _inclusion_probabilities(table.path, draws, votes, len(rows))
    row_of_key = {key: row for row, key in enumerate(rows)}
    for (sample_id, index), votes_of_row in votes.items():
        position = table.position_of(sample_id)
        if position is None or (position, index) not in row_of_key:
            usable.ignored["of rows not in the run"] += 1
        elif (sample_id, index) not in labelled_draws:
            usable.ignored["not drawn, or after a gap"] += 1
        else:
            probability = probabilities[row_of_key[(position, index)]]
            usable.rows[(position, index)] = RowLabel(
                verdict=majority_vote(votes_of_row),
                # The product above may be 0 or exceed 1 by rounding.
                probability=min(1.0, max(1e-12, probability)),
            )
    return usable


def _inclusion_probabilities(
    run: Path, draws: Sequence[LabelDraw], votes: Mapping[RowKey, object], n_rows: int
) -> tuple[set[RowKey], list[float]]:
    """Returns the drawn rows that count as labelled, and each row's probability to be one.

    The draws are independent, so a row is missed with the product of the probabilities that each
    draw misses it. Of a draw that is labelled in part, in random order, the labelled part counts.
    """
    labelled: set[RowKey] = set()
    miss = [1.0] * n_rows
    for batch, sequence in _draw_sequences(draws):
        done = _labelled_prefix(sequence, votes)
        labelled.update((draw.sample_id, draw.index) for draw in sequence[:done])
        if batch is None:
            miss = [m * (1 - done / n_rows) for m in miss]
        else:
            weights = read_weights(run, batch, n_rows)
            miss = [m * (1 - w * done / len(sequence)) for m, w in zip(miss, weights)]
    return labelled, [1 - m for m in miss]


def _draw_sequences(
    draws: Sequence[LabelDraw],
) -> Iterator[tuple[int | None, list[LabelDraw]]]:
    """Yields the draws that belong together, in the order shown.

    All even draws are one sequence (batch None); each weighted batch is one of its own.
    """
    even = sorted((draw for draw in draws if draw.design == EVEN), key=lambda draw: draw.order)
    if even:
        yield None, even
    for batch in dict.fromkeys(draw.batch for draw in draws if draw.design == WEIGHTED):
        yield (
            batch,
            sorted((draw for draw in draws if draw.batch == batch), key=lambda draw: draw.order),
        )


def _labelled_prefix(sequence: Sequence[LabelDraw], votes: Mapping[RowKey, object]) -> int:
    """Returns how many draws are labelled before the first that is not."""
    for i, draw in enumerate(sequence):
        if (draw.sample_id, draw.index) not in votes:
            return i
    return len(sequence)
