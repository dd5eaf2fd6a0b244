"""Dialogues written in YAML, run against a configuration: tests of rails for a user's own CI.

    dialogues:
      - name: greeting
        llm: ["  express greeting"]          # what the LLM says, call by call; without it a model answers
        turns:
          - user: Hello!
            bot: Hello, how can I help?      # or bot_any, bot_contains, bot_not_contains, bot_matches
            blocked: false                   # by any rail; or blocked_by: self check input
            intent: express greeting
            llm_calls: 1

They lie in ``DIR/tests/*.yml``, which configurations do not read. A wrong key is a fault with file and line.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.config.schema import ANY_KEYS, find_schema_faults
from truing.rails.guarded import Guarded
from truing.rails.runtime.app import Parts, RailsError, Result, Runtime
from truing.rails.runtime.llm_client import LlmError
from truing.rails.yaml_lines import load_with_lines

TESTS = "tests"
_TURN: dict[str, Any] = {
    "user": str,
    "event": ANY_KEYS,
    "context": ANY_KEYS,
    "tool": ANY_KEYS,
    "options": ANY_KEYS,
    "bot": str,
    "bot_any": [str],
    "bot_contains": object,
    "bot_not_contains": object,
    "bot_matches": str,
    "blocked": bool,
    "blocked_by": str,
    "rewritten_by": str,
    "intent": str,
    "flow_says": [str],
    "llm_calls": int,
    "tools": [str],
    "variables": ANY_KEYS,
    "assistant": str,
}
_SCHEMA: dict[str, Any] = {
    "dialogues": [{"name": str, "llm": [str], "seed": int, "turns": [_TURN]}]
}
_INPUTS = ("user", "event", "tool")


class Dialogue(Struct, frozen=True, kw_only=True):
    """One dialogue: its place, the LLM's scripted texts (none: a model answers), its turns as they stand in the file."""

    place: str
    name: str
    turns: tuple[dict[str, Any], ...]
    lines: tuple[int, ...] = ()
    llm: tuple[str, ...] | None = None
    seed: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """How a dialogue went: the faults with their places, what the bot said."""

    dialogue: str
    place: str
    passed: bool
    faults: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    llm_calls: int = 0
    seconds: float = 0.0


class Scripted:
    """A model that says given texts, one a call; one call too many is a failure."""

    name = "scripted"
    lineage = Lineage(name="scripted")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.calls = list(texts), 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """The next text."""
        self.calls += 1
        if self.calls > len(self.texts):
            said = (
                f"call {self.calls} of the LLM, and the dialogue's llm: has {len(self.texts)} texts"
            )
            return (Answer.failed("no_text", said),)
        return (Answer.of(self.texts[self.calls - 1]),)


def find(folder: Path, given: Sequence[Path] = ()) -> list[Path]:
    """The files of dialogues: the given ones, or ``DIR/tests/*.yml``; PlanError where there are none."""
    files = list(given)
    if not files:
        files = sorted(p for p in (folder / TESTS).glob("*") if p.suffix in (".yml", ".yaml"))
    if not files:
        raise PlanError(
            f"{folder / TESTS}: no dialogues (*.yml); docs/rails.md shows how to write them"
        )
    return files


