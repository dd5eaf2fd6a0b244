"""Runs the rails of a stage in parallel, each on its own copy of the conversation.

`can_run_in_parallel` proves statically that this changes nothing: no rail reads a variable that
another one writes (unless it sets it itself first). A rail that calls an action whose effects are
not known is never proved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from truing.rails.actions import ActionResult
from truing.rails.colang import compiler as p
from truing.rails.colang.expressions import find_variables
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.runtime.event_types import (
    ContextUpdate,
    Event,
    Listen,
    OtherEvent,
    StartFlow,
)
from truing.rails.runtime.turn_context import TurnContext

# Events that rails may create, beside exceptions: they end in the rail's own copy or in the turn's
# answer.
_HARMLESS_EVENTS = frozenset({"mask_prev_user_message", "BotMessage"})
_STAGE_ACTIONS = {
    "Input": "run_input_rails_in_parallel",
    "Output": "run_output_rails_in_parallel",
}
# The variables that an action of the library may read beside its arguments.
ACTION_READS = frozenset(
    {
        "user_message",
        "last_user_message",
        "bot_message",
        "bot_thinking",
        "relevant_chunks",
        "relevant_chunks_sep",
        "skip_output_rails",
        "_last_bot_prompt",
        "model",
    }
)


# -- running -----------------------------------------------------------------------------------


def _stops_turn(events: list[Event]) -> bool:
    return any(event.stops_turn for event in events)


async def _run_rail(turn: TurnContext, rail: str, stage: str) -> tuple[list[Event], TurnContext]:
    """Runs one rail on a copy of the conversation; returns its events and the copy's context."""
    copy = turn.fork(turn.state.fork())
    # The copy must not run the stage again: a rail without any action or message of its own would
    # leave the step to the flow that started the stage.
    copy.state.interpreter.abort_flows_at(_STAGE_ACTIONS[stage])
    copy.track_rail_event(OtherEvent.of(f"Start{stage}Rail", flow_id=rail))
    start = StartFlow(parse_flow_name(rail), parse_flow_parameters(rail) or None)
    copy.state.context[f"triggered_{stage.lower()}_rail"] = rail
    copy.state.add(start)
    events = await turn.services.run_until_listen(copy)
    events = [event for event in events if not isinstance(event, Listen)]
    if not _stops_turn(events) and not copy.state.interpreter.is_running(start.flow_id):
        copy.finish_rail("allow")  # a rail that waits for an event has not ruled
    return events, copy


async def run_rails_in_parallel(turn: TurnContext, rails: list[str], stage: str) -> ActionResult:
    """Runs the rails of a stage; the first one that stops the turn cancels the others.

    The result holds that rail's events, and the context updates of all rails that finished. A rail
    that raises an error raises it here, which stops the turn.
    """
    tasks = [asyncio.create_task(_run_rail(turn, rail, stage)) for rail in rails]
    stopped: tuple[list[Event], TurnContext] | None = None
    try:
        for future in asyncio.as_completed(tasks):
            events, copy = await future
            if _stops_turn(events):
                stopped = (events, copy)
                break
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # In the configured order, not in that of completion, so that records and updates do not depend
    # on timing.
    updates: dict[str, Any] = {}
    for task in tasks:
        if task.cancelled() or task.exception() is not None:
            continue
        events, copy = task.result()
        if stopped is not None and copy is stopped[1]:
            continue
        turn.rulings.extend(copy.rulings)
        turn.passed_images |= copy.passed_images
        for event in events:
            if isinstance(event, ContextUpdate):
                updates.update(event.data)
    if stopped is None:
        return ActionResult(context_updates=updates)
    events, copy = stopped
    turn.rulings.extend(copy.rulings)
    turn.failure = turn.failure or copy.failure
    return ActionResult(events=events, context_updates=updates)


async def _run_input_rails(turn: TurnContext, flows: Sequence[str]) -> ActionResult:
    return await run_rails_in_parallel(turn, list(flows), "Input")


async def _run_output_rails(turn: TurnContext, flows: Sequence[str]) -> ActionResult:
    return await run_rails_in_parallel(turn, list(flows), "Output")


ACTIONS = {_STAGE_ACTIONS["Input"]: _run_input_rails, _STAGE_ACTIONS["Output"]: _run_output_rails}


# -- the static proof --------------------------------------------------------------------------


class RailEffects(NamedTuple):
    """The variables that a rail reads before it sets them itself, and those that it writes."""

    reads: frozenset[str]
    writes: frozenset[str]


def _reachable_flows(
    program: p.Program, name: str, seen: set[str]
) -> Iterator[p.CompiledFlow | None]:
    """Yields a flow and all subflows that it calls; None for a call by variable."""
    flow = program.flows.get(parse_flow_name(name))
    if flow is None or flow.id in seen:
        return
    seen.add(flow.id)
    yield flow
    for instruction in flow.instructions:
        if instruction.op == p.FLOW:
            if instruction.expression is not None:
                yield None
            else:
                yield from _reachable_flows(program, instruction.name, seen)


def variable_effects(program: p.Program, rail: str) -> RailEffects | None:
    """Returns the effects of a rail on variables, or None if they cannot be shown statically."""
    reads: set[str] = set()
    writes: set[str] = set()
    for flow in _reachable_flows(program, rail, set()):
        effects = _flow_effects(program, flow) if flow is not None else None
        if effects is None:
            return None
        reads |= effects.reads
        writes |= effects.writes
    return RailEffects(frozenset(reads - {"config"}), frozenset(writes))


def _flow_effects(program: p.Program, flow: p.CompiledFlow) -> RailEffects | None:
    reads: set[str] = set()
    writes: set[str] = set()
    definitely_set: set[str] = set()
    conditional_until = 0  # instructions before this index may be skipped, or run more than once
    for index, instruction in enumerate(flow.instructions):
        if instruction.op in (p.USER, p.EVENT, p.BRANCH):
            return None  # waits for another event
        instruction_reads = (
            find_variables(instruction.source) if instruction.source else frozenset()
        )
        if instruction.op == p.ACTION:
            if not _is_harmless_action(program, instruction):
                return None
            arguments = (
                find_variables(v) for v in instruction.params.values() if isinstance(v, str)
            )
            instruction_reads = instruction_reads.union(ACTION_READS, *arguments)
        reads |= instruction_reads - definitely_set
        target = _assigned_variable(instruction)
        if target:
            writes.add(target)
            if index >= conditional_until:
                definitely_set.add(target)
        if instruction.op in (p.IF, p.WHILE):
            length = instruction.jump if instruction.op == p.IF else instruction.break_offset
            conditional_until = max(conditional_until, index + length)
    return RailEffects(frozenset(reads), frozenset(writes))


def _is_harmless_action(program: p.Program, instruction: p.Instruction) -> bool:
    if instruction.name == "create_event":
        event = instruction.params["event"]["_type"]
        return bool(event.endswith("Exception") or event in _HARMLESS_EVENTS)
    return instruction.name in program.pure_actions


def _assigned_variable(instruction: p.Instruction) -> str | None:
    if instruction.op == p.SET:
        return instruction.name
    return instruction.result if instruction.op == p.ACTION else None


def can_run_in_parallel(program: p.Program, rails: list[str]) -> bool:
    """Returns whether these rails provably have the same outcome in parallel as in sequence."""
    effects = [variable_effects(program, rail) for rail in rails]
    known = [e for e in effects if e is not None]
    if len(known) < len(effects):
        return False
    return not any(
        writer.writes & reader.reads
        for i, writer in enumerate(known)
        for j, reader in enumerate(known)
        if i != j
    )
