"""The parts of a rails configuration: rail stages, models and prompts.

Attributes are named as in NeMo's `RailsConfig`, because expressions in flows read them
(``$config.rails.input.flows``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEFAULT_CACHE_SIZE = 50_000  # NeMo's default of models.cache.maxsize


@dataclass(slots=True)
class RailStage:
    """The rails of one stage: references to flows, in the order in which they run."""

    flows: list[str] = field(default_factory=list)
    parallel: bool = False


@dataclass(slots=True)
class OutputStreaming:
    """``rails.output.streaming``; sizes are in words."""

    enabled: bool = False
    chunk_size: int = 200
    context_size: int = 50
    stream_first: bool = True


@dataclass(slots=True)
class OutputRailStage(RailStage):
    """``rails.output``."""

    streaming: OutputStreaming = field(default_factory=OutputStreaming)


@dataclass(slots=True)
class RailStages:
    """``rails``: the stages by name."""

    input: RailStage = field(default_factory=RailStage)
    output: OutputRailStage = field(default_factory=OutputRailStage)
    retrieval: RailStage = field(default_factory=RailStage)
    tool_output: RailStage = field(default_factory=RailStage)
    tool_input: RailStage = field(default_factory=RailStage)


@dataclass(slots=True)
class ModelEntry:
    """An entry of ``models``; `type` is "main", "embeddings" or the name of a task."""

    type: str
    engine: str
    model: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    api_key_env_var: str | None = None
    mode: str = "chat"
    cache_size: int = 0  # verdicts that are cached; 0: none
    hides_thinking: bool = False


@dataclass(slots=True)
class PromptEntry:
    """An entry of ``prompts``; either `content` or `messages` (pairs of type and text) is set."""

    task: str
    content: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    output_parser: str | None = None
    max_length: int = 16_000
    mode: str = "standard"
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None


def parse_model_entry(raw: dict[str, Any]) -> tuple[ModelEntry, str | None]:
    """Returns the entry, and what is wrong with it (None if nothing is)."""
    parameters = dict(raw.get("parameters") or {})
    # NeMo accepts the model's name among the parameters.
    name_in_parameters = parameters.pop("model_name", None) or parameters.pop("model", None)
    name = str(raw.get("model") or name_in_parameters or "")
    cache = raw.get("cache") or {}
    # 0 is a size (and a wrong one), not the absence of one.
    cache_size = DEFAULT_CACHE_SIZE if cache.get("maxsize") is None else int(cache["maxsize"])
    fault = None
    if not raw.get("type") or not raw.get("engine"):
        fault = "a model needs type and engine"
    elif raw.get("model") and name_in_parameters:
        fault = "the model's name is set twice, also under parameters"
    elif raw.get("mode") not in (None, "chat", "text"):
        fault = "the mode of a model is chat or text"
    elif cache.get("enabled") and cache_size < 1:
        fault = "cache.maxsize is at least 1"
    elif not name.strip():
        fault = "a model needs a name: model: NAME"
    reasoning = raw.get("reasoning_config") or {}
    hides_thinking = reasoning.get("remove_reasoning_traces")
    if hides_thinking is None:
        hides_thinking = reasoning.get("remove_thinking_traces")
    model_entry = ModelEntry(
        type=str(raw.get("type")),
        engine=str(raw.get("engine")),
        model=name,
        parameters=parameters,
        api_key_env_var=raw.get("api_key_env_var"),
        mode=raw.get("mode") or "chat",
        cache_size=cache_size if cache.get("enabled") else 0,
        hides_thinking=bool(hides_thinking),
    )
    return model_entry, fault


def parse_prompt_entry(raw: dict[str, Any]) -> PromptEntry | None:
    """Returns the entry; None without a task, or without exactly one of content and messages."""
    if not raw.get("task") or bool(raw.get("content")) == bool(raw.get("messages")):
        return None
    messages = [
        ("", message)
        if isinstance(message, str)
        else (str(message.get("type")), str(message.get("content")))
        for message in raw.get("messages") or []
    ]
    return PromptEntry(
        task=raw["task"],
        content=raw.get("content"),
        messages=tuple(messages),
        models=tuple(raw.get("models") or ()),
        output_parser=raw.get("output_parser"),
        max_length=16_000 if raw.get("max_length") is None else raw["max_length"],
        mode=raw.get("mode") or "standard",
        stop=tuple(raw.get("stop") or ()),
        max_tokens=raw.get("max_tokens"),
    )
