"""Runs a conformance case on truing; the interface is that of `conformance/adapter_nemo.py`."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import numpy as np

from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.app import Runtime, RuntimeParts
from truing.rails.runtime.stream_buffer import StreamBuffer

ACTIONS_PRELUDE = "from truing.rails.actions import ActionResult, action\n"
EMBEDDING_SIZE = 512


class ScriptedModel:
    """Answers the n-th call with the n-th text; a call after the last one fails."""

    name = "script"
    lineage = Lineage(name="script")

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.calls = 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        if self.calls >= len(self.texts):
            return (Answer.failed("exhausted", "no more texts"),)
        self.calls += 1
        return (Answer.of(self.texts[self.calls - 1]),)


class BagOfWordsEncoder:
    """The hashed bag of words of the reference adapter."""

    def encode(self, texts: list[str]) -> Any:
        counts = np.zeros((len(texts), EMBEDDING_SIZE), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                counts[row, zlib.crc32(word.strip("?!.,\"'").encode()) % EMBEDDING_SIZE] += 1
        return counts


def run_case(config_dir: str, llm_outputs: list[str], user_turns: list[Any]) -> list[str]:
    """Returns the bot's turns."""
    return asyncio.run(_run_turns(config_dir, llm_outputs, user_turns))


async def _run_turns(config_dir: str, llm_outputs: list[str], user_turns: list[Any]) -> list[str]:
    model = ScriptedModel(list(llm_outputs))
    parts = RuntimeParts(encoder=BagOfWordsEncoder(), nemo_alias=True)
    runtime = build_runtime(RailsConfig.load(config_dir, trust_code=True), model, parts)
    # NeMo Guardrails reads each message by itself: a script has no replies for joined ones.
    runtime.input_gate.joins_turns = False
    history: list[dict[str, Any]] = []
    replies: list[str] = []
    for user_turn in user_turns:
        turn = {"user": user_turn} if isinstance(user_turn, str) else user_turn
        history += user_messages_of(turn)
        reply_text, message = await run_turn(runtime, history, turn)
        history.append(message)
        replies.append(reply_text)
    run_case.last_llm_calls = model.calls  # type: ignore[attr-defined]
    return replies


def user_messages_of(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the messages that a turn of a case adds to the history before the bot's."""
    messages: list[dict[str, Any]] = []
    if "context" in turn:
        messages.append({"role": "context", "content": turn["context"]})
    if "event" in turn:
        messages.append({"role": "event", "event": turn["event"]})
    else:
        messages.append({"role": "user", "content": turn["user"]})
    if "assistant" in turn:
        messages.append({"role": "assistant", "content": turn["assistant"]})
    return messages


async def run_turn(
    runtime: Runtime, history: list[dict[str, Any]], turn: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Returns the bot's reply as a case states it, and the message for the history."""
    if turn.get("stream"):
        text = await _collect_stream(runtime, history)
        return text, {"role": "assistant", "content": text}
    message = (await runtime.run_turn(history, options=turn.get("options"))).message
    if message["role"] == "exception":
        return f"EXCEPTION {message['content']['type']}", message
    return message["content"], message


async def _collect_stream(runtime: Runtime, history: list[dict[str, Any]]) -> str:
    buffer = StreamBuffer()
    task = asyncio.create_task(runtime.run_turn(list(history), stream=buffer))
    task.add_done_callback(lambda _: buffer.end())
    chunks = [chunk async for chunk in buffer]
    await task
    return "".join(chunks)
