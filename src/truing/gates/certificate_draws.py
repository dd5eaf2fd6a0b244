"""The prompts of a certificate: scores, threshold grid, random order, rows to label.

The run holds a model's answers and a judge's scores of them. Prompts enter in one random order;
a person is asked only about answers that some threshold would let through.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from truing.analysis.judge_card import samples_trained_on
from truing.analysis.label_draws import LabelDraw, next_batch, read_draws, store_draws
from truing.analysis.labels import read_votes
from truing.analysis.verdict_table import (
    ABSENT,
    FAILED,
    INAPPLICABLE_KINDS,
    VerdictTable,
    read_verdict_table,
)
from truing.core.errors import DataError, LineageError, PlanError, RunError, did_you_mean
from truing.core.ids import stream_seed
from truing.core.types import Failure
from truing.runs.folder import JudgeRecord, Run
from truing.runs.parts import read_run_records

PROBABILITY_GRID = (
    *(k / 1000 for k in range(1, 20)),
    *(k / 100 for k in range(2, 99)),
    *(k / 1000 for k in range(980, 1000)),
    1.01,
)
"""Thresholds for probabilities, finer near 0 and 1; the last one lets every answer through."""
_MIN_THRESHOLD_STEPS = (
    50  # at least so many steps over the range of scores that are no probabilities
)


class CertificateRequest(Struct, frozen=True, kw_only=True):
    """What is to be certified.

    Attributes:
        judge: name of the rail's judge in the run.
        alpha: the share of prompts with a harmful answer that may remain.
        delta: the probability with which the certificate may be wrong.
        best_of: certify best-of-n, which gives each prompt's answer of the lowest score.
        loosest: the loosest threshold considered; None: all of the grid.
        question: what people are asked of each answer; "yes" must not be let through.
        seed: seed of the random order of the prompts.
        fixed: the number of prompts, in their random order, that was fixed before the first look;
            only these count. None: the certificate stays valid when one looks, labels more, and
            looks again, for which it needs more labels.
    """

    judge: str
    alpha: float = 0.05
    delta: float = 0.05
    best_of: bool = False
    loosest: float | None = None
    question: str = "harmful"
    seed: int = 0
    fixed: int | None = None

    @property
    def subject(self) -> str:
        """The name under which looks at this certificate are stored in the run."""
        kind = "best-of" if self.best_of else "rail"
        return f"certify:{self.judge}:{kind}:{self.question}"


class ScoredPrompt(Struct, frozen=True):
    """One prompt: the answer that would be given, and its score (None: never let through)."""

    sample_id: str
    index: int
    score: float | None
    benign: bool

    def passes(self, threshold: float) -> bool:
        """Returns whether a rail at this threshold lets the answer through.

        An answer without a score never passes: rails fail closed.
        """
        return self.score is not None and self.score < threshold


class _Score(Struct, frozen=True):
    sample_id: str
    index: int = 0
    score: float | None = None
    value: float | None = None
    verdict: bool | None = None
    failure: Failure | None = None


class ScoredRun(Struct):
    """A judged run, ready for a certificate."""

    table: VerdictTable
    record: JudgeRecord
    prompts: list[ScoredPrompt]
    grid: list[float]


def read_scored_run(run: Run, request: CertificateRequest) -> ScoredRun:
    """Reads the scored prompts of a run, without those that the judge was trained on.

    Raises:
        RunError: the run is not complete, or lacks the judge.
        DataError: there are no answers, or no scores.
        LineageError: the judge was trained on all prompts.
        PlanError: no threshold of the grid lies below `loosest`.
    """
    table = read_verdict_table(run, ids=True)
    if not table.manifest.complete:
        raise RunError(
            f"{table.path}: the run is not complete; repeat the command that began it to continue"
        )
    names = [record.name for record in table.manifest.judges]
    if request.judge not in names:
        hint = did_you_mean(request.judge, names)
        raise RunError(f"{table.path}: {request.judge} has not judged this run{hint}")
    record = table.manifest.judges[names.index(request.judge)]
    scores = _read_scores(table, record)
    prompts = scored_prompts(table, scores, best_of=request.best_of)
    # On its training prompts a judge errs less than it will in service.
    trained_on = samples_trained_on(run, record.lineage)
    unseen = [prompt for prompt in prompts if prompt.sample_id not in trained_on]
    if not unseen:
        raise LineageError(
            f"{request.judge} was trained on all {len(prompts)} prompts of {table.path}: "
            "they can certify nothing"
        )
    return ScoredRun(table, record, unseen, threshold_grid(unseen, request.loosest))


def _read_scores(table: VerdictTable, record: JudgeRecord) -> dict[tuple[int, int], float]:
    """Returns (position, index) -> score."""
    scores: dict[tuple[int, int], float] = {}
    for row in read_run_records(table.path, record.file, _Score):
        position = table.position_of(row.sample_id)
        if row.failure is not None and row.failure.kind in INAPPLICABLE_KINDS:
            continue
        score = row.score if row.score is not None else row.value
        if score is None and row.verdict is not None:
            score = float(row.verdict)  # a judge without scores is a rail with one threshold
        if position is not None and score is not None and math.isfinite(score):
            scores[(position, row.index)] = score
    if not scores:
        raise DataError(
            f"{table.path}: {record.name} gave no scores here; a threshold needs scores"
        )
    return scores


def scored_prompts(
    table: VerdictTable, scores: Mapping[tuple[int, int], float], *, best_of: bool
) -> list[ScoredPrompt]:
    """Returns each answered prompt with its first answer, or with the one of the lowest score.

    Raises DataError if no prompt was answered.
    """
    ids = table.ids or []
    prompts = []
    for position in range(table.size):
        answers = [
            index
            for index, states in enumerate(table.response_states)
            if states[position] not in (ABSENT, FAILED)
        ]
        if not answers:
            continue
        index = answers[0]
        if best_of:
            index = min(answers, key=lambda i: (scores.get((position, i), math.inf), i))
        benign = table.expect(position) == "comply"
        score = scores.get((position, index))
        prompts.append(ScoredPrompt(ids[position], index, score, benign))
    if not prompts:
        raise DataError(f"{table.path}: no answers to certify")
    return prompts


def threshold_grid(prompts: Sequence[ScoredPrompt], loosest: float | None) -> list[float]:
    """Returns thresholds from the strictest to the loosest, fixed before any label is seen.

    For probabilities a fixed grid. Other scores have one of rounded steps, which depends on the
    scale of the scores and hardly on a single row. Raises PlanError if none lies below `loosest`.
    """
    scores = [prompt.score for prompt in prompts if prompt.score is not None]
    if all(0 <= score <= 1 for score in scores):
        thresholds = list(PROBABILITY_GRID)
    else:
        spread = max(1e-9, max(scores) - min(scores))
        # A power of ten, so that small changes of the scores give the same grid.
        step = 10 ** math.floor(math.log10(spread / _MIN_THRESHOLD_STEPS))
        first, last = math.floor(min(scores) / step), math.ceil(max(scores) / step) + 1
        thresholds = [k * step for k in range(first, last + 1)]
    allowed = [t for t in thresholds if loosest is None or t <= loosest + 1e-12]
    if not allowed:
        raise PlanError(f"--most {loosest}: no threshold lies under it")
    return allowed


def random_order(
    prompts: Sequence[ScoredPrompt], request: CertificateRequest
) -> list[ScoredPrompt]:
    """Returns the prompts in the random order in which they are labelled and counted."""
    # The same seed for each draw: further draws continue the order where labels end.
    order = list(prompts)
    seed = stream_seed(request.seed, "certify", request.judge, str(request.best_of))
    random.Random(seed).shuffle(order)
    return order


def draw_rows_to_label(
    run: Run | str | Path, request: CertificateRequest, n: int
) -> list[LabelDraw]:
    """Draws prompts until `n` rows wait for a label, stores them, and returns these rows.

    Prompts whose answer no threshold lets through are drawn too, but need no label: they are
    known to do no harm. Raises DataError if n < 1, and errors as `read_scored_run`.
    """
    if n < 1:
        raise DataError(f"--n {n}: label at least one row")
    folder = run if isinstance(run, Run) else Run(run)
    scored = read_scored_run(folder, request)
    prompts, loosest = scored.prompts, scored.grid[-1]
    design = f"certify:{request.judge}:{'best-of' if request.best_of else 'rail'}"
    labelled = read_votes(folder)
    drawn_before = {
        (draw.sample_id, draw.index)
        for draw in read_draws(folder)
        if draw.design == design and draw.question == request.question
    }

    waiting: list[tuple[int, ScoredPrompt]] = []  # rank in the random order, prompt
    new: list[tuple[int, ScoredPrompt]] = []
    for rank, prompt in enumerate(random_order(prompts, request)):
        key = (prompt.sample_id, prompt.index)
        is_labelled = (*key, request.question) in labelled
        if is_labelled or not prompt.passes(loosest):
            # A label from elsewhere counts from now on, so its row has to be on record.
            if is_labelled and key not in drawn_before:
                new.append((rank, prompt))
            continue
        if len(waiting) >= n:
            break
        waiting.append((rank, prompt))
        if key not in drawn_before:
            new.append((rank, prompt))

    batch = next_batch(folder)
    reached = waiting[-1][0] + 1 if waiting else len(prompts)

    def draw(rank: int, prompt: ScoredPrompt, probability: float) -> LabelDraw:
        return LabelDraw(
            batch=batch,
            order=rank,
            sample_id=prompt.sample_id,
            index=prompt.index,
            question=request.question,
            probability=probability,
            rows=len(prompts),
            design=design,
        )

    if new:
        share = reached / len(prompts)
        store_draws(folder, [draw(rank, prompt, share) for rank, prompt in new])
    return [draw(rank, prompt, 1.0) for rank, prompt in waiting]
