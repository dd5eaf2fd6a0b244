"""Runs generated cases on truing, in the form of `peer_nemo`."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any
from unittest.mock import patch

from adapter_truing import ACTIONS_PRELUDE, Words
from rails_cases import write_config

from truing.core.errors import PlanError, TruingError
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import Runtime, RuntimeParts
from truing.rails.runtime.stream_buffer import StreamBuffer

_MARKS = {
    "Answer with the canonical form": "intent",
    "Continue with the bot's next step": "next",
    "Write the text of the bot's message": "message",
    "write three lines": "single",
    "Write only the value": "value",
    "CHECK input": "check",
    "CHECK output": "check",
}


class First:
    """A random generator that always takes the first."""

    def __init__(self, seed: object = None) -> None:
        pass

    def choice(self, items: Any) -> Any:
        return items[0]


class ByTask:
    """Answers by task."""

    name = "by-task"
    lineage = Lineage(name="by-task")

    def __init__(self, answers: dict[str, list[str]], multi: bool) -> None:
        self.answers, self.multi = answers, multi
        self.tasks: list[str] = []
        self.counts: dict[str, int] = {}
        self.otherwise = "general"

    def for_messages(self) -> ByTask:
        """The same model for bot messages: a prompt without a mark is one that was passed through."""
        other = ByTask(self.answers, self.multi)
        other.tasks, other.counts, other.otherwise = self.tasks, self.counts, "message"
        return other

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        text = conversation.messages[-1].content
        task = next((t for mark, t in _MARKS.items() if mark in text), self.otherwise)
        if task == "next" and self.multi:
            task = "multi"
        at = self.counts[task] = self.counts.get(task, -1) + 1
        if at >= len(self.answers[task]):
            return (Answer.failed("exhausted", "no more answers"),)
        self.tasks.append(task)
        return (Answer.of(self.answers[task][at]),)


def run(case: dict[str, Any]) -> dict[str, Any]:
    """What truing says to a generated case."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("truing.rails.runtime.turn_context.Random", First),
    ):
        write_config(case, folder, ACTIONS_PRELUDE)
        try:
            config = RailsConfig.load(folder)
            model = ByTask(case["llm"], config.multi_step)
            models = {"generate_bot_message": model.for_messages()}
            runtime = build_runtime(config, model, RuntimeParts(encoder=Words(), models=models))
        except PlanError as error:
            return {"id": case["id"], "refused": str(error)}
        said = asyncio.run(_turns(runtime, case["turns"]))
        return {"id": case["id"], "said": said, "tasks": model.tasks}


async def _turns(runtime: Runtime, turns: list[dict[str, Any]]) -> list[str]:
    history: list[dict[str, Any]] = []
    said: list[str] = []
    for turn in turns:
        if "context" in turn:
            history.append({"role": "context", "content": turn["context"]})
        if "event" in turn:
            history.append({"role": "event", "event": turn["event"]})
        else:
            history.append({"role": "user", "content": turn["user"]})
        if "assistant" in turn:
            history.append({"role": "assistant", "content": turn["assistant"]})
        try:
            if turn.get("stream"):
                text = await _stream(runtime, history)
                message: dict[str, Any] = {"role": "assistant", "content": text}
            else:
                message = (await runtime.run_turn(history, options=turn.get("options"))).message
                content = message["content"]
                text = f"EXCEPTION {content['type']}" if message["role"] == "exception" else content
        except TruingError as error:
            said.append(f"RAISES {type(error).__name__}: {str(error)[:160]}")
            break
        history.append(message)
        said.append(text)
    return said


async def _stream(runtime: Runtime, history: list[dict[str, Any]]) -> str:
    buffer = StreamBuffer()
    task = asyncio.create_task(runtime.run_turn(list(history), stream=buffer))
    task.add_done_callback(lambda _: buffer.end())
    pieces = [piece async for piece in buffer]
    await task
    return "".join(pieces)
