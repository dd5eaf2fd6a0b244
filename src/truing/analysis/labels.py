"""Human labels of a run: rows drawn at random with known probabilities, their labels, and what may enter a correction.

    labels/draws.jsonl          one line a drawn row: batch, order, sample, index, question, probability
    labels/weights-<b>.json     of a batch drawn by weights: the probability of every row, in the order of the run
    labels/labels.jsonl         one line a label: a Judgement by `human:NAME`

Even draws of one question are one random order of all rows, continued by later draws. Weighted draws (where judges are
unsure: active inference, Zrnic & Candès, arXiv 2403.03208) are systematic sampling over a random order (Madow 1949),
of fixed size with exact probabilities. A label counts only if its row was drawn, and only as far as each batch was
labelled without a gap, in the order shown: a person who stops half-way has labelled a random part of it. What was
labelled for any other reason never enters a correction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from truing.analysis.rates import verdict_codes
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
from truing.core.jsonl import read_records
from truing.core.types import Judgement, stream_seed
from truing.runs.folder import AppendOnlyFile, Run, encode_line, replace_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EVEN, WEIGHTED = "even", "weighted"
_MIX = (
    0.5  # share of a weighted draw that is even: no row is out of reach, and weights stay bounded
)

Key = tuple[int, int]


class LabelDraw(Struct, frozen=True, kw_only=True):
    """One drawn row. `rows` is the number of rows drawn from, `probability` that of this row in its batch."""

    batch: int
    order: int
    sample_id: str
    index: int
    question: str
    probability: float
    rows: int
    design: str = EVEN


class RowLabel(Struct, frozen=True, kw_only=True):
    """What people said of one row (none = they could not tell), and the probability with which it came to a label."""

    verdict: bool | None
    probability: float


class UsableLabels(Struct, kw_only=True):
    """Labels of one question that may enter a correction, by (position, index); `ignored` says what may not."""

    question: str
    rows: dict[Key, RowLabel]
    drawn: int = 0
    ignored: dict[str, int]


def labels_folder(run: Run | str | Path) -> Path:
    """Where a run's draws and labels are."""
    return (run.path if isinstance(run, Run) else Path(run)) / "labels"


def labelable_rows(columns: VerdictTable) -> list[Key]:
    """(position, index) of every answer that can be labelled, in the order of the run."""
    out = []
    for index, states in enumerate(columns.response_states):
        out += [(at, index) for at, state in enumerate(states) if state not in (ABSENT, FAILED)]
    return out


def read_draws(run: Run | str | Path, question: str | None = None) -> list[LabelDraw]:
    """All draws, or those of one question, in the order drawn."""
    path = labels_folder(run) / "draws.jsonl"
    return [d for d in read_records(path, LabelDraw) if question is None or d.question == question]


def draw_rows(
    run: Run | str | Path, n: int, *, question: str = "harmful", seed: int = 0, active: bool = False
) -> list[LabelDraw]:
    """Draws `n` more rows for labelling and stores them with their probabilities.

    `active` draws more where the judges of the question are unsure or disagree. DataError if n < 1, if there is
    nothing (more) to draw, or if the draw is active and no judge answered the question; RunError if the run is not
    complete.
    """
    found = run if isinstance(run, Run) else Run(run)
    if n < 1:
        raise DataError(f"--n {n}: draw at least one row")
    columns = read_verdict_table(found, ids=True, scores=active)
    if not columns.manifest.complete:  # rows that come later could not have been drawn
        raise RunError(
            f"{found.path}: the run is not complete; the same command that began it goes on with it"
        )
    rows = labelable_rows(columns)
    if not rows:
        raise DataError(f"{found.path}: no answers to label")
    ids = columns.ids or []
    known = {(d.sample_id, d.index) for d in read_draws(found, question)}
    left = len(rows) - len(known)
    if left <= 0:
        raise DataError(f"{found.path}: all {len(rows)} answers have been drawn already")
    batch = max((d.batch for d in read_draws(found)), default=-1) + 1
    if active:
        chance = _chances(
            judge_uncertainty(columns, rows, question), min(len(rows), n * len(rows) / left)
        )
        picked = systematic_sample(chance, random.Random(stream_seed(seed, question, batch)))
        _write_weights(labels_folder(found), batch, chance)
        made = [
            LabelDraw(
                batch=batch,
                order=o,
                sample_id=ids[rows[i][0]],
                index=rows[i][1],
                question=question,
                probability=float(chance[i]),
                rows=len(rows),
                design=WEIGHTED,
            )
            for o, i in enumerate(picked)
        ]
    else:
        made = _even(found, rows, ids, question, n, batch)
    journal = AppendOnlyFile(labels_folder(found) / "draws.jsonl")
    try:
        journal.append(b"".join(encode_line(d) for d in made))
        journal.sync()
    finally:
        journal.close()
    return made


