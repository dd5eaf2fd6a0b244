"""What `LLMRails` returns, with the attributes of NeMo's classes of the same names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

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


class LogFields(dict[str, Any]):
    """A part of a generation log; its keys are also attributes, as in NeMo's classes."""

    optional: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in self.optional:
            return None
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Returns the fields with the mappings in them as `LogFields`."""
        return cls({name: _with_attributes(value) for name, value in fields.items()})


def _with_attributes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return LogFields.of(value)
    return [_with_attributes(item) for item in value] if isinstance(value, list) else value


class GenerationLog(LogFields):
    """The generation log: `stats`, and what the option `log` asks for (None: not asked for)."""

    optional = frozenset({"activated_rails", "llm_calls", "internal_events", "colang_history"})

    def print_summary(self) -> None:
        """Prints the rails with their decisions, and the number of LLM calls."""
        lines = [
            f"{rail['type']}: {rail['name']}: {', '.join(rail['decisions'])} "
            f"({rail['duration']:.2f} seconds)"
            for rail in self.activated_rails or ()
        ]
        lines.append(f"LLM calls: {self.stats['llm_calls_count']}")
        sys.stdout.write("\n".join(lines) + "\n")


@dataclass(slots=True)
class GenerationOptions:
    """NeMo's options of a generation, as an object; None leaves one out."""

    rails: Any = None
    llm_params: dict[str, Any] | None = None
    llm_output: bool | None = None
    output_vars: bool | list[str] | None = None
    log: Any = None


def read_options(options: Any) -> Mapping[str, Any] | None:
    """Returns options as a mapping, which may also be an object of NeMo's classes."""
    if options is None or isinstance(options, Mapping):
        return options
    if isinstance(options, GenerationOptions):
        fields = {name: value for name, value in asdict(options).items() if value is not None}
        return {name: _dump_model(value) for name, value in fields.items()}
    option_fields: Mapping[str, Any] = _dump_model(options)
    return option_fields


def _dump_model(value: Any) -> Any:
    """Returns the fields of an object of pydantic that the caller has set."""
    return value.model_dump(exclude_unset=True) if hasattr(value, "model_dump") else value


@dataclass(slots=True)
class GenerationResponse:
    """The result of a generation with options: `response` is a text for a prompt, else messages.

    `rulings` (truing's own) says what each rail decided and why.
    """

    response: str | list[dict[str, Any]]
    llm_output: dict[str, Any] | None = None
    output_data: dict[str, Any] | None = None
    log: GenerationLog | None = None
    state: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    rulings: tuple[Any, ...] = ()

    def model_dump(self) -> dict[str, Any]:
        """Returns the fields of NeMo's class of this name."""
        fields = asdict(self)
        del fields["rulings"]
        return fields
