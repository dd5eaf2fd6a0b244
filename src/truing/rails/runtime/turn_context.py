"""The context of one turn: state, options, LLM clients, output stream, record of rulings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

from msgspec import UNSET

from truing.core.errors import TruingError
from truing.core.protocols import Model
from truing.core.types import Failure, Ruling, Sampling, Tool
from truing.rails.config.generation_options import STAGE_SWITCHES, require_options
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.call_ids import CallIds
from truing.rails.runtime.chat_messages import ChatMessage, image_addresses
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.embeddings import EmbeddingCache
from truing.rails.runtime.event_types import Event
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
# Stage -> the context variable that holds its text; its rails may rewrite the variable.
STAGE_VARIABLES = {
    "input": "user_message",
    "output": "bot_message",
    "retrieval": "relevant_chunks",
    "tool_input": "tool_message",
    "tool_output": "tool_calls",
}
EVIDENCE_CHARACTERS = 200  # of what a judge or an exception said, in a ruling
_DEFAULT_REASONS = {"allow": "nothing to object", "rewrite": "rewrote the text"}


def missing_rails(required: Sequence[str], rulings: Sequence[Ruling], stage: str) -> list[str]:
    """Returns the rails of a stage that no ruling says to have run and let the text pass."""
    passed = {r.name for r in rulings if r.stage == stage and r.ruling != "block"}
    return [name for name in required if name not in passed]


def expand_generation_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns NeMo's generation options with all fields; None stays None.

    `rails` may be a list (the stages that run) or a mapping (stage -> on or off). Raises
    OptionsError for unknown options and wrong values.
    """
    if options is None:
        return None
    require_options(options)
    rails = options.get("rails")
    enabled: dict[str, Any] = dict.fromkeys(STAGE_SWITCHES, True)
    if isinstance(rails, (list, tuple)):
        enabled = {stage: stage in rails for stage in STAGE_SWITCHES}
    elif isinstance(rails, Mapping):
        enabled.update(rails)
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

    `service_clients` are the services that rails ask over HTTP, by name (`library.service_rails`).
    `author_texts` are what the configuration's author lets the bot say, without variables.
    `run_until_listen` runs the events of a turn until the bot listens again and returns them;
    `new_flow_name` returns a name that no flow has. `run_action` runs an action by name and returns
    its result, and the variables that it sets; FlowError if it fails.
    """

    config: RailsConfig
    model: Model
    models: dict[str, Model]
    judges: dict[str, Any]
    service_clients: dict[str, Any]
    prompts: PromptManager
    embeddings: EmbeddingCache
    examples: DialogExamples
    kb: KnowledgeBase | None
    llm_timeout: float | None
    author_texts: frozenset[str]
    run_until_listen: Callable[[TurnContext], Awaitable[list[Event]]]
    new_flow_name: Callable[[], str]
    run_action: Callable[[TurnContext, str, dict[str, Any]], Awaitable[tuple[Any, dict[str, Any]]]]
    ask_person: Callable[[str, str], Awaitable[bool]] | None = None


@dataclass(slots=True)
class TurnContext:
    """One turn of a conversation.

    `messages` are the caller's messages as the input stage left them; `explicit_fields` names the
    sampling fields that the request sets itself (None: those that differ from `Sampling`'s
    defaults). `set_reason` and `track_rail_event` lead to `rulings`, the record of the turn.
    `required_input` names the rails that must let the user's message pass before the dialog may
    ask a model; `must_refuse` says that they have objected to it already. `is_stage_check` marks a
    turn that only runs the rails of a stage over a text.
    """

    services: RuntimeServices
    state: ConversationState
    sampling: Sampling = field(default_factory=Sampling)
    options: dict[str, Any] | None = None
    stream: StreamBuffer | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()
    counter: CallCounter = field(default_factory=CallCounter)
    rulings: list[Ruling] = field(default_factory=list)
    failure: Failure | None = None
    error: str | None = None
    error_detail: str = ""
    thinking: str | None = None
    seed: str = ""
    finish_reason: str = "stop"
    speculation: SpeculationCache | None = None
    is_speculative_copy: bool = False
    explicit_fields: Collection[str] | None = None
    required_input: tuple[str, ...] = ()
    must_refuse: bool = False
    is_stage_check: bool = False
    call_ids: CallIds = field(default_factory=CallIds)
    # Texts and tool calls that all rails of their output stage have let pass, and texts of the
    # configuration's author.
    passed_texts: set[str] = field(default_factory=set)
    passed_tool_calls: list[Any] = field(default_factory=list)
    passed_images: set[str] = field(default_factory=set)  # addresses that a vision guard let pass
    _pending_reason: dict[str, Any] = field(default_factory=dict)
    _running_rails: list[_RunningRail] = field(default_factory=list)
    _stage_starts: dict[str, int] = field(default_factory=dict)  # stage -> number of rulings
    _random: Random | None = None

    def fork(self, state: ConversationState, options: dict[str, Any] | None = None) -> TurnContext:
        """Returns a turn on another state, with rulings of its own and the same count of LLM calls.

        It streams nothing. `options` replace those of this turn.
        """
        return TurnContext(
            services=self.services,
            state=state,
            sampling=self.sampling,
            options=self.options if options is None else options,
            messages=self.messages,
            tools=self.tools,
            counter=self.counter,
            seed=self.seed,
            explicit_fields=self.explicit_fields,
        )

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
        client = LlmClient(
            services.models.get(task) or services.model,
            self.counter,
            sampling,
            timeout=services.llm_timeout,
            speculation=self.speculation if uses_cache else None,
            is_speculative_copy=self.is_speculative_copy,
            explicit_fields=explicit_fields,
            require_permission=self._require_read_input,
        )
        client.task = task
        client.images = self.passed_images
        return client

    def _require_read_input(self) -> None:
        """Raises UncheckedError if the dialog asks a model before the input rails have passed.

        Rails themselves may ask one, and so may the copy of a turn that the configuration lets run
        ahead of them.
        """
        if self._running_rails or self.is_speculative_copy or self.is_stage_check:
            return
        missing = self.missing_input_rails
        if self.must_refuse:
            raise UncheckedError("an input rail objects to the message, and the flows went on")
        if missing:
            raise UncheckedError(
                f"the input stage is incomplete: {', '.join(missing)} did not run, "
                "so the message is not given to a model"
            )
        self._require_read_images()

    def _require_read_images(self) -> None:
        """Raises UncheckedError if the main model reads images, and no rail has read those of the
        newest message. A model that reads none gets none, and answers the text.
        """
        if not getattr(self.services.model, "reads_images", False):
            return
        newest = next((m for m in reversed(self.messages) if m.is_read_by_flows), None)
        images = image_addresses(newest.flow_content) if newest is not None else ()
        if not self.passed_images.issuperset(images):
            raise UncheckedError(
                "the message holds an image or a file that no rail has read: content safety check "
                "input $model=NAME reads images, with a prompt for a model that does"
            )

    def is_stage_on(self, stage: str) -> bool:
        """Returns whether the options leave a stage on."""
        return bool(((self.options or {}).get("rails") or {}).get(stage, True))

    def logs(self, part: str) -> bool:
        """Returns whether the options ask for a part of the log."""
        return bool(((self.options or {}).get("log") or {}).get(part))

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
        self,
        reason: str | None,
        *,
        score: float | None = None,
        evidence: str | None = None,
        call_id: str = "",
    ) -> None:
        """Sets what the running rail bases its decision on; it goes into the rail's ruling.

        `call_id` names the tool call that a block is about, where it is about one.
        """
        self._pending_reason = {
            "reason": reason,
            "score": score,
            "evidence": evidence,
            "call_id": call_id,
        }

    def track_rail_event(self, event: Event) -> None:
        """Follows the events that mark the start and the end of a stage and of a rail."""
        kind = event.type
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
        elif event.is_exception:
            self._note_exception(event)
            self.finish_rail("block")

    def _note_exception(self, event: Event) -> None:
        """Uses the message of an exception as the reason, unless the rail has set one.

        A message with variables may quote a client or a model: it is evidence, not a reason.
        """
        if self._pending_reason.get("reason"):
            return
        message = str(event.get("message") or "")
        if message in self.services.author_texts:
            self.set_reason(message)
        else:
            self.set_reason(f"raised {event.type}", evidence=message[:EVIDENCE_CHARACTERS])

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
        return self.state.context.get(STAGE_VARIABLES.get(stage, ""))

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
        can_rewrite = rail.stage in STAGE_VARIABLES
        if ruling == "allow" and can_rewrite and text_after != rail.text_before:
            ruling, text = "rewrite", text_after if isinstance(text_after, str) else None
        self._record_ruling(rail, ruling, text)

    def _record_ruling(self, rail: _RunningRail, ruling: RulingKind, text: str | None) -> None:
        pending, self._pending_reason = self._pending_reason, {}
        reason, evidence = pending.get("reason"), pending.get("evidence")
        call_id = pending.get("call_id")
        if ruling == "block" and self.error:
            reason, evidence = self.error, self.error_detail or evidence
        self.rulings.append(
            Ruling(
                name=rail.name,
                stage=rail.stage,
                ruling=ruling,
                reason=str(reason or _DEFAULT_REASONS.get(ruling, f"blocked by {rail.name}")),
                text=text,
                score=pending.get("score"),
                evidence=evidence,
                ms=round((time.perf_counter() - rail.start_time) * 1000, 3),
                llm_calls=self.counter.calls - rail.calls_before,
                call_ids=(call_id,) if ruling == "block" and call_id else UNSET,
            )
        )
