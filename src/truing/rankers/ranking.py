"""Ranks a data set with a model into a run folder.

Files: `samples.jsonl`, `rankings/<ranker>.jsonl`, `ranking.json`.

Rows are appended as they come, in the order of the data; a repeated call resumes.
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
from truing.core.errors import DataError, UserError
from truing.core.ids import stream_seed
from truing.core.input_files import read_input_bytes
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
from truing.runs.parts import read_run_records

RankedRow = TypeVar("RankedRow", RankedChoices, ComparedPair, MeasuredAnswer)
Item = TypeVar("Item", ChoiceQuestion, AnswerPair)
RANKING_METHODS = ("likelihood", "letter", "generation")


class RankingOptions(Struct, frozen=True, kw_only=True):
    """How to rank: methods, form of the prompt, orders by letter, number of items, concurrency.

    `limit` takes the first so many items, or with a `seed` so many at random (sets often lie
    sorted).
    """

    how: tuple[str, ...] = ("likelihood", "letter")
    form: PromptForm = PromptForm()
    permutations: int = 26
    limit: int | None = None
    seed: int | None = None
    together: int = 512
    plain_too: bool = True


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

    def known(self, ranker: str, kind: type[RankedRow]) -> dict[str, RankedRow]:
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


def _require_logprobs(model: Model) -> Any:
    if not isinstance(model, LogprobModel):
        raise UserError(
            f"{model.name}: returns no log-probabilities of a given text, so it cannot be ranked "
            "by likelihood, letter or "
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
    rows_by_id = store.known(ranker, kind)
    todo = [i for i in items if i.id not in rows_by_id]
    done = len(items) - len(todo)
    # Stored batch by batch: an interrupted run loses one batch at most.
    for batch in split_batches(todo, together):
        rows = await map_in_batches(batch, ask, together=together)
        store.add(ranker, rows)
        rows_by_id.update({row.sample_id: row for row in rows})
        done += len(batch)
        if on_progress is not None:
            on_progress(done, len(items), sum(r.failure is not None for r in rows_by_id.values()))
    # In the order of the data, whatever part of it came from an earlier call.
    return [rows_by_id[i.id] for i in items]


def _count_reasons(failures: Iterable[Failure | None]) -> dict[str, int]:
    return dict(Counter(f"{f.kind}: {f.message}" for f in failures if f is not None).most_common(5))


def rank_choices(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: RankingOptions | None = None,
    on_progress: ProgressCallback | None = None,
) -> list[RankingSummary]:
    """Ranks multiple-choice questions by each method of `settings.how`.

    Raises UserError for an unknown method or a model without log-probabilities, and DataError for
    a data set without questions and pairs.
    """
    options = settings or RankingOptions()
    unknown = [h for h in options.how if h not in RANKING_METHODS]
    if unknown:
        raise UserError(f"by {unknown[0]!r}: is none of {', '.join(RANKING_METHODS)}")
    items = _select_items(iter_questions(dataset), options)
    if not items:
        raise DataError(
            f"{dataset.info.spec}: no multiple choice, and no safe and unsafe answers to one prompt"
        )
    scored: Any = _require_logprobs(model) if set(options.how) & {"likelihood", "letter"} else None

    async def ask(method: str, question: ChoiceQuestion) -> RankedChoices:
        if method == "likelihood":
            return await rank_by_likelihood(scored, question, options.form)
        if method == "letter":
            return await rank_by_letter(
                scored, question, options.form, permutations=options.permutations
            )
        return await rank_by_generation(
            model, question, permutations=options.permutations if options.permutations < 26 else 1
        )

    async def run(store: _RankingStore) -> list[RankingSummary]:
        summaries = []
        for method in options.how:
            rows = await _rank_items(
                items,
                lambda question, method=method: ask(method, question),  # type: ignore[misc]
                store,
                f"mcq-{method}",
                RankedChoices,
                together=options.together,
                on_progress=on_progress,
            )
            summaries.append(
                _summarise(
                    model, dataset, f"mcq-{method}", rows, choice_figures(rows) + _bbq_figures(rows)
                )
            )
        return summaries

    store = _RankingStore(out, model, dataset, "mcq", options)
    return _run_and_store(store, [_sample_of_item(q) for q in items], run)


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
) -> list[RankingSummary]:
    """Ranks pairs by perplexity with controls; without pairs, measures labelled answers.

    The labelled answers are scored as a detector of unsafe text.
    """
    options = settings or RankingOptions()
    scored = _require_logprobs(model)
    pairs: Sequence[AnswerPair] = _select_items(iter_pairs(dataset), options)
    texts: Sequence[LabelledAnswer] = (
        [] if pairs else _select_labelled_answers(dataset, options.limit)
    )
    if not pairs and not texts:
        raise DataError(f"{dataset.info.spec}: neither pairs nor answers with a label")
    unrelated_prompts = dict(zip((pair.id for pair in pairs), assign_unrelated_prompts(pairs)))

    async def measure_pair(pair: AnswerPair) -> ComparedPair:
        return await compare_pair(
            scored, pair, unrelated_prompts[pair.id], options.form, plain=options.plain_too
        )

    async def measure_text(answer: LabelledAnswer) -> MeasuredAnswer:
        return await measure_answer(scored, answer, options.form)

    async def run(store: _RankingStore) -> list[RankingSummary]:
        together = options.together
        if pairs:
            compared = await _rank_items(
                pairs,
                measure_pair,
                store,
                "perplexity",
                ComparedPair,
                together=together,
                on_progress=on_progress,
            )
            return [_summarise(model, dataset, "perplexity", compared, pair_figures(compared))]
        measured = await _rank_items(
            texts,
            measure_text,
            store,
            "perplexity",
            MeasuredAnswer,
            together=together,
            on_progress=on_progress,
        )
        return [_summarise(model, dataset, "perplexity", measured, detection_figures(measured))]

    store = _RankingStore(out, model, dataset, "perplexity", options)
    return _run_and_store(store, [_sample_of_item(item) for item in (pairs or texts)], run)


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
