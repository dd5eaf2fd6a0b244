"""The context of one turn: state, options, LLM clients, output stream, record of rulings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

from truing.core.errors import TruingError
from truing.core.protocols import Model
from truing.core.types import Failure, Ruling, Sampling, Tool
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.call_ids import CallIds
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
    "Retrieval": "retrieval",
}
# The variable that a stage's rails may rewrite.
_REWRITTEN_VARIABLES = {
    "input": "user_message",
    "output": "bot_message",
    "retrieval": "relevant_chunks",
    "tool_input": "tool_message",
    "tool_output": "tool_calls",
}
_RAIL_OPTIONS = ("input", "output", "retrieval", "dialog", "tool_output", "tool_input")
_OPTIONS = ("rails", "llm_params", "llm_output", "output_vars", "log")
_DEFAULT_REASONS = {"allow": "nothing to object", "rewrite": "rewrote the text"}


def missing_rails(required: Sequence[str], rulings: Sequence[Ruling], stage: str) -> list[str]:
    """Returns the rails of a stage that no ruling says to have run and let the text pass."""
    passed = {r.name for r in rulings if r.stage == stage and r.ruling != "block"}
    return [name for name in required if name not in passed]


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


class UncheckedError(TruingError):
    """A model was to see a text, or a client an answer, that not all rails of a stage have read."""


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

    `messages` are the caller's messages as the input stage left them; `explicit_fields` names the
    sampling fields that the request sets itself (None: those that differ from `Sampling`'s
    defaults). `set_reason` and `track_rail_event` lead to `rulings`, the record of the turn.
    `required_input` names the rails that must let the user's message pass before the dialog may
    ask a model. `is_stage_check` marks a turn that only runs the rails of a stage over a text.
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
    required_input: tuple[str, ...] = ()
    is_stage_check: bool = False
    call_ids: CallIds = field(default_factory=CallIds)
    # Texts and tool calls that all rails of their output stage have let pass, and texts of the
    # configuration's author.
    passed_texts: set[str] = field(default_factory=set)
    passed_tool_calls: list[Any] = field(default_factory=list)
    _pending_reason: dict[str, Any] = field(default_factory=dict)
    _running_rails: list[_RunningRail] = field(default_factory=list)
    _stage_starts: dict[str, int] = field(default_factory=dict)  # stage -> number of rulings
    _random: Random | None = None

    def llm(self, task: str = "main") -> LlmClient:
        """Returns the LLM client of a task; the main model's if the task has none.

        While a rail runs, the sampling is the configuration's: only the seed is the request's.
        """
        services = self.services
        # The calls of a rail are not speculated: only the copy, and the dialog outside of rails,
        # use the cache.
        uses_cache = self.is_speculative_copy or not self._running_rails
        sampling, explicit_fields = self.sampling, self.explicit_fields
        if self._running_rails:
            # A client's stop string or temperature could turn the verdict of a check.
            sampling = Sampling(seed=sampling.seed)
            if explicit_fields is not None:
                explicit_fields = {"seed"} & set(explicit_fields)
        return LlmClient(
            services.models.get(task) or services.model,
            self.counter,
            sampling,
            timeout=services.llm_timeout,
            speculation=self.speculation if uses_cache else None,
            is_speculative_copy=self.is_speculative_copy,
            explicit_fields=explicit_fields,
            require_permission=self._require_read_input,
        )

    def _require_read_input(self) -> None:
        """Raises UncheckedError if the dialog asks a model before the input rails have passed.

        Rails themselves may ask one, and so may the copy of a turn that the configuration lets run
        ahead of them.
        """
        if self._running_rails or self.is_speculative_copy or self.is_stage_check:
            return
        missing = self.missing_input_rails
        if missing:
            raise UncheckedError(
                f"the input stage is incomplete: {', '.join(missing)} did not run, "
                "so the message is not given to a model"
            )

    def is_stage_on(self, stage: str) -> bool:
        """Returns whether the options leave a stage on."""
        return bool(((self.options or {}).get("rails") or {}).get(stage, True))

    @property
    def missing_input_rails(self) -> list[str]:
        """The rails that still have to let the user's message pass."""
        return missing_rails(self.required_input, self.rulings, "input")

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
        return self._running_rails[-1].name if self._running_rails else None

    @property
    def running_stage(self) -> str | None:
        """The stage of the running rail."""
        return self._running_rails[-1].stage if self._running_rails else None

    def set_reason(
        self, reason: str | None, *, score: float | None = None, evidence: str | None = None
    ) -> None:
        """Sets what the running rail bases its decision on; it goes into the rail's ruling."""
        self._pending_reason = {"reason": reason, "score": score, "evidence": evidence}

    def track_rail_event(self, event: dict[str, Any]) -> None:
        """Follows the events that mark the start and the end of a stage and of a rail."""
        kind = event["type"]
        if kind.startswith("Start") and kind.endswith("Rails"):
            stage = _STAGES.get(kind.removeprefix("Start").removesuffix("Rails"), "")
            self._stage_starts[stage] = len(self.rulings)
        elif kind.endswith("RailsFinished"):
            self._finish_stage(_STAGES.get(kind.removesuffix("RailsFinished"), ""))
        elif kind.startswith("Start") and kind.endswith("Rail"):
            stage = _STAGES.get(kind.removeprefix("Start").removesuffix("Rail"), "")
            self._running_rails.append(
                _RunningRail(
                    name=str(event.get("flow_id")),
                    stage=stage,
                    start_time=time.perf_counter(),
                    calls_before=self.counter.calls,
                    text_before=self._stage_text(stage),
                )
            )
        elif kind.endswith("RailFinished"):
            self.finish_rail("allow")
        elif kind.endswith("Exception"):
            self._pending_reason.setdefault("reason", event.get("message"))
            self.finish_rail("block")

    def _finish_stage(self, stage: str) -> None:
        """Notes the text that a stage has let pass, if all of its rails have ruled on it."""
        if stage not in ("output", "tool_output"):
            return
        rails = getattr(self.services.config.rails, stage).flows
        if missing_rails(rails, self.rulings[self._stage_starts.get(stage, 0) :], stage):
            return
        if stage == "output":
            self.passed_texts.add(str(self._stage_text(stage)))
        else:
            self.passed_tool_calls.append(self._stage_text(stage))

    def _stage_text(self, stage: str) -> Any:
        return self.state.context.get(_REWRITTEN_VARIABLES.get(stage, ""))

    def finish_rails(self) -> None:
        """Records a block by each rail that is still open: it has stopped the turn."""
        while self._running_rails:
            self.finish_rail("block")

    def finish_rail(self, ruling: RulingKind, text: str | None = None) -> None:
        """Records the ruling of the running rail, if any; a changed text makes it a rewrite."""
        if not self._running_rails:
            return
        rail = self._running_rails.pop()
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
