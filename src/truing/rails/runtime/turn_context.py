"""The context of one turn: state, options, LLM clients, output stream, record of rulings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

from truing.core.protocols import Model
from truing.core.types import Failure, Ruling, Sampling, Tool
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.embeddings import EmbeddingCache
from truing.rails.runtime.example_index import DialogExamples
from truing.rails.runtime.knowledge_base import KnowledgeBase
from truing.rails.runtime.llm_client import CallCounter, LlmClient, SpeculationCache
from truing.rails.runtime.prompts import PromptManager
from truing.rails.runtime.stream_buffer import StreamBuffer

T = TypeVar("T")
RulingKind = Literal["allow", "rewrite", "block"]
# The part of an event's type between "Start" and "Rail" -> the stage of the rail.
_STAGES = {
    "Input": "input",
    "Output": "output",
    "ToolInput": "tool_input",
    "ToolOutput": "tool_output",
}
# The variable that a stage's rails may rewrite.
_REWRITTEN_VARIABLES = {"input": "user_message", "output": "bot_message"}
_RAIL_OPTIONS = ("input", "output", "retrieval", "dialog", "tool_output", "tool_input")
_OPTIONS = ("rails", "llm_params", "llm_output", "output_vars", "log")
_DEFAULT_REASONS = {"allow": "nothing to object", "rewrite": "rewrote the text"}


def expand_generation_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns NeMo's generation options with all fields; None stays None.

    `rails` may be a list (the stages that run) or a mapping (stage -> on or off). Raises ValueError
    for unknown options and stages.
    """
    if options is None:
        return None
    unknown = set(options) - set(_OPTIONS)
    if unknown:
        raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
    rails = options.get("rails")
    enabled: dict[str, Any] = dict.fromkeys(_RAIL_OPTIONS, True)
    if isinstance(rails, (list, tuple)):
        enabled = {stage: stage in rails for stage in _RAIL_OPTIONS}
    elif isinstance(rails, Mapping):
        enabled.update(rails)
    elif rails is not None:
        raise ValueError("options.rails: expected a list or a mapping")
    unknown_stages = [stage for stage in rails or () if stage not in _RAIL_OPTIONS]
    if unknown_stages:
        raise ValueError(f"options.rails: unknown {', '.join(map(str, unknown_stages))}")
    return {
        "rails": enabled,
        "llm_params": options.get("llm_params"),
        "llm_output": bool(options.get("llm_output")),
        "output_vars": options.get("output_vars"),
        "log": dict(options.get("log") or {}),
    }


@dataclass(slots=True)
class _RunningRail:
    """A rail that has started and not finished; time, calls and text are those at its start."""

    name: str
    stage: str
    start_time: float
    calls_before: int
    text_before: Any


@dataclass(slots=True)
class RuntimeServices:
    """What rails and actions may use during a turn; shared by all turns of a configuration.

    `run_until_listen` runs the events of a turn until the bot listens again and returns them;
    `new_flow_name` returns a name that no flow has.
    """

    config: RailsConfig
    model: Model
    models: dict[str, Model]
    judges: dict[str, Any]
    prompts: PromptManager
    embeddings: EmbeddingCache
    examples: DialogExamples
    kb: KnowledgeBase | None
    llm_timeout: float | None
    run_until_listen: Callable[[TurnContext], Awaitable[list[dict[str, Any]]]]
    new_flow_name: Callable[[], str]


