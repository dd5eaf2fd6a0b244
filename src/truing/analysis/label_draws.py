"""Rows drawn at random for people to label, with the probabilities of the draw.

    labels/draws.jsonl          one line per drawn row (`LabelDraw`)
    labels/weights-<b>.json     of a weighted batch b: the probability of every row of the run

Even draws of a question are one random order of all rows, continued by later draws. Weighted
draws favour rows on which judges are unsure (active inference: Zrnic & Candès, arXiv 2403.03208).
They are systematic samples over a random order (Madow 1949): of fixed size, with exact
probabilities.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from truing.analysis.label_files import append_lines, labels_folder
from truing.analysis.looks import fix_number
from truing.analysis.rates import verdict_codes
from truing.analysis.streamed_draws import answered_rows, draw_in_hash_order
from truing.analysis.streamed_summary import is_streamed
from truing.analysis.verdict_table import (
    ABSENT,
    FAILED,
    NO,
    UNSCORED,
    YES,
    VerdictTable,
    read_verdict_table,
)
from truing.core.errors import DataError, RunError
from truing.core.ids import stream_seed
from truing.core.private_files import create_folder, replace_file
from truing.core.types import AnswerIndex
from truing.runs.folder import Run, encode_line
from truing.runs.parts import read_run_records
from truing.runs.run_files import locate_run_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EVEN, WEIGHTED = "even", "weighted"
_EVEN_SHARE = 0.5
"""Share of a weighted draw that is even: no row is out of reach, and the weights stay bounded."""

Key = tuple[int, int]  # (position of the sample, index of the answer)


class LabelDraw(Struct, frozen=True, kw_only=True):
    """One drawn row.

    Attributes:
        batch: number of the draw in the run.
        order: rank of the row; in the question's one random order for an even draw, else in the
            batch. Rows are shown to people by rank.
        probability: of this row in its batch.
        rows: number of rows that were drawn from.
        design: ``even``, ``weighted``, or that of a certificate.
    """

    batch: int
    order: int
    sample_id: str
    index: AnswerIndex
    question: str
    probability: float
    rows: int
    design: str = EVEN


def labelable_rows(table: VerdictTable) -> list[Key]:
    """Returns (position, index) of every answer that can be labelled, in the order of the run."""
    return [
        (position, index)
        for index, states in enumerate(table.response_states)
        for position, state in enumerate(states)
        if state not in (ABSENT, FAILED)
    ]


def read_draws(run: Run | str | Path, question: str | None = None) -> list[LabelDraw]:
    """Returns all draws, or those of one question, in the order drawn."""
    draws = read_run_records(labels_folder(run).parent, "labels/draws.jsonl", LabelDraw)
    return [draw for draw in draws if question is None or draw.question == question]


def store_draws(run: Run | str | Path, draws: Sequence[LabelDraw]) -> None:
    """Appends draws to the run."""
    append_lines(labels_folder(run) / "draws.jsonl", b"".join(encode_line(d) for d in draws))


def draw_rows(
    run: Run | str | Path,
    n: int,
    *,
    question: str = "harmful",
    seed: int = 0,
    active: bool = False,
    fixed: bool = False,
) -> list[LabelDraw]:
    """Draws `n` more rows for labelling and stores them with their probabilities.

    Args:
        run: a complete run.
        n: number of rows; fewer are drawn if fewer are left.
        question: what people will be asked about each answer.
        seed: seed of an active draw; even draws use the run's.
        active: draw more rows where the judges of the question are unsure or disagree.
        fixed: these are all rows that will ever be labelled for the question, and nobody looks
            before they are: the corrected figures need not allow for looks, and are narrower.

    Raises:
        DataError: n < 1, nothing (more) to draw, an active draw without a judge, or a number that
            is fixed after an earlier draw.
        RunError: the run is not complete.
    """
    folder = run if isinstance(run, Run) else Run(run)
    if n < 1:
        raise DataError(f"--n {n}: draw at least one row")
    if is_streamed(folder):
        return _draw_from_parts(folder, n, question, active=active, fixed=fixed)
    table = read_verdict_table(folder, ids=True, scores=active)
    if not table.manifest.complete:  # rows that come later could not have been drawn
        raise RunError(
            f"{folder.path}: the run is not complete; repeat the command that began it to continue"
        )
    rows = labelable_rows(table)
    if not rows:
        raise DataError(f"{folder.path}: no answers to label")
    earlier = read_draws(folder, question)
    left = len(rows) - len({(draw.sample_id, draw.index) for draw in earlier})
    if left <= 0:
        raise DataError(f"{folder.path}: all {len(rows)} answers have been drawn already")
    if fixed and earlier:
        raise DataError(
            f"{folder.path}: {len(earlier)} rows were drawn for {question!r} before; a number is "
            "only fixed before the first"
        )
    batch = next_batch(folder)
    if active:
        # The sample also meets rows that were drawn before: n new ones need a larger sample.
        size = min(len(rows), n * len(rows) / left)
        probabilities = _draw_probabilities(judge_uncertainty(table, rows, question), size)
        draws = _draw_weighted(table, rows, probabilities, question, seed, batch)
        _write_weights(labels_folder(folder), batch, probabilities)
    else:
        draws = _draw_even(table, rows, earlier, question, n, batch)
    store_draws(folder, draws)
    if fixed:
        fix_number(folder, question, len({(draw.sample_id, draw.index) for draw in draws}))
    return draws


def _draw_from_parts(
    run: Run, n: int, question: str, *, active: bool, fixed: bool
) -> list[LabelDraw]:
    """Draws rows of a run that is too large for a table; raises DataError for an active draw."""
    if active:
        raise DataError(f"{run.path}: so large a run has even draws only; leave out --active")
    manifest = run.manifest
    if not manifest.complete:
        raise RunError(f"{run.path}: the run is not complete; continue it first")
    earlier = read_draws(run, question)
    if fixed and earlier:
        raise DataError(f"{run.path}: a number of labels is only fixed before the first draw")
    start = len(earlier)
    seed = stream_seed(manifest.seed, "labels", question)
    names, n_rows = draw_in_hash_order(answered_rows(run), start + n, seed, question)
    if len(names) == start:
        raise DataError(f"{run.path}: all {n_rows} answers have been drawn already")
    draws = [
        LabelDraw(
            batch=next_batch(run),
            order=rank,
            sample_id=name.sample_id,
            index=name.index,
            question=question,
            probability=len(names) / n_rows,
            rows=n_rows,
        )
        for rank, name in enumerate(names)
        if rank >= start
    ]
    store_draws(run, draws)
    if fixed:
        fix_number(run, question, len(draws))
    return draws


def next_batch(run: Run | str | Path) -> int:
    """Returns the number of the next draw of any question."""
    return max((draw.batch for draw in read_draws(run)), default=-1) + 1


def _draw_even(
    table: VerdictTable,
    rows: Sequence[Key],
    earlier: Sequence[LabelDraw],
    question: str,
    n: int,
    batch: int,
) -> list[LabelDraw]:
    """Draws the next rows of the question's one random order, up to n that were never drawn."""
    ids = table.ids or []
    drawn_rows = {(draw.sample_id, draw.index) for draw in earlier}
    start = 1 + max((draw.order for draw in earlier if draw.design == EVEN), default=-1)
    order = list(range(len(rows)))
    random.Random(stream_seed(table.manifest.seed, "labels", question)).shuffle(order)
    selected: list[tuple[int, str, int]] = []
    n_new = 0
    for rank in range(start, len(order)):
        if n_new >= n:
            break
        position, index = rows[order[rank]]
        n_new += (ids[position], index) not in drawn_rows  # weighted draws may have taken it
        selected.append((rank, ids[position], index))
    # Earlier even draws are the beginning of the same order, so each of its rows has the same
    # probability of being among all that were drawn so far.
    probability = (start + len(selected)) / len(rows)
    return [
        LabelDraw(
            batch=batch,
            order=rank,
            sample_id=sample_id,
            index=index,
            question=question,
            probability=probability,
            rows=len(rows),
        )
        for rank, sample_id, index in selected
    ]


