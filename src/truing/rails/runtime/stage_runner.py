"""Runs the rails of one stage over one text, apart from the turn, and says whether all have run."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from truing.core.types import Failure, Ruling
from truing.rails.config.generation_options import STAGE_SWITCHES
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.event_types import (
    BotMessage,
    BotToolCalls,
    ContextUpdate,
    Event,
    StartFlow,
    UserToolMessages,
    Utterance,
)
from truing.rails.runtime.turn_context import (
    STAGE_VARIABLES,
    TurnContext,
    missing_rails,
)
from truing.rails.runtime.turn_result import collect_output

Stage = Literal["input", "output", "retrieval", "tool_output", "tool_input"]


class StageOutcome(Struct, frozen=True):
    """What a stage said about a text.

    `content` is the text (the tool calls, in stage tool_output) as the rails left it. `missing`
    names the rails that should have run and did not; `reply` is what a rail that objected says to
    the client.
    """

    stage: Stage
    content: Any
    rulings: tuple[Ruling, ...] = ()
    missing: tuple[str, ...] = ()
    reply: str = ""
    failure: Failure | None = None
    objected: bool = False

    @property
    def passed(self) -> bool:
        """Whether all rails of the stage ran and none objected."""
        return not self.objected and not self.missing and self.failure is None

    @property
    def reason(self) -> str:
        """Why the text did not pass; empty if it did."""
        if self.failure is not None:
            return self.failure.message
        block = next((r.reason for r in self.rulings if r.ruling == "block"), "")
        if block or not self.missing:
            return block
        return f"the {self.stage} stage is incomplete: {', '.join(self.missing)} did not run"


def stage_flows(config: RailsConfig, stage: str) -> tuple[str, ...]:
    """Returns the rails that the configuration has in a stage."""
    return tuple(getattr(config.rails, stage).flows)


async def run_stage(
    turn: TurnContext,
    state: ConversationState,
    stage: Stage,
    content: Any,
    *,
    name: str = "unknown",
    call_id: str = "",
) -> StageOutcome:
    """Runs the rails of a stage over a text (or tool calls) on a copy of `state`.

    `name` and `call_id` are those of the tool, in stage tool_input. The copy's flows start anew,
    so that the dialog neither sees the text nor moves. Raises what the rails raise.
    """
    required = stage_flows(turn.services.config, stage)
    if not required:
        return StageOutcome(stage, content)
    copy = _copy_turn(turn, state, stage)
    for event in _events_of(stage, content, name, call_id):
        copy.state.add(event)
    events = await turn.services.run_until_listen(copy)
    copy.finish_rails()  # a rail that is still open has stopped the turn
    output = collect_output(events)
    reply = "\n".join(output.texts)
    if output.exception is not None:
        reply = str(output.exception.get("message") or "")
    rulings = tuple(copy.rulings)
    objected = output.exception is not None or any(r.ruling == "block" for r in rulings)
    failure = copy.failure
    return StageOutcome(
        stage,
        copy.state.context.get(STAGE_VARIABLES[stage]),
        rulings,
        tuple(missing_rails(required, rulings, stage)),
        reply,
        failure,
        objected,
    )


def _copy_turn(turn: TurnContext, state: ConversationState, stage: Stage) -> TurnContext:
    """Returns a turn of its own in which only this stage is on."""
    rails = dict.fromkeys(STAGE_SWITCHES, False) | {stage: True}
    options = {**(turn.options or {}), "rails": rails}
    options.setdefault("llm_params", None)
    copied = state.fork_without_flows()
    variables = {"generation_options": options, "bot_message": None, "skip_output_rails": False}
    copied.add(ContextUpdate(variables))
    copy = turn.fork(copied, options)
    copy.is_stage_check = True
    return copy


def _events_of(stage: Stage, content: Any, name: str, call_id: str) -> list[Event]:
    """Returns the events that start a stage."""
    if stage == "input":
        return [Utterance(content)]
    if stage == "output":
        return [BotMessage(content)]
    if stage == "tool_output":
        return [BotToolCalls(content)]
    if stage == "tool_input":
        message = {"content": content, "tool_call_id": call_id, "name": name}
        return [UserToolMessages([message], user_message=None)]
    return [ContextUpdate({"relevant_chunks": content}), StartFlow("run retrieval rails")]
