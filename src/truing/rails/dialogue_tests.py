"""Tests of rails for a user's own CI: dialogues in YAML, run against a configuration.

    dialogues:
      - name: greeting llm: ["  express greeting"]          # the LLM's replies, call by call;
        without it a model answers turns:
          - user: Hello! bot: Hello, how can I help?      # or bot_any, bot_contains,
            bot_not_contains, bot_matches blocked: false                   # by any rail; or
            blocked_by: self check input intent: express greeting llm_calls: 1

The files are ``DIR/tests/*.yml``, which configurations do not read. A wrong key is reported with
file and line.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from truing.core.errors import PlanError
from truing.core.protocols import Model
from truing.core.types import Answer, Conversation, Lineage, Ruling, Sampling
from truing.rails.config.generation_options import find_option_faults
from truing.rails.config.loader import RailsConfig
from truing.rails.config.schema import ANY_KEYS, find_schema_faults
from truing.rails.guarded import GuardedModel
from truing.rails.library.guard_models import is_guard_key
from truing.rails.runtime.app import RailsError, Runtime, RuntimeParts
from truing.rails.runtime.llm_client import LlmError
from truing.rails.runtime.turn_result import TurnResult
from truing.rails.yaml_lines import load_with_lines

TESTS_FOLDER = "tests"
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
_TURN_INPUT_KEYS = ("user", "event", "tool")
_Lines = dict[tuple[str | int, ...], int]  # path of a YAML key -> its line


class DialogueTest(Struct, frozen=True, kw_only=True):
    """One dialogue of a file.

    `place` is its ``file:line``, `lines` the lines of its turns. `llm` holds the LLM's scripted
    replies; None: a model answers. The turns are the mappings of the file.
    """

    place: str
    name: str
    turns: tuple[dict[str, Any], ...]
    lines: tuple[int, ...] = ()
    llm: tuple[str, ...] | None = None
    seed: int = 0


class DialogueTurn(Struct, frozen=True, kw_only=True):
    """A turn as it went: what came in (a user's text, else the mapping of the file as JSON), what
    the bot answered, the decisions of the rails, and the milliseconds.
    """

    input: str
    bot: str
    rulings: tuple[Ruling, ...] = ()
    ms: float = 0.0


class DialogueOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of a dialogue: what the bot said, and the failed expectations."""

    dialogue: str
    place: str
    passed: bool
    faults: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    llm_calls: int = 0
    seconds: float = 0.0
    turns: tuple[DialogueTurn, ...] = ()


class ScriptedLlm:
    """A model that returns the given replies, one per call; a call too many is a failed answer."""

    name = "scripted"
    lineage = Lineage(name="scripted")

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies, self.calls = list(replies), 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the next reply."""
        self.calls += 1
        if self.calls > len(self.replies):
            message = (
                f"call {self.calls} of the LLM, and the dialogue's llm: has {len(self.replies)} "
                f"texts"
            )
            return (Answer.failed("no_text", message),)
        return (Answer.of(self.replies[self.calls - 1]),)


# -- reading files -----------------------------------------------------------------------------


def find_dialogue_files(folder: Path, files: Sequence[Path] = ()) -> list[Path]:
    """Returns the given files, or else ``DIR/tests/*.yml``. Raises PlanError if there are none."""
    if files:
        return list(files)
    tests = folder / TESTS_FOLDER
    files_in_folder = sorted(path for path in tests.glob("*") if path.suffix in (".yml", ".yaml"))
    if not files_in_folder:
        raise PlanError(f"{tests}: no dialogues (*.yml); docs/rails.md shows how to write them")
    return files_in_folder


def read_dialogues(files: Sequence[Path]) -> list[DialogueTest]:
    """Reads files of dialogues. Raises PlanError with all faults of all files."""
    dialogues: list[DialogueTest] = []
    errors: list[str] = []
    for file in files:
        try:
            dialogues += _read_file(file)
        except PlanError as error:
            errors += error.faults
    if errors:
        raise PlanError(*errors)
    return dialogues


def _read_file(file: Path) -> list[DialogueTest]:
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(f"{file.name}:1: not valid UTF-8") from error
    except OSError as error:
        raise PlanError(f"{file}: {error.strerror}") from error
    return parse_dialogues(file.name, text)


def parse_dialogues(name: str, text: str) -> list[DialogueTest]:
    """Returns the dialogues in the text of a file. Raises PlanError with all faults, by line."""
    try:
        document, lines = load_with_lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or error
        raise PlanError(f"{name}:{line}: {problem}") from error
    if not isinstance(document, dict) or not isinstance(document.get("dialogues"), list):
        raise PlanError(f"{name}:1: expected dialogues: with a list")
    errors = [
        f"{name}:{_line_of(lines, path)}: {what}"
        for path, what in find_schema_faults(document, _SCHEMA)
    ]
    if errors:
        raise PlanError(*errors)
    dialogues = [
        _parse_dialogue(name, index, raw or {}, lines)
        for index, raw in enumerate(document["dialogues"])
    ]
    errors = [error for dialogue in dialogues for error in _dialogue_errors(dialogue)]
    if errors:
        raise PlanError(*errors)
    return dialogues


def _line_of(lines: _Lines, path: tuple[str | int, ...]) -> int:
    """Returns the line of a key, or of the nearest key above it that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _parse_dialogue(file: str, index: int, raw: dict[str, Any], lines: _Lines) -> DialogueTest:
    turns = tuple(dict(turn or {}) for turn in raw.get("turns") or [])
    path = ("dialogues", index)
    llm = raw.get("llm")
    return DialogueTest(
        place=f"{file}:{_line_of(lines, path)}",
        name=str(raw.get("name") or f"dialogue {index + 1}"),
        turns=turns,
        lines=tuple(_line_of(lines, (*path, "turns", k)) for k in range(len(turns))),
        llm=tuple(str(reply) for reply in llm) if llm is not None else None,
        seed=int(raw.get("seed") or 0),
    )


def _dialogue_errors(dialogue: DialogueTest) -> Iterator[str]:
    """Yields what the schema cannot say: missing turns, the input of a turn, invalid patterns."""
    file = dialogue.place.rpartition(":")[0]
    if not dialogue.turns:
        yield f"{dialogue.place}: a dialogue needs turns"
    for turn, line in zip(dialogue.turns, dialogue.lines, strict=True):
        if sum(key in turn for key in _TURN_INPUT_KEYS) != 1:
            yield f"{file}:{line}: a turn needs one of {', '.join(_TURN_INPUT_KEYS)}"
        for name, what in find_option_faults(turn.get("options")):
            yield f"{file}:{line}: options.{name}: {what}"
        try:
            re.compile(turn.get("bot_matches", ""))
        except re.error as error:
            yield f"{file}:{line}: bot_matches: {error}"


# -- running -----------------------------------------------------------------------------------


class DialogueRunner:
    """Runs dialogues on a configuration. `model` answers where a dialogue scripts no LLM, with at
    most `max_tokens`; `show_rulings` returns the decisions as the reader of the outcome may see
    them.
    """

    def __init__(
        self,
        config: RailsConfig,
        model: Model | None,
        parts: RuntimeParts | None = None,
        *,
        max_tokens: int = Sampling().max_tokens,
        show_rulings: Callable[[tuple[Ruling, ...]], tuple[Ruling, ...]] = lambda rulings: rulings,
    ) -> None:
        self.config, self.model, self.parts = config, model, parts or RuntimeParts()
        self.max_tokens, self.show_rulings = max_tokens, show_rulings
        # Judges that ask a model of the configuration are built anew where a script answers for it.
        own_judges = {k: j for k, j in self.parts.judges.items() if not is_guard_key(k)}
        self._judges = {False: dict(self.parts.judges), True: own_judges}

    def run(self, dialogues: Sequence[DialogueTest]) -> list[DialogueOutcome]:
        """Returns the outcome of each dialogue."""
        return asyncio.run(self.run_async(dialogues))

    async def run_async(self, dialogues: Sequence[DialogueTest]) -> list[DialogueOutcome]:
        """As `run`, in a running event loop."""
        # One after the other: a scripted LLM counts its calls.
        return [await self._run_dialogue(dialogue) for dialogue in dialogues]

    def _build_runtime(self, model: Model, is_scripted: bool) -> Runtime:
        """Builds a fresh runtime; a scripted LLM also answers for the models of single tasks."""
        models = self.parts.models
        if is_scripted:
            tasks = (m.type for m in self.config.models if m.type not in ("main", "embeddings"))
            models = dict.fromkeys(tasks, model)
        runtime_parts = RuntimeParts(
            models=models,
            judges=self._judges[is_scripted],
            encoder=self.parts.encoder,
            actions=self.parts.actions,
            nemo_alias=self.parts.nemo_alias,
        )
        runtime = GuardedModel(self.config, model, parts=runtime_parts).runtime
        if is_scripted:
            # A script has replies for the LLM calls that NeMo Guardrails would make; the checks of
            # joined texts would use up some of them.
            runtime.input_gate.joins_turns = False
        if not is_scripted:
            # Loading them is slow: the next dialogue has the same.
            self._judges[False] = dict(runtime_parts.judges)
        self._judges[True] |= {k: j for k, j in runtime_parts.judges.items() if not is_guard_key(k)}
        return runtime

    async def _run_dialogue(self, dialogue: DialogueTest) -> DialogueOutcome:
        clock = asyncio.get_running_loop().time
        start_time = clock()
        scripted: ScriptedLlm | None = None
        if dialogue.llm is not None or self.model is None:
            scripted = ScriptedLlm(dialogue.llm or ())
        model: Model | None = scripted if scripted is not None else self.model
        assert model is not None
        # In a thread: judges and encoders are loaded.
        runtime = await asyncio.to_thread(self._build_runtime, model, scripted is not None)
        file = dialogue.place.rpartition(":")[0]
        history: list[dict[str, Any]] = []
        errors: list[str] = []
        turns: list[DialogueTurn] = []
        llm_calls = 0
        for turn, line in zip(dialogue.turns, dialogue.lines, strict=True):
            history += _input_messages(turn)
            sampling = Sampling(seed=dialogue.seed, max_tokens=self.max_tokens)
            turn_start = clock()
            answer = await _run_turn(runtime, history, turn, sampling)
            if isinstance(answer, str):
                errors.append(f"{file}:{line}: {answer}")
                break
            answer.rulings = self.show_rulings(answer.rulings)
            llm_calls += answer.llm_calls
            turns.append(
                DialogueTurn(
                    input=_shown_input(turn),
                    bot=answer.text,
                    rulings=answer.rulings,
                    ms=round(1000 * (clock() - turn_start), 1),
                )
            )
            # Also that of an exception: the next turn goes on after it.
            history.append(answer.message)
            errors += [f"{file}:{line}: {fault}" for fault in unmet_expectations(turn, answer)]
        if scripted is not None and not errors and scripted.calls < len(scripted.replies):
            errors.append(
                f"{dialogue.place}: the LLM was asked {scripted.calls} times, "
                f"and llm: has {len(scripted.replies)} texts"
            )
        return DialogueOutcome(
            dialogue=dialogue.name,
            place=dialogue.place,
            passed=not errors,
            faults=tuple(errors),
            said=tuple(turn.bot for turn in turns),
            llm_calls=llm_calls,
            seconds=round(clock() - start_time, 4),
            turns=tuple(turns),
        )


def _shown_input(turn: dict[str, Any]) -> str:
    if "user" in turn:
        return str(turn["user"])
    return json.dumps({key: turn[key] for key in _TURN_INPUT_KEYS if key in turn}, default=str)


def _input_messages(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the messages that a turn of the file adds to the conversation."""
    messages: list[dict[str, Any]] = []
    if "context" in turn:
        messages.append({"role": "context", "content": turn["context"]})
    if "event" in turn:
        messages.append({"role": "event", "event": dict(turn["event"] or {})})
    elif "tool" in turn:
        messages.append({"role": "tool", "tool_call_id": "call", **turn["tool"]})
    else:
        messages.append({"role": "user", "content": turn["user"]})
    if "assistant" in turn:
        messages.append({"role": "assistant", "content": turn["assistant"]})
    return messages


async def _run_turn(
    runtime: Runtime, history: list[dict[str, Any]], turn: dict[str, Any], sampling: Sampling
) -> TurnResult | str:
    """Returns the result of a turn, or why it could not be finished."""
    if "event" in turn and not isinstance((turn["event"] or {}).get("type"), str):
        return "an event needs a type"
    try:
        return await runtime.run_turn(history, options=turn.get("options"), sampling=sampling)
    except (LlmError, RailsError) as error:
        return f"the turn could not be finished: {error}"


# -- expectations ------------------------------------------------------------------------------


def unmet_expectations(turn: dict[str, Any], result: TurnResult) -> Iterator[str]:
    """Yields what a turn of the file expects and the result does not meet."""
    if result.failure is not None and not turn.get("blocked"):
        yield f"the turn failed: {result.failure.message}"
    yield from _unmet_texts(turn, result.text)
    yield from _unmet_rulings(turn, result)
    yield from _unmet_events(turn, result)
    if "llm_calls" in turn and result.llm_calls != turn["llm_calls"]:
        yield f"expected {turn['llm_calls']} LLM calls, there were {result.llm_calls}"
    tools = [call.name for call in result.tool_calls]
    if "tools" in turn and tools != list(turn["tools"]):
        yield f"expected the tool calls {turn['tools']}, they were {tools}"
    for name, value in (turn.get("variables") or {}).items():
        if result.context.get(name) != value:
            yield f"expected ${name} = {value!r}, it is {result.context.get(name)!r}"


def _as_list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _unmet_texts(turn: dict[str, Any], text: str) -> Iterator[str]:
    if "bot" in turn and text != turn["bot"]:
        yield f"expected {turn['bot']!r}, the bot said {text!r}"
    if "bot_any" in turn and text not in turn["bot_any"]:
        yield f"expected one of {turn['bot_any']}, the bot said {text!r}"
    for part in _as_list(turn["bot_contains"]) if "bot_contains" in turn else []:
        if part not in text:
            yield f"expected {part!r} in {text!r}"
    for part in _as_list(turn["bot_not_contains"]) if "bot_not_contains" in turn else []:
        if part in text:
            yield f"{part!r} must not stand in {text!r}"
    if "bot_matches" in turn and re.search(turn["bot_matches"], text) is None:
        yield f"{turn['bot_matches']!r} does not match {text!r}"


def _unmet_rulings(turn: dict[str, Any], turn_result: TurnResult) -> Iterator[str]:
    if "blocked" in turn and turn_result.blocked is not turn["blocked"]:
        if turn_result.blocked:
            blocks = [
                f"{r.name}: {r.reason}{f' ({r.evidence})' if r.evidence else ''}"
                for r in turn_result.rulings
                if r.ruling == "block"
            ]
            yield f"blocked by {', '.join(blocks) or 'an exception'}"
        else:
            yield f"not blocked, the bot said {turn_result.text!r}"
    for key, ruling in (("blocked_by", "block"), ("rewritten_by", "rewrite")):
        rails = [r.name for r in turn_result.rulings if r.ruling == ruling]
        if key in turn and turn[key] not in rails:
            yield f"{key}: expected {turn[key]!r}, it was {rails or 'no rail'}"


def _unmet_events(turn: dict[str, Any], result: TurnResult) -> Iterator[str]:
    user_intents = [e["intent"] for e in result.events if e["type"] == "UserIntent"]
    if "intent" in turn and turn["intent"] not in user_intents:
        yield f"expected the intent {turn['intent']!r}, it was {user_intents or 'none'}"
    bot_intents = [e["intent"] for e in result.events if e["type"] == "BotIntent"]
    bot_messages = [intent for intent in bot_intents if intent != "stop"]
    if "flow_says" in turn and bot_messages != list(turn["flow_says"]):
        yield f"expected the bot messages {turn['flow_says']}, they were {bot_messages}"
