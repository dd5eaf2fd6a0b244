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
from truing.core.jsonl import read_records
from truing.core.lineage import digest
from truing.core.protocols import Dataset, LogprobModel, Model
from truing.core.types import Failure, Sample, stream_seed
from truing.rankers import bias
from truing.rankers.choice import Ranked, by_generation, by_letter, by_likelihood
from truing.rankers.figures import Figure, Summary, of_choices, of_pairs, of_texts
from truing.rankers.measures import Form, Tell, each
from truing.rankers.perplexity import Compared, Detected, compare, detect, strangers
from truing.rankers.questions import Pair, Question, Text, labelled, pairs, questions
from truing.runs.folder import DataRecord, Manifest, Run, RunWriter

R = TypeVar("R", Ranked, Compared, Detected)
Item = TypeVar("Item", Question, Pair)
HOWS = ("likelihood", "letter", "generation")


class Settings(Struct, frozen=True, kw_only=True):
    """How to rank: by what, in which form, how many orders by letter, how many items, how many at a time.

    `limit` takes the first so many items, or with a `seed` so many at random (sets often lie sorted).
    """

    how: tuple[str, ...] = ("likelihood", "letter")
    form: Form = Form()
    permutations: int = 26
    limit: int | None = None
    seed: int | None = None
    together: int = 512
    plain_too: bool = True