def _draw_weighted(
    table: VerdictTable,
    rows: Sequence[Key],
    probabilities: NDArray[np.float64],
    question: str,
    seed: int,
    batch: int,
) -> list[LabelDraw]:
    ids = table.ids or []
    selected = systematic_sample(probabilities, random.Random(stream_seed(seed, question, batch)))
    return [
        LabelDraw(
            batch=batch,
            order=rank,
            sample_id=ids[rows[row][0]],
            index=rows[row][1],
            question=question,
            probability=float(probabilities[row]),
            rows=len(rows),
            design=WEIGHTED,
        )
        for rank, row in enumerate(selected)
    ]


def judge_uncertainty(
    table: VerdictTable, rows: Sequence[Key], question: str
) -> NDArray[np.float64]:
    """Returns sqrt(p (1 - p)) of each row, p being the mean probability over the judges.

    A judge without a probability counts with its verdict, an unscored row with 1/2. Raises
    DataError if no judge answered the question.
    """
    import numpy as np

    columns = [
        column
        for (_, asked), column in table.columns.items()
        if asked == question and not column.is_human
    ]
    if not columns:
        raise DataError(f"{table.path}: an active draw needs a judge that answered {question!r}")
    probability_of_code = {YES: 1.0, NO: 0.0}
    total = np.zeros(len(rows))
    for column in columns:
        codes = verdict_codes(table, column)
        for row, (position, index) in enumerate(rows):
            code = codes[index][position] if index < len(codes) else UNSCORED
            by_verdict = probability_of_code.get(code, 0.5)
            total[row] += column.scores.get((position, index), by_verdict)
    p = np.clip(total / len(columns), 0.0, 1.0)
    return np.asarray(np.sqrt(p * (1 - p)))