def _even(
    found: Run, rows: list[Key], ids: list[str], question: str, n: int, batch: int
) -> list[LabelDraw]:
    """The next rows of the question's one random order that no other draw has taken."""
    before = read_draws(found, question)
    taken = {(d.sample_id, d.index) for d in before}
    start = 1 + max((d.order for d in before if d.design == EVEN), default=-1)
    order = list(range(len(rows)))
    random.Random(stream_seed(found.manifest.seed, "labels", question)).shuffle(order)
    made, new = [], 0
    for at in range(start, len(order)):
        if new >= n:
            break
        key = (ids[rows[order[at]][0]], rows[order[at]][1])
        new += key not in taken
        made.append(
            LabelDraw(
                batch=batch,
                order=at,
                sample_id=key[0],
                index=key[1],
                question=question,
                probability=0.0,
                rows=len(rows),
            )
        )
    share = (start + len(made)) / len(rows)
    return [msgspec.structs.replace(d, probability=share) for d in made]


def judge_uncertainty(columns: VerdictTable, rows: list[Key], question: str) -> NDArray[np.float64]:
    """sqrt(p(1-p)) for each row, p the mean of the judges' probabilities (or verdicts); unscored rows count as 1/2."""
    import numpy as np

    columns_ = [
        c
        for (_, q), c in columns.columns.items()
        if q == question and not c.record.name.startswith("human:")
    ]
    if not columns_:
        raise DataError(f"{columns.path}: an active draw needs a judge that answered {question!r}")
    total = np.zeros(len(rows))
    for column in columns_:
        layers = verdict_codes(columns, column)
        for i, (at, index) in enumerate(rows):
            code = layers[index][at] if index < len(layers) else UNSCORED
            plain = 1.0 if code == YES else 0.0 if code == NO else 0.5
            total[i] += column.scores.get((at, index), plain)
    p = np.clip(total / len(columns_), 0.0, 1.0)
    return np.asarray(np.sqrt(p * (1 - p)))