@dataclass(slots=True)
class TurnContext:
    """One turn of a conversation.

    `messages` are the caller's messages as they came; `explicit_fields` names the sampling fields
    that the request sets itself (None: those that differ from `Sampling`'s defaults). `set_reason`
    and `track_rail_event` lead to `rulings`, the record of the turn.
    """

    services: RuntimeServices
    state: ConversationState
    sampling: Sampling = field(default_factory=Sampling)
    options: dict[str, Any] | None = None
    stream: StreamBuffer | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()
    counter: CallCounter = field(default_factory=CallCounter)
    rulings: list[Ruling] = field(default_factory=list)
    failure: Failure | None = None
    error: str | None = None
    thinking: str | None = None
    seed: str = ""
    finish_reason: str = "stop"
    speculation: SpeculationCache | None = None
    is_speculative_copy: bool = False
    explicit_fields: Collection[str] | None = None
    _pending_reason: dict[str, Any] = field(default_factory=dict)
    _running_rail: _RunningRail | None = None
    _random: Random | None = None

    def llm(self, task: str = "main") -> LlmClient:
        """Returns the LLM client of a task; the main model's if the task has none."""
        services = self.services
        # The calls of a rail are not speculated: only the copy, and the dialog outside of rails,
        # use the cache.
        uses_cache = self.is_speculative_copy or self._running_rail is None
        return LlmClient(
            services.models.get(task) or services.model,
            self.counter,
            self.sampling,
            timeout=services.llm_timeout,
            speculation=self.speculation if uses_cache else None,
            is_speculative_copy=self.is_speculative_copy,
            explicit_fields=self.explicit_fields,
        )

    def choose(self, options: Sequence[T]) -> T:
        """Returns one of the options, drawn by the seed of this turn."""
        if self._random is None:
            self._random = Random(self.seed)
        return self._random.choice(options)

    @property
    def llm_params(self) -> dict[str, Any]:
        """The parameters that the options set for the main LLM call."""
        return dict((self.options or {}).get("llm_params") or {})

    # -- the record of rulings -------------------------------------------------------------------

    @property
    def rail_name(self) -> str | None:
        """The name of the running rail."""
        return self._running_rail.name if self._running_rail else None

    def set_reason(
        self, reason: str | None, *, score: float | None = None, evidence: str | None = None
    ) -> None:
        """Sets what the running rail bases its decision on; it goes into the rail's ruling."""
        self._pending_reason = {"reason": reason, "score": score, "evidence": evidence}

    def track_rail_event(self, event: dict[str, Any]) -> None:
        """Follows the events that mark the start and the end of a rail."""
        kind = event["type"]
        if kind.startswith("Start") and kind.endswith("Rail"):
            stage = _STAGES.get(kind.removeprefix("Start").removesuffix("Rail"), "")
            self._running_rail = _RunningRail(
                name=str(event.get("flow_id")),
                stage=stage,
                start_time=time.perf_counter(),
                calls_before=self.counter.calls,
                text_before=self._stage_text(stage),
            )
        elif kind.endswith("RailFinished"):
            self.finish_rail("allow")
        elif kind.endswith("Exception"):
            self._pending_reason.setdefault("reason", event.get("message"))
            self.finish_rail("block")

    def _stage_text(self, stage: str) -> Any:
        return self.state.context.get(_REWRITTEN_VARIABLES.get(stage, ""))

    def finish_rail(self, ruling: RulingKind, text: str | None = None) -> None:
        """Records the ruling of the running rail, if any; a changed text makes it a rewrite."""
        rail = self._running_rail
        if rail is None:
            return
        self._running_rail = None
        text_after = self._stage_text(rail.stage)
        can_rewrite = rail.stage in _REWRITTEN_VARIABLES
        if ruling == "allow" and can_rewrite and text_after != rail.text_before:
            ruling, text = "rewrite", text_after if isinstance(text_after, str) else None
        self._record_ruling(rail, ruling, text)

    def _record_ruling(self, rail: _RunningRail, ruling: RulingKind, text: str | None) -> None:
        pending, self._pending_reason = self._pending_reason, {}
        reason = self.error if ruling == "block" and self.error else pending.get("reason")
        self.rulings.append(
            Ruling(
                name=rail.name,
                stage=rail.stage,
                ruling=ruling,
                reason=str(reason or _DEFAULT_REASONS.get(ruling, f"blocked by {rail.name}")),
                text=text,
                score=pending.get("score"),
                evidence=pending.get("evidence"),
                ms=round((time.perf_counter() - rail.start_time) * 1000, 3),
                llm_calls=self.counter.calls - rail.calls_before,
            )
        )