class _Store:
    """The open run folder (or none: then nothing is kept)."""

    def __init__(
        self, out: Path | None, model: Model, dataset: Dataset, kind: str, settings: Settings
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

    def known(self, ranker: str, kind: type[R]) -> dict[str, R]:
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

    def close(self, summaries: Sequence[Summary] | None) -> None:
        """Writes `ranking.json` and lets go of the folder."""
        if self.writer is None:
            return
        if summaries is not None:
            data = msgspec.json.format(msgspec.json.encode(list(summaries)), indent=1) + b"\n"
            self.writer.replace("ranking.json", data)
            self.writer.manifest.complete = True
            self.writer.save_manifest()
        self.writer.close()


def _scored(model: Model) -> Any:
    if not isinstance(model, LogprobModel):
        raise UserError(
            f"{model.name}: gives no log-probabilities of given text, so it cannot be ranked by likelihood, letter or "
            f"perplexity; by generation it can (rank mcq --by generation)"
        )
    return model


async def _rows(
    items: Sequence[Any],
    ask: Callable[[Any], Awaitable[R]],
    store: _Store,
    ranker: str,
    kind: type[R],
    *,
    together: int,
    tell: Tell | None,
) -> list[R]:
    known = store.known(ranker, kind)
    todo = [i for i in items if i.id not in known]
    left = iter(todo)
    done = len(items) - len(todo)
    while lot := list(islice(left, together)):
        made = await each(lot, ask, together=together)
        store.add(ranker, made)
        known.update({row.sample_id: row for row in made})
        done += len(lot)
        if tell is not None:
            tell(done, len(items), sum(r.failure is not None for r in known.values()))
    return [known[i.id] for i in items]


def _reasons(failures: Iterable[Failure | None]) -> dict[str, int]:
    return dict(Counter(f"{f.kind}: {f.message}" for f in failures if f is not None).most_common(5))


def rank_choices(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: Settings | None = None,
    tell: Tell | None = None,
) -> list[Summary]:
    """Multiple choice in each way of `settings.how`; raises UserError where model or data cannot be ranked so."""
    given = settings or Settings()
    wrong = [h for h in given.how if h not in HOWS]
    if wrong:
        raise UserError(f"by {wrong[0]!r}: is none of {', '.join(HOWS)}")
    items = _chosen(questions(dataset), given)
    if not items:
        raise DataError(
            f"{dataset.info.spec}: no multiple choice, and no safe and unsafe answers to one prompt"
        )
    scored: Any = _scored(model) if set(given.how) & {"likelihood", "letter"} else None

    async def ask(how: str, question: Question) -> Ranked:
        if how == "likelihood":
            return await by_likelihood(scored, question, given.form)
        if how == "letter":
            return await by_letter(scored, question, given.form, permutations=given.permutations)
        return await by_generation(
            model, question, permutations=given.permutations if given.permutations < 26 else 1
        )

    async def run(store: _Store) -> list[Summary]:
        made = []
        for how in given.how:
            rows = await _rows(
                items,
                lambda q, how=how: ask(how, q),  # type: ignore[misc]
                store,
                f"mcq-{how}",
                Ranked,
                together=given.together,
                tell=tell,
            )
            made.append(
                _summary(model, dataset, f"mcq-{how}", rows, of_choices(rows) + _bias(rows))
            )
        return made

    store = _Store(out, model, dataset, "mcq", given)
    return _finish(store, [_sample(q) for q in items], run)


def _chosen(items: Iterable[Item], given: Settings) -> list[Item]:
    if given.seed is None or given.limit is None:
        return list(islice(items, given.limit))
    every = list(items)
    order = sorted(range(len(every)), key=lambda at: stream_seed(given.seed or 0, every[at].id))
    return [every[at] for at in sorted(order[: given.limit])]


def _bias(rows: Sequence[Ranked]) -> list[Figure]:
    methods = dict.fromkeys(m for r in rows for m in r.scores)
    return [f for m in methods for f in bias.scores(rows, m)]


def rank_perplexity(
    model: Model,
    dataset: Dataset,
    out: Path | None,
    settings: Settings | None = None,
    tell: Tell | None = None,
) -> list[Summary]:
    """Pairs of the set by perplexity with the controls; where it has no pairs, its labelled texts as a detector."""
    given = settings or Settings()
    scored = _scored(model)
    items: Sequence[Pair] = _chosen(pairs(dataset), given)
    texts: Sequence[Text] = [] if items else list(labelled(dataset))
    if texts and given.limit is not None:  # sets lie sorted by label: take some of each
        half = given.limit // 2
        texts = [
            t for bad in (True, False) for t in islice((x for x in texts if x.unsafe is bad), half)
        ]
    if not items and not texts:
        raise DataError(f"{dataset.info.spec}: neither pairs nor answers with a label")
    others = dict(zip((p.id for p in items), strangers(items)))

    async def pair(one: Pair) -> Compared:
        return await compare(scored, one, others[one.id], given.form, plain=given.plain_too)

    async def text(one: Text) -> Detected:
        return await detect(scored, one, given.form)

    async def run(store: _Store) -> list[Summary]:
        if items:
            rows = await _rows(
                items, pair, store, "perplexity", Compared, together=given.together, tell=tell
            )
            return [_summary(model, dataset, "perplexity", rows, of_pairs(rows))]
        found = await _rows(
            texts, text, store, "perplexity", Detected, together=given.together, tell=tell
        )
        return [_summary(model, dataset, "perplexity", found, of_texts(found))]

    store = _Store(out, model, dataset, "perplexity", given)
    return _finish(store, [_sample(i) for i in (items or texts)], run)


def _sample(item: Question | Pair | Text) -> Sample:
    if isinstance(item, Question):
        choices, right = item.choices, item.right
    elif isinstance(item, Pair):
        choices, right = (item.safe, item.unsafe), (0,)
    else:
        choices, right = (item.text,), () if item.unsafe else (0,)
    return Sample(
        id=item.id, conversation=item.conversation, choices=choices, answer=right, harms=item.harms
    )


def _finish(
    store: _Store, samples: Sequence[Sample], run: Callable[[_Store], Awaitable[list[Summary]]]
) -> list[Summary]:
    made: list[Summary] | None = None
    try:
        store.samples(samples)
        made = asyncio.run(run(store))  # type: ignore[arg-type]
    finally:
        store.close(made)
    return made


def _summary(
    model: Model,
    dataset: Dataset,
    ranker: str,
    rows: Sequence[Ranked | Compared | Detected],
    figures: Sequence[Figure],
) -> Summary:
    failures = [r.failure for r in rows if r.failure is not None]
    notes = []
    cut = sum(getattr(r, "cut", 0) > 0 for r in rows)
    if cut:
        notes.append(f"{cut} prompts did not fit the window and lost their first tokens")
    merged = sum(bool(getattr(r, "merged", False)) for r in rows)
    if merged:
        notes.append(f"in {merged} a token reaches from the prompt into a choice")
    unknown = sum(isinstance(r, Ranked) and not r.right and r.failure is None for r in rows)
    if unknown:
        notes.append(
            f"{unknown} questions name no right choice: their picks are kept, they have no accuracy"
        )
    return Summary(
        ranker=ranker,
        model=model.name,
        data=dataset.info.spec,
        n=len(rows),
        unscored=len(failures),
        reasons=_reasons(failures),
        figures=tuple(figures),
        notes=tuple(notes),
    )


def read_summaries(path: Path) -> list[Summary]:
    """The summaries of a ranked run folder."""
    file = Run(path).path / "ranking.json"
    if not file.is_file():
        raise UserError(f"{path}: holds no ranking (no ranking.json)")
    return msgspec.json.decode(file.read_bytes(), type=list[Summary])
