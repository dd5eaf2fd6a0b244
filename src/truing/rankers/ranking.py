"""From a model and a data set to a ranking in a run folder: `samples.jsonl`, `rankings/<ranker>.jsonl`, `ranking.json`.

Rows are appended as they come, in the order of the data; the same call again goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from truing.core.errors import DataError, UserError
from truing.core.ids import stream_seed
from truing.core.jsonl import read_records
from truing.core.lineage import digest
from truing.core.protocols import Dataset, LogprobModel, Model
from truing.core.types import Failure, Sample
from truing.http.limits import close_connections
from truing.rankers import bbq_bias
from truing.rankers.figures import (
    RankingFigure,
    RankingSummary,
    choice_figures,
    detection_figures,
    pair_figures,
)
from truing.rankers.items import (
    AnswerPair,
    ChoiceQuestion,
    LabelledAnswer,
    iter_labelled_answers,
    iter_pairs,
    iter_questions,
)
from truing.rankers.multiple_choice import (
    RankedChoices,
    rank_by_generation,
    rank_by_letter,
    rank_by_likelihood,
)
from truing.rankers.perplexity import (
    ComparedPair,
    MeasuredAnswer,
    assign_unrelated_prompts,
    compare_pair,
    measure_answer,
)
from truing.rankers.text_likelihood import ProgressCallback, PromptForm, map_in_batches
from truing.runs.folder import DataRecord, Manifest, Run, RunWriter

RankedRow = TypeVar("RankedRow", RankedChoices, ComparedPair, MeasuredAnswer)
Item = TypeVar("Item", ChoiceQuestion, AnswerPair)
RANKING_METHODS = ("likelihood", "letter", "generation")


class RankingOptions(Struct, frozen=True, kw_only=True):
    """How to rank: by what, in which form, how many orders by letter, how many items, how many at a time.

    `limit` takes the first so many items, or with a `seed` so many at random (sets often lie sorted).
    """

    how: tuple[str, ...] = ("likelihood", "letter")
    form: PromptForm = PromptForm()
    permutations: int = 26
    limit: int | None = None
    seed: int | None = None
    together: int = 512
    plain_too: bool = True


class _RankingStore:
    """The open run folder (or none: then nothing is kept)."""

    def __init__(
        self, out: Path | None, model: Model, dataset: Dataset, kind: str, settings: RankingOptions
    ) -> None:
        self.writer: RunWriter | None = None
        if out is None:
            return
        info = dataset.info
        plan = {
            "rank": kind,
            "model": model.name,
            "model_hash": model.lineage.hash,
            "data": info.spec,
            "settings": msgspec.to_builtins(settings),
        }
        record = DataRecord(
            spec=info.spec, source=info.source, licence=info.licence, sha256=dataset.sha256()
        )
        manifest = Manifest(
            plan=plan,
            plan_hash=digest(msgspec.json.encode(plan, order="deterministic"), record.sha256),
            model=model.name,
            lineage=model.lineage,
            data=[record],
        )
        self.writer = RunWriter(out, manifest)

    def samples(self, made: Iterable[Sample]) -> None:
        """Writes the samples once."""
        if self.writer is not None and not (self.writer.path / "samples.jsonl").exists():
            self.writer.replace(
                "samples.jsonl", b"".join(msgspec.json.encode(s) + b"\n" for s in made)
            )

    def known(self, ranker: str, kind: type[RankedRow]) -> dict[str, RankedRow]:
        """Rows of an earlier call."""
        if self.writer is None:
            return {}
        path = self.writer.path / "rankings" / f"{ranker}.jsonl"
        return {row.sample_id: row for row in read_records(path, kind)}

    def add(self, ranker: str, rows: Iterable[Struct]) -> None:
        """Appends rows."""
        if self.writer is not None:
            for row in rows:
                self.writer.append(f"rankings/{ranker}.jsonl", row)

    def close(self, summaries: Sequence[RankingSummary] | None) -> None:
        """Writes `ranking.json` and lets go of the folder."""
        if self.writer is None:
            return
        if summaries is not None:
            data = msgspec.json.format(msgspec.json.encode(list(summaries)), indent=1) + b"\n"
            self.writer.replace("ranking.json", data)
            self.writer.manifest.complete = True
            self.writer.save_manifest()
        self.writer.close()


def _require_logprobs(model: Model) -> Any:
    if not isinstance(model, LogprobModel):
        raise UserError(
            f"{model.name}: gives no log-probabilities of given text, so it cannot be ranked by likelihood, letter or "
            f"perplexity; by generation it can (rank mcq --by generation)"
        )
    return model


async def _rank_items(
    items: Sequence[Any],
    ask: Callable[[Any], Awaitable[RankedRow]],
    store: _RankingStore,
    ranker: str,
    kind: type[RankedRow],
    *,
    together: int,
    on_progress: ProgressCallback | None,
) -> list[RankedRow]:
    known = store.known(ranker, kind)
    todo = [i for i in items if i.id not in known]
    left = iter(todo)
    done = len(items) - len(todo)
    while lot := list(islice(left, together)):
        made = await map_in_batches(lot, ask, together=together)
        store.add(ranker, made)
        known.update({row.sample_id: row for row in made})
        done += len(lot)
        if on_progress is not None:
            on_progress(done, len(items), sum(r.failure is not None for r in known.values()))
    return [known[i.id] for i in items]


def _count_reasons(failures: Iterable[Failure | None]) -> dict[str, int]:
    return dict(Counter(f"{f.kind}: {f.message}" for f in failures if f is not None).most_common(5))


def rank_choices(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: RankingOptions | None = None,
    on_progress: ProgressCallback | None = None,
) -> list[RankingSummary]:
    """Multiple choice in each way of `settings.how`; raises UserError where model or data cannot be ranked so."""
    given = settings or RankingOptions()
    wrong = [h for h in given.how if h not in RANKING_METHODS]
    if wrong:
        raise UserError(f"by {wrong[0]!r}: is none of {', '.join(RANKING_METHODS)}")
    items = _select_items(iter_questions(dataset), given)
    if not items:
        raise DataError(
            f"{dataset.info.spec}: no multiple choice, and no safe and unsafe answers to one prompt"
        )
    scored: Any = _require_logprobs(model) if set(given.how) & {"likelihood", "letter"} else None

    async def ask(how: str, question: ChoiceQuestion) -> RankedChoices:
        if how == "likelihood":
            return await rank_by_likelihood(scored, question, given.form)
        if how == "letter":
            return await rank_by_letter(
                scored, question, given.form, permutations=given.permutations
            )
        return await rank_by_generation(
            model, question, permutations=given.permutations if given.permutations < 26 else 1
        )

    async def run(store: _RankingStore) -> list[RankingSummary]:
        made = []
        for how in given.how:
            rows = await _rank_items(
                items,
                lambda q, how=how: ask(how, q),  # type: ignore[misc]
                store,
                f"mcq-{how}",
                RankedChoices,
                together=given.together,
                on_progress=on_progress,
            )
            made.append(
                _summarise(
                    model, dataset, f"mcq-{how}", rows, choice_figures(rows) + _bbq_figures(rows)
                )
            )
        return made

    store = _RankingStore(out, model, dataset, "mcq", given)
    return _run_and_store(store, [_sample_of_item(q) for q in items], run)


def _select_items(items: Iterable[Item], given: RankingOptions) -> list[Item]:
    if given.seed is None or given.limit is None:
        return list(islice(items, given.limit))
    every = list(items)
    order = sorted(range(len(every)), key=lambda at: stream_seed(given.seed or 0, every[at].id))
    return [every[at] for at in sorted(order[: given.limit])]


def _bbq_figures(rows: Sequence[RankedChoices]) -> list[RankingFigure]:
    methods = dict.fromkeys(m for r in rows for m in r.scores)
    return [f for m in methods for f in bbq_bias.bias_figures(rows, m)]


def rank_perplexity(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: RankingOptions | None = None,
    on_progress: ProgressCallback | None = None,
) -> list[RankingSummary]:
    """Pairs of the set by perplexity with the controls; where it has no pairs, its labelled texts as a detector."""
    given = settings or RankingOptions()
    scored = _require_logprobs(model)
    items: Sequence[AnswerPair] = _select_items(iter_pairs(dataset), given)
    texts: Sequence[LabelledAnswer] = [] if items else list(iter_labelled_answers(dataset))
    if texts and given.limit is not None:  # sets lie sorted by label: take some of each
        half = given.limit // 2
        texts = [
            t for bad in (True, False) for t in islice((x for x in texts if x.unsafe is bad), half)
        ]
    if not items and not texts:
        raise DataError(f"{dataset.info.spec}: neither pairs nor answers with a label")
    others = dict(zip((p.id for p in items), assign_unrelated_prompts(items)))

    async def pair(one: AnswerPair) -> ComparedPair:
        return await compare_pair(scored, one, others[one.id], given.form, plain=given.plain_too)

    async def text(one: LabelledAnswer) -> MeasuredAnswer:
        return await measure_answer(scored, one, given.form)

    async def run(store: _RankingStore) -> list[RankingSummary]:
        if items:
            rows = await _rank_items(
                items,
                pair,
                store,
                "perplexity",
                ComparedPair,
                together=given.together,
                on_progress=on_progress,
            )
            return [_summarise(model, dataset, "perplexity", rows, pair_figures(rows))]
        found = await _rank_items(
            texts,
            text,
            store,
            "perplexity",
            MeasuredAnswer,
            together=given.together,
            on_progress=on_progress,
        )
        return [_summarise(model, dataset, "perplexity", found, detection_figures(found))]

    store = _RankingStore(out, model, dataset, "perplexity", given)
    return _run_and_store(store, [_sample_of_item(i) for i in (items or texts)], run)


def _sample_of_item(item: ChoiceQuestion | AnswerPair | LabelledAnswer) -> Sample:
    if isinstance(item, ChoiceQuestion):
        choices, right = item.choices, item.right
    elif isinstance(item, AnswerPair):
        choices, right = (item.safe, item.unsafe), (0,)
    else:
        choices, right = (item.text,), () if item.unsafe else (0,)
    return Sample(
        id=item.id, conversation=item.conversation, choices=choices, answer=right, harms=item.harms
    )


async def _run_and_close(ranking: Awaitable[list[RankingSummary]]) -> list[RankingSummary]:
    """Waits for the ranking and closes the HTTP sessions that belong to this event loop."""
    try:
        return await ranking
    finally:
        await close_connections()


def _run_and_store(
    store: _RankingStore,
    samples: Sequence[Sample],
    run: Callable[[_RankingStore], Awaitable[list[RankingSummary]]],
) -> list[RankingSummary]:
    made: list[RankingSummary] | None = None
    try:
        store.samples(samples)
        made = asyncio.run(_run_and_close(run(store)))
    finally:
        store.close(made)
    return made


def _summarise(
    model: Model,
    dataset: Dataset,
    ranker: str,
    rows: Sequence[RankedChoices | ComparedPair | MeasuredAnswer],
    figures: Sequence[RankingFigure],
) -> RankingSummary:
    failures = [r.failure for r in rows if r.failure is not None]
    notes = []
    cut = sum(getattr(r, "cut", 0) > 0 for r in rows)
    if cut:
        notes.append(f"{cut} prompts did not fit the window and lost their first tokens")
    merged = sum(bool(getattr(r, "merged", False)) for r in rows)
    if merged:
        notes.append(f"in {merged} a token reaches from the prompt into a choice")
    unknown = sum(isinstance(r, RankedChoices) and not r.right and r.failure is None for r in rows)
    if unknown:
        notes.append(
            f"{unknown} questions name no right choice: their picks are kept, they have no accuracy"
        )
    return RankingSummary(
        ranker=ranker,
        model=model.name,
        data=dataset.info.spec,
        n=len(rows),
        unscored=len(failures),
        reasons=_count_reasons(failures),
        figures=tuple(figures),
        notes=tuple(notes),
    )


def read_summaries(path: Path) -> list[RankingSummary]:
    """The summaries of a ranked run folder."""
    file = Run(path).path / "ranking.json"
    if not file.is_file():
        raise UserError(f"{path}: holds no ranking (no ranking.json)")
    return msgspec.json.decode(file.read_bytes(), type=list[RankingSummary])