def _draw_probabilities(weights: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    """Returns probabilities that add up to n, half by weight and half even, none above 1."""
    import numpy as np

    share = np.full(len(weights), 1 / len(weights))
    if weights.sum() > 0:
        share = _EVEN_SHARE * share + (1 - _EVEN_SHARE) * weights / weights.sum()
    probabilities = share * n
    # Rows above 1 are cut, and the others scaled up to keep the sum, which may push some of them
    # above 1 in turn; a few rounds settle it.
    for _ in range(50):
        certain = probabilities >= 1
        if not (probabilities > 1 + 1e-12).any():
            break
        probabilities[certain] = 1.0
        free = ~certain
        if free.any():
            probabilities[free] *= (n - certain.sum()) / probabilities[free].sum()
    # Rounded, because the stored JSON must give the very numbers that were drawn with.
    return np.minimum(np.round(probabilities, 9), 1.0)


def systematic_sample(probabilities: NDArray[np.float64], source: random.Random) -> list[int]:
    """Returns indices drawn with exactly these probabilities, in random order.

    Their number is the sum of the probabilities, rounded up or down (Madow 1949).
    """
    order = list(range(len(probabilities)))
    source.shuffle(order)
    selected, cumulative, next_mark = [], 0.0, source.random()
    for row in order:
        cumulative += float(probabilities[row])
        if cumulative > next_mark:
            selected.append(row)
            next_mark += 1.0
    source.shuffle(selected)
    return selected


def _write_weights(folder: Path, batch: int, probabilities: NDArray[np.float64]) -> None:
    create_folder(folder)
    encoded = msgspec.json.encode([float(p) for p in probabilities])
    replace_file(folder / f"weights-{batch}.json", encoded)


def read_weights(run: Path, batch: int, rows: int) -> list[float]:
    """Returns the probability of every row in a weighted batch.

    Raises RunError if the file cannot be read, or has not `rows` probabilities.
    """
    path = locate_run_file(run, f"labels/weights-{batch}.json")
    try:
        probabilities = msgspec.json.decode(path.read_bytes(), type=list[float])
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(
            f"{path}: {error}; without the probabilities of a weighted draw its labels "
            "cannot be used"
        ) from error
    if len(probabilities) != rows:
        raise RunError(f"{path}: {len(probabilities)} probabilities for {rows} answers")
    return probabilities