def read(files: Sequence[Path]) -> list[Dialogue]:
    """Reads files of dialogues; PlanError with every fault."""
    found: list[Dialogue] = []
    wrong: list[str] = []
    for file in files:
        try:
            value, lines = load_with_lines(file.read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            wrong.append(f"{file.name}:1: not valid UTF-8")
            continue
        except OSError as error:
            wrong.append(f"{file}: {error.strerror}")
            continue
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            wrong.append(
                f"{file.name}:{mark.line + 1 if mark else 1}: {getattr(error, 'problem', None) or error}"
            )
            continue
        if not isinstance(value, dict) or not isinstance(value.get("dialogues"), list):
            wrong.append(f"{file.name}:1: expected dialogues: with a list")
            continue
        bad = [(p, what) for p, what in find_schema_faults(value, _SCHEMA)]
        wrong += [f"{file.name}:{_line(lines, p)}: {what}" for p, what in bad]
        if not bad:
            for at, raw in enumerate(value["dialogues"]):
                wrong += _dialogue(file.name, at, raw or {}, lines, found)
    if wrong:
        raise PlanError(*wrong)
    return found


def _line(lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _dialogue(
    file: str,
    at: int,
    raw: dict[str, Any],
    lines: dict[tuple[str | int, ...], int],
    into: list[Dialogue],
) -> Iterator[str]:
    turns = [dict(t or {}) for t in raw.get("turns") or []]
    numbers = tuple(_line(lines, ("dialogues", at, "turns", k)) for k in range(len(turns)))
    place = f"{file}:{_line(lines, ('dialogues', at))}"
    if not turns:
        yield f"{place}: a dialogue needs turns"
    for turn, line in zip(turns, numbers):
        if sum(k in turn for k in _INPUTS) != 1:
            yield f"{file}:{line}: a turn needs one of {', '.join(_INPUTS)}"
        for key in ("bot_matches",):
            try:
                re.compile(turn.get(key, ""))
            except re.error as error:
                yield f"{file}:{line}: {key}: {error}"
    llm = raw.get("llm")
    into.append(
        Dialogue(
            place=place,
            name=str(raw.get("name") or f"dialogue {at + 1}"),
            turns=tuple(turns),
            lines=numbers,
            llm=tuple(str(t) for t in llm) if llm is not None else None,
            seed=int(raw.get("seed") or 0),
        )
    )


class Runner:
    """Runs dialogues on a configuration. `model` answers where a dialogue scripts no LLM."""

    def __init__(
        self, config: RailsConfig, model: Model | None, parts: Parts | None = None
    ) -> None:
        self.config, self.model, self.parts = config, model, parts or Parts()

    def run(self, dialogues: Sequence[Dialogue]) -> list[Outcome]:
        """The outcome of each dialogue."""
        return asyncio.run(self._all(dialogues))

    async def _all(self, dialogues: Sequence[Dialogue]) -> list[Outcome]:
        return [await self._one(d) for d in dialogues]

    async def _one(self, dialogue: Dialogue) -> Outcome:
        clock = asyncio.get_running_loop().time
        began = clock()
        scripted = dialogue.llm is not None or self.model is None
        model: Model = (
            Scripted(dialogue.llm or ()) if scripted or self.model is None else self.model
        )
        tasks = {m.type: model for m in self.config.models if m.type not in ("main", "embeddings")}
        given = self.parts
        parts = Parts(
            tasks if scripted else given.models,
            given.judges,
            given.encoder,
            given.actions,
            given.nemo_alias,
        )
        runtime = Guarded(self.config, model, parts=parts).runtime
        given.judges = parts.judges  # resolved once
        file = dialogue.place.rpartition(":")[0]
        history: list[dict[str, Any]] = []
        faults: list[str] = []
        said: list[str] = []
        calls = 0
        for turn, line in zip(dialogue.turns, dialogue.lines):
            history += _inputs(turn)
            result = await _turn(runtime, history, turn, dialogue.seed)
            if isinstance(result, str):
                faults.append(f"{file}:{line}: {result}")
                break
            calls += result.llm_calls
            said.append(result.text)
            history.append(
                result.message
                if result.message["role"] == "assistant"
                else {"role": "assistant", "content": ""}
            )
            faults += [f"{file}:{line}: {what}" for what in expectations(turn, result)]
        if (
            scripted
            and isinstance(model, Scripted)
            and dialogue.llm
            and model.calls < len(dialogue.llm)
            and not faults
        ):
            faults.append(
                f"{dialogue.place}: the LLM was asked {model.calls} times, and llm: has {len(dialogue.llm)} texts"
            )
        return Outcome(
            dialogue=dialogue.name,
            place=dialogue.place,
            passed=not faults,
            faults=tuple(faults),
            said=tuple(said),
            llm_calls=calls,
            seconds=round(clock() - began, 4),
        )


def _inputs(turn: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if "context" in turn:
        rows.append({"role": "context", "content": turn["context"]})
    if "event" in turn:
        rows.append({"role": "event", "event": dict(turn["event"] or {})})
    elif "tool" in turn:
        rows.append({"role": "tool", "tool_call_id": "call", **turn["tool"]})
    else:
        rows.append({"role": "user", "content": turn["user"]})
    if "assistant" in turn:
        rows.append({"role": "assistant", "content": turn["assistant"]})
    return rows


async def _turn(
    runtime: Runtime, history: list[dict[str, Any]], turn: dict[str, Any], seed: int
) -> Result | str:
    if "event" in turn and not isinstance((turn["event"] or {}).get("type"), str):
        return "an event needs a type"
    try:
        return await runtime.turn(
            history, options=turn.get("options"), sampling=Sampling(seed=seed)
        )
    except (LlmError, RailsError) as error:
        return f"the turn could not be finished: {error}"


def _many(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def expectations(turn: dict[str, Any], result: Result) -> Iterator[str]:
    """What a turn expects and the result does not hold."""
    text = result.text
    if result.failure is not None and not turn.get("blocked"):
        yield f"the turn failed: {result.failure.message}"
    if "bot" in turn and text != turn["bot"]:
        yield f"expected {turn['bot']!r}, the bot said {text!r}"
    if "bot_any" in turn and text not in turn["bot_any"]:
        yield f"expected one of {turn['bot_any']}, the bot said {text!r}"
    for part in _many(turn["bot_contains"]) if "bot_contains" in turn else []:
        if part not in text:
            yield f"expected {part!r} in {text!r}"
    for part in _many(turn["bot_not_contains"]) if "bot_not_contains" in turn else []:
        if part in text:
            yield f"{part!r} must not stand in {text!r}"
    if "bot_matches" in turn and re.search(turn["bot_matches"], text) is None:
        yield f"{turn['bot_matches']!r} does not match {text!r}"
    if "blocked" in turn and result.blocked is not turn["blocked"]:
        by = ", ".join(f"{r.name}: {r.reason}" for r in result.rulings if r.ruling == "block")
        yield (
            f"blocked by {by or 'an exception'}"
            if result.blocked
            else f"not blocked, the bot said {text!r}"
        )
    for key, ruling in (("blocked_by", "block"), ("rewritten_by", "rewrite")):
        names = [r.name for r in result.rulings if r.ruling == ruling]
        if key in turn and turn[key] not in names:
            yield f"{key}: expected {turn[key]!r}, it was {names or 'no rail'}"
    intents = [e["intent"] for e in result.events if e["type"] == "UserIntent"]
    if "intent" in turn and turn["intent"] not in intents:
        yield f"expected the intent {turn['intent']!r}, it was {intents or 'none'}"
    messages = [
        e["intent"] for e in result.events if e["type"] == "BotIntent" and e["intent"] != "stop"
    ]
    if "flow_says" in turn and messages != list(turn["flow_says"]):
        yield f"expected the bot messages {turn['flow_says']}, they were {messages}"
    if "llm_calls" in turn and result.llm_calls != turn["llm_calls"]:
        yield f"expected {turn['llm_calls']} LLM calls, there were {result.llm_calls}"
    tools = [c.name for c in result.tool_calls]
    if "tools" in turn and tools != list(turn["tools"]):
        yield f"expected the tool calls {turn['tools']}, they were {tools}"
    for name, value in (turn.get("variables") or {}).items():
        if result.context.get(name) != value:
            yield f"expected ${name} = {value!r}, it is {result.context.get(name)!r}"
