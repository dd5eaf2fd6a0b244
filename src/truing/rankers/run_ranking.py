"""Orders the answers of a run by a judge: `rankings/<judge>.jsonl`, `<judge>.preferences.jsonl`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.errors import RunError, UserError
from truing.core.lineage import find_judge_conflict
from truing.core.private_files import create_folder, replace_file
from truing.core.protocols import Judge
from truing.core.types import Dimension, Failure, Judgement, Preference, Response, Sample
from truing.http.limits import close_connections
from truing.rankers.figures import RankingFigure
from truing.rankers.judge_ranker import (
    AnswerOrder,
    lower_is_better,
    make_preferences,
    order_answers,
    worst_case_figures,
)
from truing.rankers.text_likelihood import ProgressCallback, map_in_batches
from truing.runs.folder import Run


class RunRanking(Struct, frozen=True, kw_only=True):
    """The result: numbers of samples, ordered samples and preferences, and the file of these."""

    judge: str
    samples: int
    ordered: int
    preferences: int
    file: str
    figures: tuple[RankingFigure, ...] = ()


def rank_run(
    path: str | Path,
    judge: Judge,
    *,
    dimension: Dimension | None = None,
    all_pairs: bool = False,
    on_progress: ProgressCallback | None = None,
) -> RunRanking:
    """Orders the answers of a finished run; existing judgements of this judge are reused.

    Raises UserError for a run without several answers a sample, and for a judge that chose or
    trained this model; RunError for an answer whose sample is missing.
    """
    run = Run(path)
    # A model that was trained on a judge's scores has learned to please it.
    why = find_judge_conflict(judge.lineage, run.manifest.lineage)
    if why:
        raise UserError(f"{judge.name} may not order the answers of this run: {why}")
    samples = {s.id: s for s in run.samples()}
    answers: dict[str, list[Response]] = {}
    for response in run.responses():
        if response.sample_id not in samples:
            raise RunError(
                f"{path}: the sample of the answer {response.sample_id[:80]!r} is missing: "
                "samples.jsonl is damaged"
            )
        if response.failure is None:
            answers.setdefault(response.sample_id, []).append(response)
    if not any(len(a) > 1 for a in answers.values()):
        raise UserError(
            f"{path}: the run has one answer a sample; sample several with truing evaluate --n 4 "
            "--temperature 0.7"
        )
    existing = {(j.sample_id, j.index): j for j in run.judgements(judge.name)}
    judgements = asyncio.run(_judge_answers(judge, samples, answers, existing, on_progress))
    lower = lower_is_better(judge)
    slug = re.sub(r"[^a-z0-9]+", "-", judge.name.lower()).strip("-")[:60] or "judge"
    orderings = [order_answers(name, slug, judgements[name], lower=lower) for name in answers]
    pair_dimension: Dimension = dimension or ("safe" if lower else "helpful")
    pairs = list(
        _make_all_preferences(orderings, samples, answers, pair_dimension, all_pairs=all_pairs)
    )
    folder = run.file("rankings/x").parent
    # Private to the user: the preferences hold the texts of the run.
    create_folder(folder)
    file = folder / f"{slug}.preferences.jsonl"
    _write_jsonl(folder / f"{slug}.jsonl", orderings)
    _write_jsonl(file, pairs)
    return RunRanking(
        judge=judge.name,
        samples=len(answers),
        ordered=sum(o.failure is None for o in orderings),
        preferences=len(pairs),
        file=str(file),
        figures=tuple(worst_case_figures([(n, j) for n, j in judgements.items()]) if lower else ()),
    )


def _make_all_preferences(
    orderings: list[AnswerOrder],
    samples: dict[str, Sample],
    answers: dict[str, list[Response]],
    dimension: Dimension,
    *,
    all_pairs: bool,
) -> Iterator[Preference]:
    for ordering in orderings:
        yield from make_preferences(
            samples[ordering.sample_id],
            answers[ordering.sample_id],
            ordering,
            dimension=dimension,
            all_pairs=all_pairs,
        )


async def _judge_answers(
    judge: Judge,
    samples: dict[str, Sample],
    answers: dict[str, list[Response]],
    existing: dict[tuple[str, int], Judgement],
    on_progress: ProgressCallback | None,
) -> dict[str, list[Judgement]]:
    rows = [r for group in answers.values() for r in group]

    async def ask(response: Response) -> Judgement:
        judgement = existing.get((response.sample_id, response.index))
        if judgement is not None:
            return judgement
        try:
            return await judge.judge(samples[response.sample_id], response)
        except Exception as error:  # a judge that breaks leaves its row unscored
            return Judgement(
                sample_id=response.sample_id,
                index=response.index,
                judge=judge.name,
                question=judge.question,
                failure=Failure(
                    "judge", type(error).__name__, (str(error).splitlines() or [""])[0]
                ),
            )

    try:
        results = await map_in_batches(
            rows, ask, together=64, on_progress=on_progress, total=len(rows)
        )
    finally:
        await close_connections()
    by_sample: dict[str, list[Judgement]] = {name: [] for name in answers}
    for row, judgement in zip(rows, results):
        by_sample[row.sample_id].append(judgement)
    return by_sample


def _write_jsonl(path: Path, rows: list[AnswerOrder] | list[Preference]) -> None:
    replace_file(path, b"".join(msgspec.json.encode(r) + b"\n" for r in rows))
