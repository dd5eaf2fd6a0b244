"""Runs a conformance case on truing; see `conformance/adapter_nemo.py` for what an adapter is."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Any

import numpy as np

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import Runtime, RuntimeParts
from truing.rails.runtime.stream_buffer import StreamBuffer

ACTIONS_PRELUDE = "from truing.rails.actions import ActionResult, action\n"


class Script:
    """The n-th call gets the n-th text; one call too many is a failure."""

    name = "script"
    lineage = Lineage(name="script")

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.calls = 0

    def _next(self) -> Answer:
        if self.calls >= len(self.texts):
            return Answer.failed("exhausted", "no more texts")
        self.calls += 1
        return Answer.of(self.texts[self.calls - 1])

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (self._next(),)


class Words:
    """The hashed bag of words of the reference adapter."""

    def encode(self, texts: list[str]) -> Any:
        made = np.zeros((len(texts), 512), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                made[row, zlib.crc32(word.strip("?!.,\"'").encode()) % 512] += 1
        return made


def run_case(config_dir: str, llm_outputs: list[str], user_turns: list[Any]) -> list[str]:
    """The bot's turns."""
    return asyncio.run(_run(config_dir, llm_outputs, user_turns))


async def _run(config_dir: str, llm_outputs: list[str], user_turns: list[Any]) -> list[str]:
    model = Script(list(llm_outputs))
    runtime = build_runtime(
        RailsConfig.load(config_dir), model, RuntimeParts(encoder=Words(), nemo_alias=True)
    )
    history: list[dict[str, Any]] = []
    said: list[str] = []
    for given in user_turns:
        turn = {"user": given} if isinstance(given, str) else given
        if "context" in turn:
            history.append({"role": "context", "content": turn["context"]})
        if "event" in turn:
            history.append({"role": "event", "event": turn["event"]})
        else:
            history.append({"role": "user", "content": turn["user"]})
        if "assistant" in turn:
            history.append({"role": "assistant", "content": turn["assistant"]})
        if turn.get("stream"):
            text = await _streamed(runtime, history)
            message: dict[str, Any] = {"role": "assistant", "content": text}
        else:
            result = await runtime.run_turn(history, options=turn.get("options"))
            message = result.message
            content = message["content"]
            text = f"EXCEPTION {content['type']}" if message["role"] == "exception" else content
        history.append(message)
        said.append(text)
    run_case.last_llm_calls = model.calls  # type: ignore[attr-defined]
    return said


async def _streamed(runtime: Runtime, history: list[dict[str, Any]]) -> str:
    buffer = StreamBuffer()
    task = asyncio.create_task(runtime.run_turn(history, stream=buffer))
    task.add_done_callback(lambda _: buffer.end())
    pieces = [piece async for piece in buffer]
    await task
    return "".join(pieces)


def words(text: str) -> list[str]:
    """Words, for tests."""
    return re.findall(r"\w+", text)
