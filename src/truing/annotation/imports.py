"""Import of review items: the responses of a run, or only its drawn rows, and gold items.

`labels/draws.jsonl` in the run folder (written by `truing label`) names the drawn rows with their
probabilities; without it every response becomes an item. Gold items come from a JSONL file with
`prompt` or `messages`, `response`, `low` and `high`, and optionally `category`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from truing.annotation.review_items import GoldRange, NewItem, Target, add_item
from truing.annotation.store import Store
from truing.annotation.study import Study
from truing.core.batches import split_batches
from truing.core.errors import DataError, PlanError, RunError
from truing.core.jsonl import number_nonblank_lines
from truing.core.lineage import digest
from truing.core.types import Conversation, Message, Response, Sample
from truing.runs.folder import Manifest, Run

_BATCH = 200  # items in one transaction
_Draws = dict[tuple[str, int], float | None]  # (sample id, index) -> probability


class DrawnRow(Struct, frozen=True, kw_only=True):
    """One line of draws.jsonl: a response, its question and the probability of its draw."""

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


def run_source(manifest: Manifest) -> str:
    """Returns the source name of a run's items; it does not depend on where the folder lies."""
    return "run:" + digest(manifest.plan_hash, manifest.model, manifest.created)


def read_draws(path: Path) -> _Draws:
    """Returns the rows drawn for the question *harmful*, in the order drawn.

    Raises DataError with the line of the first fault.
    """
    decode = msgspec.json.Decoder(DrawnRow).decode
    draws: _Draws = {}
    for number, line in number_nonblank_lines(io.BytesIO(path.read_bytes()), path):
        try:
            row = decode(line)
        except msgspec.DecodeError as error:
            raise DataError.at(path, number, str(error)) from error
        if row.probability is not None and not 0 < row.probability <= 1:
            raise DataError.at(path, number, f"probability {row.probability} is not in (0, 1]")
        if row.question == "harmful":
            draws.setdefault((row.sample_id, row.index), row.probability)
    return draws


def _read_items(run: Run, draws: _Draws | None, source: str) -> Iterator[NewItem]:
    samples: dict[str, Sample] = {s.id: s for s in run.samples()}
    positions = {key: position for position, key in enumerate(draws or ())}
    for response in run.responses():
        if response.failure is not None or response.sample_id not in samples:
            continue
        key = response.sample_id, response.index
        if draws is not None and key not in draws:
            continue
        item = _make_item(samples[response.sample_id], response, source)
        if draws is not None:
            # Served first, in the order of the draw: if rating stops half-way, the rated rows are
            # still a random sample.
            item = replace(item, probability=draws[key], rank=positions[key] / 2**40)
        yield item


def _make_item(sample: Sample, response: Response, source: str) -> NewItem:
    messages = [*(m for m in sample.conversation.messages if m.role != "system"), response.message]
    target = Target(sample.id, response.index, len(messages) - 1, response.model)
    return NewItem(
        source=source,
        key=f"{sample.id}#{response.index}",
        conversation=Conversation(tuple(messages)),
        targets=(target,),
        harms=sample.harms or None,
    )


def _add_items(store: Store, new_items: Iterable[NewItem], study: Study) -> int:
    """Adds items in batches; returns how many were new."""

    def add_batch(batch: list[NewItem]) -> int:
        return store.write(lambda tx: sum(add_item(tx, item, study) is not None for item in batch))

    n_added = 0
    for batch in split_batches(new_items, _BATCH):
        n_added += add_batch(batch)
    return n_added


def import_run(store: Store, run: Run, study: Study, draws: Path | None = None) -> int:
    """Adds a run's responses to the queue; returns how many were new.

    `draws` replaces the run's own labels/draws.jsonl. Importing a run again adds nothing twice.
    """
    path = draws or run.file("labels/draws.jsonl")
    if draws is not None and not draws.is_file():
        raise RunError(f"{draws}: no such file of draws")
    drawn_rows = read_draws(path) if path.is_file() else None
    return _add_items(store, _read_items(run, drawn_rows, run_source(run.manifest)), study)


def import_gold(store: Store, path: Path, study: Study) -> int:
    """Adds gold items; returns how many were new. Raises DataError with every faulty line."""
    decode = msgspec.json.Decoder(_GoldRow).decode
    gold_items, faults = [], []
    if not path.is_file():
        raise DataError(f"{path}: no such file of gold items")
    for number, line in number_nonblank_lines(io.BytesIO(path.read_bytes()), path):
        try:
            gold_items.append(_make_gold_item(decode(line), study))
        except (msgspec.DecodeError, ValueError, PlanError) as error:
            faults.append(f"{path}:{number}: {error}")
    if faults:
        raise DataError(*faults)
    return _add_items(store, gold_items, study)


def _make_gold_item(row: _GoldRow, study: Study) -> NewItem:
    if not 1 <= row.low <= row.high <= 5:
        raise ValueError("low and high are grades from 1 to 5, low first")
    if (row.prompt is None) == (row.messages is None):
        raise ValueError("give prompt or messages")
    prompt = (
        Conversation.from_openai(row.messages) if row.messages else Conversation.of(str(row.prompt))
    )
    conversation = prompt.then(Message("assistant", row.response))
    names = [row.category] if isinstance(row.category, str) else row.category or []
    key = digest(msgspec.json.encode(conversation))
    return NewItem(
        source="gold",
        key=key,
        conversation=conversation,
        targets=(Target(f"gold-{key}", 0, len(conversation.messages) - 1),),
        harms=tuple(study.categories().find(name).id for name in names),
        gold=GoldRange(row.low, row.high),
    )
