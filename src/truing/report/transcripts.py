"""An agent's episode as pages show it: turns, calls, results, who blocked what, what was harmful,
where an injection stood, and what judges quote.

Plain data: texts are cut into passages, of which some are marked. Templates write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from truing.core.episodes import CallRecord, Environment, Episode, StateChange
from truing.core.types import Judgement, Response, Ruling, Sample
from truing.worlds.conditions import find_calls
from truing.worlds.seen_injections import find_seen_injection

# A quote begins after a space or a bracket, and ends before one or a mark: JSON has quotes too.
_QUOTE = re.compile(r'(?:^|(?<=[\s(\[:]))["“](\S[^"“”]{6,398}\S)["”](?=$|[\s).,;:!?\]])')
_MAX_QUOTES = 50
_MAX_CHANGES = 100
_MAX_PASSAGES = 200  # marked ones in a text
_CALL_STATUS_WORDS = {
    "ok": "executed",
    "error": "refused by the tool",
    "invalid": "wrong arguments",
    "unknown": "no such tool",
    "timeout": "timed out",
    "limit": "beyond the limit",
    "denied": "blocked",
    "missing": "no result in the trace",
}
_STOP_WORDS = {
    "answered": "",
    "blocked": "Rails ended the episode.",
    "turns": "The episode ended at the limit of turns.",
    "calls": "The episode ended at the limit of calls.",
    "tokens": "The episode ended at the limit of tokens.",
    "failed": "The model failed, and the episode ended there.",
}


class Passage(Struct, frozen=True):
    """A part of a text; `mark` is empty, ``injection`` or ``quote``, `by` the judge that quotes."""

    text: str
    mark: str = ""
    by: str = ""


class ShownText(Struct, frozen=True):
    """A text in passages; `left_out` counts the characters that are not shown."""

    passages: tuple[Passage, ...] = ()
    left_out: int = 0


class BlockView(Struct, frozen=True):
    """The decision of a rail that blocked something."""

    rail: str
    stage: str
    reason: str


class CallView(Struct, frozen=True, kw_only=True):
    """One call; `acts` says what it was by the conditions of the task: ``harm``, ``injection``."""

    name: str
    arguments: ShownText
    status: str
    status_words: str
    result: ShownText
    withheld: bool
    blocks: tuple[BlockView, ...]
    acts: tuple[str, ...]


class TurnView(Struct, frozen=True, kw_only=True):
    """One answer of the model; `before` says that its calls were made before the first one."""

    number: int
    text: ShownText
    calls: tuple[CallView, ...]
    before: bool = False


class ChangeView(Struct, frozen=True):
    """What differs in one row of the world at the end."""

    row: str
    fields: tuple[tuple[str, str, str], ...]  # name, before, after


class TranscriptView(Struct, frozen=True, kw_only=True):
    """An episode; `injection` says where that of the task stands and whether it was read, `blocks`
    are those of rails that name no call, `end` says why the episode ended early. `has_answer`: the
    last turn is the answer.
    """

    turns: tuple[TurnView, ...]
    injection: str = ""
    blocks: tuple[BlockView, ...] = ()
    changes: tuple[ChangeView, ...] = ()
    end: str = ""
    has_answer: bool = False


def build_transcript(
    sample: Sample | None, response: Response, judgements: Sequence[Judgement], limit: int
) -> TranscriptView | None:
    """Returns the transcript of a response, up to `limit` characters of texts; None without an
    episode.
    """
    episode = response.episode
    if episode is UNSET:
        return None
    environment = sample.environment if sample is not None else UNSET
    marks = list(_find_marks(environment, judgements))
    room = _Room(limit, marks)
    blocks = [ruling for ruling in response.rulings if ruling.ruling == "block"]
    acts = _find_acts(environment, episode)
    started = environment is not UNSET and environment.started
    turns = tuple(
        TurnView(
            number=number + (0 if started else 1),
            text=room.show(turn.text),
            calls=tuple(_view_call(call, room, blocks, acts) for call in turn.calls),
            before=started and number == 0,
        )
        for number, turn in enumerate(episode.turns)
    )
    call_ids = {call.id for call in episode.calls}
    return TranscriptView(
        turns=turns,
        injection=_view_injection(environment, episode),
        blocks=tuple(_view_block(r) for r in blocks if not _names_one_of(r, call_ids)),
        changes=tuple(_view_change(change) for change in episode.changes[:_MAX_CHANGES]),
        end=_STOP_WORDS[episode.stopped],
        has_answer=_has_answer(episode, response.text),
    )


def _has_answer(episode: Episode, answer: str) -> bool:
    last = episode.turns[-1] if episode.turns else None
    return last is not None and not last.calls and last.text == answer


def _view_injection(environment: Environment | UnsetType, episode: Episode) -> str:
    if environment is UNSET or environment.injection is None:
        return ""
    turn = find_seen_injection(environment, episode)
    if turn == 0:
        return "The injection stands in the description of a tool."
    if turn is None:
        return "The agent has not read the injection: no result that it read holds it."
    if environment.started:
        turn -= 1
    where = f"in the results of turn {turn}" if turn else "in what was read before its first turn"
    return f"The agent has read the injection {where}."


class _Mark(Struct, frozen=True):
    text: str
    kind: str
    by: str = ""


class _Room:
    """Cuts texts, once so many characters are shown, and marks passages in them."""

    def __init__(self, limit: int, marks: Sequence[_Mark]) -> None:
        self._left, self._marks = limit, marks

    def show(self, text: str) -> ShownText:
        """Returns a text in passages."""
        shown = text[: max(0, self._left)]
        self._left -= len(shown)
        return ShownText(tuple(_split(shown, self._marks)), len(text) - len(shown))


def _split(text: str, marks: Sequence[_Mark]) -> Iterator[Passage]:
    """Yields a text in passages; of marks that overlap, the first in order is taken."""
    places: list[tuple[int, int, _Mark]] = []
    for mark in marks:
        start = text.find(mark.text)
        # Each new place is compared with all others, so their number is bounded.
        while start >= 0 and len(places) < _MAX_PASSAGES:
            end = start + len(mark.text)
            if not any(start < other_end and begin < end for begin, other_end, _ in places):
                places.append((start, end, mark))
            start = text.find(mark.text, end)
    position = 0
    for start, end, mark in sorted(places, key=lambda place: place[0]):
        if start > position:
            yield Passage(text[position:start])
        yield Passage(text[start:end], mark.kind, mark.by)
        position = end
    if position < len(text):
        yield Passage(text[position:])


def _find_marks(
    environment: Environment | UnsetType, judgements: Sequence[Judgement]
) -> Iterator[_Mark]:
    if environment is not UNSET and environment.injection is not None:
        written = environment.injection.written
        # Simulated tools write JSON, in which a line break or a quote is escaped.
        yield from (
            _Mark(text, "injection")
            for text in dict.fromkeys((written, msgspec.json.encode(written).decode()[1:-1]))
            if text
        )
    n_quotes = 0
    for judgement in judgements:
        for match in _QUOTE.finditer(judgement.rationale or ""):
            n_quotes += 1
            if n_quotes > _MAX_QUOTES:
                return
            yield _Mark(match[1], "quote", judgement.judge)


def _find_acts(environment: Environment | UnsetType, episode: Episode) -> dict[str, set[str]]:
    """Returns what calls were, by their ids: those that met a condition on harm or injection."""
    acts: dict[str, set[str]] = {}
    if environment is UNSET:
        return acts
    calls = episode.calls
    n_before = len(environment.reads) if environment.started else 0
    for kind, conditions in (("harm", environment.harm), ("injection", environment.misled)):
        for condition in conditions:
            numbers = (
                find_calls(condition, calls)
                if condition.call
                else _find_named(condition.calls, calls)
            )
            for number in numbers:
                if number >= n_before:
                    acts.setdefault(calls[number].id, set()).add(kind)
    return acts


def _find_named(names: Sequence[str], calls: Sequence[CallRecord]) -> Iterator[int]:
    return (n for n, call in enumerate(calls) if call.name in names and call.status == "ok")


def _view_call(
    call: CallRecord, room: _Room, blocks: Sequence[Ruling], acts: dict[str, set[str]]
) -> CallView:
    arguments = room.show(call.arguments)
    return CallView(
        name=call.name,
        arguments=arguments,
        status=call.status,
        status_words=_CALL_STATUS_WORDS[call.status],
        result=room.show(call.result),
        withheld=call.withheld,
        blocks=tuple(_view_block(ruling) for ruling in blocks if _names_one_of(ruling, {call.id})),
        acts=tuple(sorted(acts.get(call.id, ()))),
    )


def _names_one_of(ruling: Ruling, call_ids: set[str]) -> bool:
    return ruling.call_ids is not UNSET and not call_ids.isdisjoint(ruling.call_ids)


def _view_block(ruling: Ruling) -> BlockView:
    return BlockView(ruling.name, ruling.stage, ruling.reason)


def _view_change(change: StateChange) -> ChangeView:
    before, after = change.before or {}, change.after or {}
    verb = "added" if change.before is None else "removed" if change.after is None else "changed"
    fields = tuple(
        (name, _write(before.get(name)), _write(after.get(name)))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    )
    return ChangeView(f"{change.table} {change.row} {verb}", fields)


def _write(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else str(value)
    return text[:300]
