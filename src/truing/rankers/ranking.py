"""Ranks a data set with a model into a run folder.

Files: `samples.jsonl`, `rankings/<ranker>.jsonl`, `ranking.json`.

Rows are appended as they come, in the order of the data, on a cluster in that of their arrival; a
repeated call resumes.
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

from truing.core.batches import split_batches
from truing.core.errors import DataError, RunError, UserError
from truing.core.ids import stream_seed
from truing.core.input_files import read_input_bytes
from truing.core.lineage import digest
from truing.core.protocols import Dataset, Model
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
from truing.rankers.item_ranking import (
    ANSWERS,
    PAIRS,
    RANKING_METHODS,
    ROW_TYPES,
    ItemRanker,
    MapItems,
    PairInContext,
    RankedItem,
    RankingItem,
    RankingOptions,
    require_logprobs,
)
from truing.rankers.items import (
    AnswerPair,
    ChoiceQuestion,
    LabelledAnswer,
    iter_labelled_answers,
    iter_pairs,
    iter_questions,
)
from truing.rankers.multiple_choice import RankedChoices
from truing.rankers.perplexity import ComparedPair, MeasuredAnswer, assign_unrelated_prompts
from truing.rankers.text_likelihood import ProgressCallback, map_in_batches
from truing.runs.folder import DataRecord, Manifest, Run, RunWriter
from truing.runs.parts import read_run_records

Item = TypeVar("Item", ChoiceQuestion, AnswerPair)


class _RankingStore:
    """Writes a ranking into a run folder; without a folder nothing is written."""

    def __init__(
        self, out: Path | None, model: Model, dataset: Dataset, kind: str, settings: RankingOptions
    ) -> None:
        self.writer: RunWriter | None = None
        if out is None:
            return
        dataset_info = dataset.info
        # Everything that changes a row is in the plan: resuming with another setting is refused
        # by the hash instead of mixing rows.
        plan = {
            "rank": kind,
            "model": model.name,
            "model_hash": model.lineage.hash,
            "data": dataset_info.spec,
            "settings": msgspec.to_builtins(settings),
        }
        record = DataRecord(
            spec=dataset_info.spec,
            source=dataset_info.source,
            licence=dataset_info.licence,
            sha256=dataset.sha256(),
        )
        manifest = Manifest(
            plan=plan,
            plan_hash=digest(msgspec.json.encode(plan, order="deterministic"), record.sha256),
            model=model.name,
            lineage=model.lineage,
            data=[record],
        )
        self.writer = RunWriter(out, manifest)

    def samples(self, samples: Iterable[Sample]) -> None:
        """Writes the samples unless they are there."""
        if self.writer is not None and not self.writer.file("samples.jsonl").exists():
            self.writer.replace(
                "samples.jsonl", b"".join(msgspec.json.encode(s) + b"\n" for s in samples)
            )

    def known(self, ranker: str, kind: type[RankedItem]) -> dict[str, Any]:
        """Returns the rows of an earlier call by sample id."""
        if self.writer is None:
            return {}
        rows = read_run_records(self.writer.path, f"rankings/{ranker}.jsonl", kind)
        return {row.sample_id: row for row in rows}

    def add(self, ranker: str, rows: Iterable[Struct]) -> None:
        """Appends rows to the file of a ranker."""
        if self.writer is not None:
            for row in rows:
                self.writer.append(f"rankings/{ranker}.jsonl", row)

    def close(self, summaries: Sequence[RankingSummary] | None) -> None:
        """Writes `ranking.json` and closes the folder."""
        if self.writer is None:
            return
        # None after an exception: the rows are kept, and the run stays incomplete for a later
        # call.
        if summaries is not None:
            data = msgspec.json.format(msgspec.json.encode(list(summaries)), indent=1) + b"\n"
            self.writer.replace("ranking.json", data)
            self.writer.manifest.complete = True
            self.writer.save_manifest()
        self.writer.close()


async def _rank_items(
    ranking_items: Sequence[RankingItem],
    item_ranker: ItemRanker,
    store: _RankingStore,
    ranker: str,
    *,
    together: int,
    on_progress: ProgressCallback | None,
    map_items: MapItems | None,
) -> list[Any]:
    method = item_ranker.method
    rows_by_id = store.known(ranker, ROW_TYPES[method])
    todo = [i for i in ranking_items if i.id not in rows_by_id]

    missing = {item.id for item in todo}

    def store_rows(rows: Sequence[RankedItem]) -> None:
        # Stored batch by batch: an interrupted run loses what is under way at most.
        ids = {row.sample_id for row in rows}
        if not ids <= missing or len(ids) < len(rows):
            raise RunError(f"{ranker}: rows of items that were not asked for, or two of one item")
        missing.difference_update(ids)
        store.add(ranker, rows)
        rows_by_id.update({row.sample_id: row for row in rows})
        if on_progress is not None:
            failed = sum(row.failure is not None for row in rows_by_id.values())
            on_progress(len(rows_by_id), len(ranking_items), failed)

    if map_items is not None and todo:
        for rows in map_items(item_ranker, todo):
            store_rows(rows)
    else:
        for batch in split_batches(todo, together):
            store_rows(await map_in_batches(batch, item_ranker.rank, together=together))
    if missing:
        raise RunError(f"{ranker}: {len(missing)} items have no row; the same command continues")
    # In the order of the data, whatever part of it came from an earlier call.
    return [rows_by_id[i.id] for i in ranking_items]


def _count_reasons(failures: Iterable[Failure | None]) -> dict[str, int]:
    return dict(Counter(f"{f.kind}: {f.message}" for f in failures if f is not None).most_common(5))


def rank_choices(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: RankingOptions | None = None,
    on_progress: ProgressCallback | None = None,
    map_items: MapItems | None = None,
) -> list[RankingSummary]:
    """Ranks multiple-choice questions by each method of `settings.how`.

    `map_items` ranks them elsewhere (`bulk.rank_on_ray`): the same rows, in another order.

    Raises UserError for an unknown method or a model without log-probabilities, and DataError for
    a data set without questions and pairs.
    """
    options = settings or RankingOptions()
    unknown = [h for h in options.how if h not in RANKING_METHODS]
    if unknown:
        raise UserError(f"by {unknown[0]!r}: is none of {', '.join(RANKING_METHODS)}")
    questions = _select_items(iter_questions(dataset), options)
    if not questions:
        raise DataError(
            f"{dataset.info.spec}: no multiple choice, and no safe and unsafe answers to one prompt"
        )
    item_rankers = [ItemRanker(model, method, options) for method in options.how]

    async def run(store: _RankingStore) -> list[RankingSummary]:
        summaries = []
        for item_ranker in item_rankers:
            name = f"mcq-{item_ranker.method}"
            rows = await _rank_items(
                questions,
                item_ranker,
                store,
                name,
                together=options.together,
                on_progress=on_progress,
                map_items=map_items,
            )
            figures = choice_figures(rows) + _bbq_figures(rows)
            summaries.append(_summarise(model, dataset, name, rows, figures))
        return summaries

    store = _RankingStore(out, model, dataset, "mcq", options)
    return _run_and_store(store, [_sample_of_item(q) for q in questions], run)


def _select_items(items: Iterable[Item], options: RankingOptions) -> list[Item]:
    if options.seed is None or options.limit is None:
        return list(islice(items, options.limit))
    all_items = list(items)
    seed = options.seed
    # The order depends on the ids alone, so a larger limit keeps the items of a smaller one.
    order = sorted(range(len(all_items)), key=lambda i: stream_seed(seed, all_items[i].id))
    return [all_items[index] for index in sorted(order[: options.limit])]


def _select_labelled_answers(dataset: Dataset, limit: int | None) -> list[LabelledAnswer]:
    answers = list(iter_labelled_answers(dataset))
    if limit is None:
        return answers
    # Published sets are often sorted by label, so a prefix could hold one label only.
    unsafe = [answer for answer in answers if answer.unsafe][: limit // 2]
    safe = [answer for answer in answers if not answer.unsafe][: limit // 2]
    return unsafe + safe


def _bbq_figures(rows: Sequence[RankedChoices]) -> list[RankingFigure]:
    methods = dict.fromkeys(m for r in rows for m in r.scores)
    return [f for m in methods for f in bbq_bias.bias_figures(rows, m)]


def rank_perplexity(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: RankingOptions | None = None,
    on_progress: ProgressCallback | None = None,
    map_items: MapItems | None = None,
) -> list[RankingSummary]:
    """Ranks pairs by perplexity with controls; without pairs, measures labelled answers.

    The labelled answers are scored as a detector of unsafe text. `map_items` is as in
    `rank_choices`.
    """
    options = settings or RankingOptions()
    require_logprobs(model)
    pairs: Sequence[AnswerPair] = _select_items(iter_pairs(dataset), options)
    texts: Sequence[LabelledAnswer] = (
        [] if pairs else _select_labelled_answers(dataset, options.limit)
    )
    if not pairs and not texts:
        raise DataError(f"{dataset.info.spec}: neither pairs nor answers with a label")
    items: Sequence[PairInContext] | Sequence[LabelledAnswer] = texts
    if pairs:
        unrelated_prompts = assign_unrelated_prompts(pairs)
        items = [
            PairInContext(pair=pair, unrelated_prompt=prompt)
            for pair, prompt in zip(pairs, unrelated_prompts, strict=True)
        ]
    item_ranker = ItemRanker(model, PAIRS if pairs else ANSWERS, options)

    async def run(store: _RankingStore) -> list[RankingSummary]:
        rows = await _rank_items(
            items,
            item_ranker,
            store,
            "perplexity",
            together=options.together,
            on_progress=on_progress,
            map_items=map_items,
        )
        figures = pair_figures(rows) if pairs else detection_figures(rows)
        return [_summarise(model, dataset, "perplexity", rows, figures)]

    store = _RankingStore(out, model, dataset, "perplexity", options)
    return _run_and_store(store, [_sample_of_item(item) for item in (pairs or texts)], run)


def _sample_of_item(ranking_item: ChoiceQuestion | AnswerPair | LabelledAnswer) -> Sample:
    if isinstance(ranking_item, ChoiceQuestion):
        choices, right = ranking_item.choices, ranking_item.right
    elif isinstance(ranking_item, AnswerPair):
        choices, right = (ranking_item.safe, ranking_item.unsafe), (0,)
    else:
        choices, right = (ranking_item.text,), () if ranking_item.unsafe else (0,)
    return Sample(
        id=ranking_item.id,
        conversation=ranking_item.conversation,
        choices=choices,
        answer=right,
        harms=ranking_item.harms,
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
    summaries: list[RankingSummary] | None = None
    try:
        store.samples(samples)
        summaries = asyncio.run(_run_and_close(run(store)))
    finally:
        store.close(summaries)
    return summaries


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
    """Returns the summaries of a ranked run folder."""
    file = Run(path).file("ranking.json")
    if not file.is_file():
        raise UserError(f"{path}: has no ranking (no ranking.json)")
    try:
        return msgspec.json.decode(read_input_bytes(file), type=list[RankingSummary])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from error
