"""A run's answers in order by a judge: `rankings/<judge>.jsonl` and `rankings/<judge>.preferences.jsonl`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from truing.core.errors import UserError
from truing.core.lineage import find_judge_conflict
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
from truing.runs.folder import Run, replace_file


class RunRanking(Struct, frozen=True, kw_only=True):
    """What came out: samples, of which so many are in order; preferences, and where they stand."""

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
    """Orders the answers of a finished run; judgements that the run already has of this judge are not made again.

    Raises UserError for a run without several answers a sample, and for a judge that chose or trained this model.
    """
    run = Run(path)
    why = find_judge_conflict(judge.lineage, run.manifest.lineage)
    if why:
        raise UserError(f"{judge.name} may not order the answers of this run: {why}")
    samples = {s.id: s for s in run.samples()}
    answers: dict[str, list[Response]] = {}
    for response in run.responses():
        if response.failure is None:
            answers.setdefault(response.sample_id, []).append(response)
    if not any(len(a) > 1 for a in answers.values()):
        raise UserError(
            f"{path}: one answer a sample; make several with truing evaluate --n 4 --temperature 0.7"
        )
    known = {(j.sample_id, j.index): j for j in run.judgements(judge.name)}
    judged = asyncio.run(_judge_answers(judge, samples, answers, known, on_progress))
    lower = lower_is_better(judge)
    slug = re.sub(r"[^a-z0-9]+", "-", judge.name.lower()).strip("-")[:60] or "judge"
    placed = [order_answers(name, slug, judged[name], lower=lower) for name in answers]
    wanted: Dimension = dimension or ("safe" if lower else "helpful")
    pairs = list(_make_all_preferences(placed, samples, answers, wanted, all_pairs=all_pairs))
    folder = run.path / "rankings"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{slug}.preferences.jsonl"
    _write_jsonl(folder / f"{slug}.jsonl", placed)
    _write_jsonl(file, pairs)
    return RunRanking(
        judge=judge.name,
        samples=len(answers),
        ordered=sum(o.failure is None for o in placed),
        preferences=len(pairs),
        file=str(file),
        figures=tuple(worst_case_figures([(n, j) for n, j in judged.items()]) if lower else ()),
    )


def _make_all_preferences(
    placed: list[AnswerOrder],
    samples: dict[str, Sample],
    answers: dict[str, list[Response]],
    dimension: Dimension,
    *,
    all_pairs: bool,
) -> Iterator[Preference]:
    for one in placed:
        yield from make_preferences(
            samples[one.sample_id],
            answers[one.sample_id],
            one,
            dimension=dimension,
            all_pairs=all_pairs,
        )


async def _judge_answers(
    judge: Judge,
    samples: dict[str, Sample],
    answers: dict[str, list[Response]],
    known: dict[tuple[str, int], Judgement],
    on_progress: ProgressCallback | None,
) -> dict[str, list[Judgement]]:
    rows = [r for group in answers.values() for r in group]

    async def ask(response: Response) -> Judgement:
        found = known.get((response.sample_id, response.index))
        if found is not None:
            return found
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
        made = await map_in_batches(
            rows, ask, together=64, on_progress=on_progress, total=len(rows)
        )
    finally:
        await close_connections()
    out: dict[str, list[Judgement]] = {name: [] for name in answers}
    for row, judgement in zip(rows, made):
        out[row.sample_id].append(judgement)
    return out


def _write_jsonl(path: Path, rows: list[AnswerOrder] | list[Preference]) -> None:
    replace_file(path, b"".join(msgspec.json.encode(r) + b"\n" for r in rows))
