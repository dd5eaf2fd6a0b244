"""Rows of a run become items: all of them, or the rows that were drawn for labelling with their probabilities.

`labels/draws.jsonl` in the run folder (written by `truing label`) names the drawn rows; without it every response is an
item. Gold items come from a JSONL file with `prompt` or `messages`, `response`, `low` and `high`, optional `category`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from truing.annotation.queue import Gold, NewItem, Target, add_item
from truing.annotation.store import Store
from truing.annotation.study import Study
from truing.core.errors import DataError, PlanError, RunError
from truing.core.jsonl import number_nonblank_lines
from truing.core.lineage import digest
from truing.core.types import Conversation, Message, Response, Sample
from truing.runs.folder import Manifest, Run

_BATCH = 200


class Drawn(Struct, frozen=True, kw_only=True):
    """One drawn row: its sample, its answer, for which question and with which probability it was drawn."""

    sample_id: str
    index: int = 0
    question: str = "harmful"
    probability: float | None = None


class _GoldRow(Struct, frozen=True, kw_only=True):
    response: str
    low: int
    high: int
    prompt: str | None = None
    messages: list[dict[str, str]] | None = None
    category: str | list[str] | None = None


def source_name(manifest: Manifest) -> str:
    """The name under which a run's items are kept; the same wherever the folder lies."""
    return "run:" + digest(manifest.plan_hash, manifest.model, manifest.created)


def read_draws(path: Path) -> dict[tuple[str, int], float | None]:
    """(sample, index) -> probability of the rows that were drawn for *harmful*, in the order drawn."""
    decode = msgspec.json.Decoder(Drawn).decode
    drawn: dict[tuple[str, int], float | None] = {}
    for number, line in number_nonblank_lines(path.read_bytes().splitlines()):
        try:
            row = decode(line)
        except msgspec.DecodeError as error:
            raise DataError.at(path, number, str(error)) from error
        if row.probability is not None and not 0 < row.probability <= 1:
            raise DataError.at(path, number, f"probability {row.probability} is not in (0, 1]")
        if row.question == "harmful":
            drawn.setdefault((row.sample_id, row.index), row.probability)
    return drawn


def _items(
    run: Run, drawn: dict[tuple[str, int], float | None] | None, source: str
) -> Iterator[NewItem]:
    samples: dict[str, Sample] = {s.id: s for s in run.samples()}
    place = {where: n for n, where in enumerate(drawn or ())}
    for response in run.responses():
        if response.failure is not None or response.sample_id not in samples:
            continue
        where = response.sample_id, response.index
        if drawn is not None and where not in drawn:
            continue
        item = _item(samples[response.sample_id], response, source)
        if (
            drawn is not None
        ):  # raters see draws in their order, so that stopping half-way leaves a random part
            item = replace(item, probability=drawn[where], rank=place[where] / 2**40)
        yield item


def _item(sample: Sample, response: Response, source: str) -> NewItem:
    messages = [*(m for m in sample.conversation.messages if m.role != "system"), response.message]
    target = Target(sample.id, response.index, len(messages) - 1, response.model)
    return NewItem(
        source=source,
        key=f"{sample.id}#{response.index}",
        conversation=Conversation(tuple(messages)),
        targets=(target,),
        harms=sample.harms or None,
    )


def _add(store: Store, items: Iterable[NewItem], study: Study) -> int:
    added = 0
    batch: list[NewItem] = []

    def put() -> int:
        return store.write(lambda tx: sum(add_item(tx, i, study) is not None for i in batch))

    for item in items:
        batch.append(item)
        if len(batch) >= _BATCH:
            added += put()
            batch = []
    return added + (put() if batch else 0)


def import_run(store: Store, run: Run, study: Study, draws: Path | None = None) -> int:
    """Puts a run's responses into the queue; gives how many were new. A second import adds nothing twice."""
    found = draws or run.path / "labels" / "draws.jsonl"
    if draws is not None and not draws.is_file():
        raise RunError(f"{draws}: no such file of draws")
    drawn = read_draws(found) if found.is_file() else None
    return _add(store, _items(run, drawn, source_name(run.manifest)), study)


def import_gold(store: Store, path: Path, study: Study) -> int:
    """Adds gold items; every fault in the file is reported with its line."""
    decode = msgspec.json.Decoder(_GoldRow).decode
    items, faults = [], []
    if not path.is_file():
        raise DataError(f"{path}: no such file of gold items")
    for number, line in number_nonblank_lines(path.read_bytes().splitlines()):
        try:
            items.append(_gold(decode(line), study))
        except (msgspec.DecodeError, ValueError, PlanError) as error:
            faults.append(f"{path}:{number}: {error}")
    if faults:
        raise DataError(*faults)
    return _add(store, items, study)


def _gold(row: _GoldRow, study: Study) -> NewItem:
    if not 1 <= row.low <= row.high <= 5:
        raise ValueError("low and high are grades from 1 to 5, low first")
    if (row.prompt is None) == (row.messages is None):
        raise ValueError("give prompt or messages")
    start = (
        Conversation.from_openai(row.messages) if row.messages else Conversation.of(str(row.prompt))
    )
    whole = start.then(Message("assistant", row.response))
    named = [row.category] if isinstance(row.category, str) else row.category or []
    harms = tuple(study.categories().find(name).id for name in named)
    key = digest(msgspec.json.encode(whole))
    return NewItem(
        source="gold",
        key=key,
        conversation=whole,
        targets=(Target(f"gold-{key}", 0, len(whole.messages) - 1),),
        harms=harms,
        gold=Gold(row.low, row.high),
    )