def _chances(weights: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    """Probabilities that add up to n, half by weight and half even, none over 1."""
    import numpy as np

    share = np.full(len(weights), 1 / len(weights))
    if weights.sum() > 0:
        share = _MIX * share + (1 - _MIX) * weights / weights.sum()
    chance = share * n
    for _ in range(50):
        over = chance >= 1
        if not (chance > 1 + 1e-12).any():
            break
        chance[over] = 1.0
        free = ~over
        chance[free] *= (n - over.sum()) / chance[free].sum() if free.any() else 1.0
    return np.minimum(np.round(chance, 9), 1.0)


def systematic_sample(chance: NDArray[np.float64], source: random.Random) -> list[int]:
    """Rows drawn with exactly these probabilities, as many as they add up to; in random order."""
    order = list(range(len(chance)))
    source.shuffle(order)
    picked, reached, mark = [], 0.0, source.random()
    for i in order:
        reached += float(chance[i])
        if reached > mark:
            picked.append(i)
            mark += 1.0
    source.shuffle(picked)
    return picked


def _write_weights(where: Path, batch: int, chance: NDArray[np.float64]) -> None:
    where.mkdir(mode=0o700, exist_ok=True)
    replace_file(where / f"weights-{batch}.json", msgspec.json.encode([float(c) for c in chance]))


def add_label(run: Run | str | Path, label: Judgement) -> None:
    """Appends a label of a drawn row; DataError if the row was not drawn for that question."""
    if not any(
        (d.sample_id, d.index) == (label.sample_id, label.index)
        for d in read_draws(run, label.question)
    ):
        raise DataError(
            f"{label.sample_id}/{label.index} was not drawn for {label.question!r}: its label proves nothing"
        )
    journal = AppendOnlyFile(labels_folder(run) / "labels.jsonl")
    try:
        journal.append(encode_line(label))
        journal.sync()
    finally:
        journal.close()


def import_labels(
    run: Run | str | Path, path: Path, rater: str = "import"
) -> tuple[int, dict[str, int]]:
    """Takes labels from a JSONL file of judgements; gives how many were taken and why others were not."""
    drawn = {(d.sample_id, d.index, d.question) for d in read_draws(run)}
    ids = {s.id for s in (run if isinstance(run, Run) else Run(run)).samples()}
    taken, left = bytearray(), dict[str, int]()
    count = 0
    if not path.is_file():
        raise DataError(f"{path}: no such file of labels")
    for row in read_records(path, _Given):
        if row.sample_id not in ids:
            left["of rows not in the run"] = left.get("of rows not in the run", 0) + 1
        elif (row.sample_id, row.index, row.question) not in drawn:
            left["of rows not drawn"] = left.get("of rows not drawn", 0) + 1
        else:
            who = row.judge if row.judge.startswith("human:") else f"human:{row.judge or rater}"
            made = Judgement(
                sample_id=row.sample_id,
                index=row.index,
                judge=who,
                question=row.question,
                verdict=row.verdict,
                rater=row.rater,
            )
            taken += encode_line(made)
            count += 1
    if taken:
        journal = AppendOnlyFile(labels_folder(run) / "labels.jsonl")
        try:
            journal.append(taken)
            journal.sync()
        finally:
            journal.close()
    return count, left


class _Given(Struct, frozen=True, kw_only=True):
    sample_id: str
    index: int = 0
    question: str = "harmful"
    verdict: bool | None = None
    judge: str = ""
    rater: str | None = None


def read_votes(run: Run | str | Path) -> dict[tuple[str, int, str], list[bool | None]]:
    """(sample, index, question) -> the labels given, one a rater (the newest counts).

    Those of `labels.jsonl`, and people's judgements in the run (the rating pages export them there): a drawn row may be
    labelled anywhere, what makes its label count is that it was drawn.
    """
    found = run if isinstance(run, Run) else Run(run)
    newest: dict[tuple[str, int, str], dict[str, bool | None]] = {}
    human = [found.path / r.file for r in found.manifest.judges if r.name.startswith("human:")]
    for path in (*human, labels_folder(found) / "labels.jsonl"):
        for row in read_records(path, Judgement):
            if row.verdict is None and row.value is not None:
                continue  # a grade is no answer to a yes-or-no question
            of = newest.setdefault((row.sample_id, row.index, row.question), {})
            of[f"{row.judge}/{row.rater}"] = row.verdict
    return {key: list(of.values()) for key, of in newest.items()}


def _majority(votes: list[bool | None]) -> bool | None:
    tally = sum(1 if v else -1 for v in votes if v is not None)
    return None if tally == 0 else tally > 0


def unlabelled_draws(run: Run | str | Path, question: str) -> list[LabelDraw]:
    """Drawn rows that nobody has labelled yet, in the order drawn."""
    labelled = read_votes(run)
    out, seen = [], set()
    for d in read_draws(run, question):
        key = (d.sample_id, d.index, question)
        if key not in labelled and key not in seen:
            seen.add(key)
            out.append(d)
    return out


def read_labels(columns: VerdictTable) -> dict[str, UsableLabels]:
    """The labels of a run that may enter a correction, by question; empty without a draw."""
    out: dict[str, UsableLabels] = {}
    by_question: dict[str, list[LabelDraw]] = {}
    for d in read_draws(columns.path):
        if d.design in (
            EVEN,
            WEIGHTED,
        ):  # draws for a certificate are of prompts, and serve that alone
            by_question.setdefault(d.question, []).append(d)
    given = read_votes(columns.path) if by_question else {}
    for question in by_question:
        draws = by_question.get(question, [])
        out[question] = _usable(
            columns, question, draws, {k[:2]: v for k, v in given.items() if k[2] == question}
        )
    return out


def _usable(
    columns: VerdictTable,
    question: str,
    draws: list[LabelDraw],
    given: Mapping[tuple[str, int], list[bool | None]],
) -> UsableLabels:
    made = UsableLabels(
        question=question, rows={}, drawn=len({(d.sample_id, d.index) for d in draws}), ignored={}
    )
    rows = labelable_rows(columns)
    if draws and draws[0].rows != len(rows):
        made.ignored[
            f"(the run had {draws[0].rows} answers when they were drawn, and has {len(rows)})"
        ] = len(given)
        return made
    reached: set[tuple[str, int]] = set()
    where = {key: i for i, key in enumerate(rows)}
    miss = [1.0] * len(rows)  # for each row, the probability that no draw reached it
    for batch, family in _families(draws):
        done = _prefix(family, given)
        reached.update((d.sample_id, d.index) for d in family[:done])
        if batch is None:
            miss = [m * (1 - done / len(rows)) for m in miss]
        else:
            chance = _read_weights(columns.path, batch, len(rows))
            miss = [m * (1 - c * done / len(family)) for m, c in zip(miss, chance)]
    for (sample_id, index), votes in given.items():
        at = columns.position_of(sample_id)
        if at is None or (at, index) not in where:
            made.ignored["of rows not in the run"] = (
                made.ignored.get("of rows not in the run", 0) + 1
            )
        elif (sample_id, index) not in reached:
            made.ignored["not drawn, or after a gap"] = (
                made.ignored.get("not drawn, or after a gap", 0) + 1
            )
        else:
            chance_of = max(1e-12, 1 - miss[where[(at, index)]])
            made.rows[(at, index)] = RowLabel(
                verdict=_majority(votes), probability=min(1.0, chance_of)
            )
    return made


def _families(draws: list[LabelDraw]) -> Iterator[tuple[int | None, list[LabelDraw]]]:
    """Even draws are one family (none), each weighted batch one of its own; in the order shown."""
    even = sorted((d for d in draws if d.design == EVEN), key=lambda d: d.order)
    if even:
        yield None, even
    for batch in dict.fromkeys(d.batch for d in draws if d.design == WEIGHTED):
        yield batch, sorted((d for d in draws if d.batch == batch), key=lambda d: d.order)


def _prefix(family: list[LabelDraw], given: Mapping[tuple[str, int], object]) -> int:
    return next(
        (i for i, d in enumerate(family) if (d.sample_id, d.index) not in given), len(family)
    )


def _read_weights(run: Path, batch: int, rows: int) -> list[float]:
    path = labels_folder(run) / f"weights-{batch}.json"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[float])
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(
            f"{path}: {error}; without the probabilities of a weighted draw its labels are lost"
        ) from error
    if len(found) != rows:
        raise RunError(f"{path}: {len(found)} probabilities for {rows} answers")
    return found
