"""What one turn carries along: the conversation, options, LLMs, the stream, the record of decisions."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, TypeVar

from truing.core.protocols import Model
from truing.core.types import Failure, Ruling, Sampling, Tool, ToolCall
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.conversation_state import Talk
from truing.rails.runtime.example_index import KnowledgeBase, Vectors
from truing.rails.runtime.knowledge import Knowledge
from truing.rails.runtime.llm_client import Ahead, Llm, Tally
from truing.rails.runtime.prompts import Prompts
from truing.rails.runtime.stream_buffer import Sink

T = TypeVar("T")
_STAGES = {
    "Input": "input",
    "Output": "output",
    "ToolInput": "tool_input",
    "ToolOutput": "tool_output",
}
_VARIABLES = {"input": "user_message", "output": "bot_message"}
_RAILS = ("input", "output", "retrieval", "dialog", "tool_output", "tool_input")


def full_options(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Generation options in full form; a list of rails switches the others off. ValueError for what is none."""
    if given is None:
        return None
    unknown = set(given) - {"rails", "llm_params", "llm_output", "output_vars", "log"}
    if unknown:
        raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
    rails = given.get("rails")
    chosen: dict[str, Any] = dict.fromkeys(_RAILS, True)
    if isinstance(rails, (list, tuple)):
        chosen = {name: name in rails for name in _RAILS}
        wrong = [r for r in rails if r not in _RAILS]
    elif rails is None:
        wrong = []
    elif isinstance(rails, Mapping):
        wrong = [r for r in rails if r not in _RAILS]
        chosen.update(rails)
    else:
        raise ValueError("options.rails: expected a list or a mapping")
    if wrong:
        raise ValueError(f"options.rails: unknown {', '.join(map(str, wrong))}")
    return {
        "rails": chosen,
        "llm_params": given.get("llm_params"),
        "llm_output": bool(given.get("llm_output")),
        "output_vars": given.get("output_vars"),
        "log": dict(given.get("log") or {}),
    }


@dataclass(slots=True)
class _Open:
    """A rail that has started and not finished."""

    name: str
    stage: str
    began: float
    calls: int
    text: Any


@dataclass(slots=True)
class Services:
    """What rails and actions may use during a turn; made once for a configuration and shared by all of its turns.

    `advance` runs the events of a turn until the bot listens again and returns them; `new_flow_name` returns a name
    that no flow has.
    """

    config: RailsConfig
    model: Model
    models: dict[str, Model]
    judges: dict[str, Any]
    prompts: Prompts
    vectors: Vectors
    knowledge: Knowledge
    kb: KnowledgeBase | None
    llm_timeout: float | None
    advance: Callable[[Turn], Awaitable[list[dict[str, Any]]]]
    new_flow_name: Callable[[], str]


@dataclass(slots=True)
class Turn:
    """One turn of a conversation."""

    services: Services
    talk: Talk
    sampling: Sampling = field(default_factory=Sampling)
    options: dict[str, Any] | None = None
    sink: Sink | None = None
    chat: list[dict[str, Any]] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()
    tally: Tally = field(default_factory=Tally)
    rulings: list[Ruling] = field(default_factory=list)
    failure: Failure | None = None
    error: str | None = None
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    seed: str = ""
    reasons: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    ahead: Ahead | None = None
    leads: bool = False
    asked: Collection[str] | None = (
        None  # what of the sampling the request asks for; none: what differs from the defaults
    )
    _open: _Open | None = None
    _random: Random | None = None

    def llm(self, task: str = "main") -> Llm:
        """The LLM of a task, or the main one."""
        services = self.services
        return Llm(
            services.models.get(task) or services.model,
            self.tally,
            self.sampling,
            seconds=services.llm_timeout,
            ahead=self.ahead if self.leads or self._open is None else None,
            leads=self.leads,
            asked=self.asked,
        )

    def choose(self, options: Sequence[T]) -> T:
        """One of several, by the seed of this turn."""
        if self._random is None:
            self._random = Random(self.seed)
        return self._random.choice(options)

    @property
    def llm_params(self) -> dict[str, Any]:
        """The parameters that the options set for the main call."""
        return dict((self.options or {}).get("llm_params") or {})

    # -- the record --------------------------------------------------------------------------------------------------

    def watch(self, event: dict[str, Any]) -> None:
        """Follows the events that mark rails."""
        kind = event["type"]
        if kind.startswith("Start") and kind.endswith("Rail"):
            stage = _STAGES.get(kind[5:-4], "")
            name, now = str(event.get("flow_id")), time.perf_counter()
            self._open = _Open(name, stage, now, self.tally.calls, self._text(stage))
        elif kind.endswith("RailFinished"):
            self.close("allow")
        elif kind.endswith("Exception"):
            self.reasons.setdefault("reason", event.get("message"))
            self.close("block")

    def _text(self, stage: str) -> Any:
        return self.talk.context.get(_VARIABLES.get(stage, ""))

    def close(self, ruling: Literal["allow", "rewrite", "block"], text: str | None = None) -> None:
        """Records the decision of the rail that runs, if one does."""
        rail = self._open
        if rail is None:
            return
        self._open = None
        now = self._text(rail.stage)
        if ruling == "allow" and rail.stage in _VARIABLES and now != rail.text:
            ruling, text = "rewrite", now if isinstance(now, str) else None
        self.note(rail.name, rail.stage, ruling, text=text, began=rail.began, calls=rail.calls)

    def note(
        self,
        name: str,
        stage: str,
        ruling: Literal["allow", "rewrite", "block"],
        *,
        text: str | None = None,
        began: float | None = None,
        calls: int | None = None,
    ) -> None:
        """Adds a decision to the record."""
        said = {
            "allow": "nothing to object",
            "rewrite": "rewrote the text",
            "block": f"blocked by {name}",
        }
        reasons, self.reasons = self.reasons, {}
        reason = self.error if ruling == "block" and self.error else reasons.get("reason")
        self.rulings.append(
            Ruling(
                name=name,
                stage=stage,
                ruling=ruling,
                reason=str(reason or said[ruling]),
                text=text,
                score=reasons.get("score"),
                evidence=reasons.get("evidence"),
                ms=round((time.perf_counter() - began) * 1000, 3) if began is not None else 0.0,
                llm_calls=self.tally.calls - calls if calls is not None else 0,
            )
        )

    def because(
        self, reason: str | None, *, score: float | None = None, evidence: str | None = None
    ) -> None:
        """What the rail that runs bases its decision on; stands in its record."""
        self.reasons = {"reason": reason, "score": score, "evidence": evidence}

    @property
    def rail(self) -> str | None:
        """The name of the rail that runs."""
        return self._open.name if self._open else None
