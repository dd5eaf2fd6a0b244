"""What `LLMRails` returns, with the attributes of NeMo's classes of the same names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from truing.rails.runtime.llm_client import LlmCallRecord


@dataclass(slots=True)
class LLMCallInfo:
    """One call of an LLM; `duration` is in seconds."""

    task: str
    prompt: str
    completion: str
    duration: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    @classmethod
    def of(cls, record: LlmCallRecord) -> LLMCallInfo:
        """Returns the call of a turn's record."""
        return cls(
            task=record.task,
            prompt=record.prompt,
            completion=record.completion,
            duration=record.seconds,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            total_tokens=record.prompt_tokens + record.completion_tokens,
        )


@dataclass(slots=True)
class ExplainInfo:
    """The LLM calls and the events of the last turn."""

    llm_calls: list[LLMCallInfo] = field(default_factory=list)
    colang_history: str = ""

    def print_llm_calls_summary(self) -> None:
        """Prints one line for each call."""
        sys.stdout.write(summarise_calls(self.llm_calls) + "\n")


def summarise_calls(calls: Sequence[LLMCallInfo]) -> str:
    """Returns a line for each call, under one for all of them."""
    if not calls:
        return "No LLM calls were made."
    seconds = sum(call.duration for call in calls)
    lines = [f"Summary: {len(calls)} LLM call(s) took {seconds:.2f} seconds."]
    lines += [
        f"{number}. Task `{call.task}` took {call.duration:.2f} seconds."
        for number, call in enumerate(calls, 1)
    ]
    return "\n".join(lines)


@dataclass(slots=True)
class GenerationResponse:
    """The result of a generation with options: `response` is a text for a prompt, else messages.

    `rulings` (truing's own) says what each rail decided and why.
    """

    response: str | list[dict[str, Any]]
    llm_output: dict[str, Any] | None = None
    output_data: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    rulings: tuple[Any, ...] = ()
