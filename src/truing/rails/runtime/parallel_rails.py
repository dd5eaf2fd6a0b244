"""Rails side by side: each runs on its own copy of the conversation, the first that stops the turn decides.

`independent` shows statically that rails can run so: none writes a variable that another reads before it sets it itself.
Rails that call an action whose effects are not known are never independent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from truing.rails.actions import ActionResult
from truing.rails.colang import compiler as p
from truing.rails.colang.expressions import find_variables
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.runtime.turn_context import Turn

Event = dict[str, Any]

_OWN_EVENTS = frozenset({"mask_prev_user_message", "BotMessage"})


def _stops(events: list[Event]) -> bool:
    return any(
        (e["type"] == "BotIntent" and e["intent"] == "stop") or e["type"].endswith("Exception")
        for e in events
    )


async def _one(turn: Turn, name: str, stage: str) -> tuple[list[Event], Turn]:
    """Runs one rail on a copy of the conversation."""
    child = Turn(
        turn.services,
        turn.talk.fork(),
        turn.sampling,
        turn.options,
        None,
        turn.chat,
        turn.tools,
        turn.tally,
    )
    child.seed = turn.seed
    child.watch({"type": f"Start{stage}Rail", "flow_id": name})
    begin: Event = {"type": "start_flow", "flow_id": parse_flow_name(name)}
    given = parse_flow_parameters(name)
    if given:
        begin["params"] = given
    child.talk.context[f"triggered_{stage.lower()}_rail"] = name
    child.talk.add(begin)
    events = [e for e in await turn.services.advance(child) if e["type"] != "Listen"]
    if not _stops(events):
        child.close("allow")
    return events, child


async def run_side_by_side(turn: Turn, names: list[str], stage: str) -> ActionResult:
    """Runs the rails of a stage; the first that stops cancels the others. A rail that fails stops the turn."""
    tasks = [asyncio.create_task(_one(turn, name, stage)) for name in names]
    stopped: tuple[list[Event], Turn] | None = None
    try:
        for future in asyncio.as_completed(tasks):
            events, child = await future
            if _stops(events):
                stopped = (events, child)
                break
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    updates: dict[str, Any] = {}
    for task in tasks:
        if task.cancelled() or task.exception() is not None:
            continue
        events, child = task.result()
        if stopped is not None and child is stopped[1]:
            continue
        turn.rulings.extend(child.rulings)
        for event in events:
            if event["type"] == "ContextUpdate":
                updates.update(event["data"])
    if stopped is None:
        return ActionResult(context_updates=updates)
    turn.rulings.extend(stopped[1].rulings)
    turn.failure = turn.failure or stopped[1].failure
    return ActionResult(events=stopped[0], context_updates=updates)


async def _input(turn: Turn, flows: Sequence[str]) -> ActionResult:
    """Runs the input rails side by side."""
    return await run_side_by_side(turn, list(flows), "Input")


async def _output(turn: Turn, flows: Sequence[str]) -> ActionResult:
    """Runs the output rails side by side."""
    return await run_side_by_side(turn, list(flows), "Output")


ACTIONS = {"run_input_rails_in_parallel": _input, "run_output_rails_in_parallel": _output}


# -- the static proof --------------------------------------------------------------------------------------------------


def _harmless(event: str) -> bool:
    return event.endswith("Exception") or event in _OWN_EVENTS


def _reached(program: p.Program, name: str, seen: set[str]) -> Iterator[p.CompiledFlow | None]:
    flow = program.flows.get(parse_flow_name(name))
    if flow is None or flow.id in seen:
        return
    seen.add(flow.id)
    yield flow
    for element in flow.instructions:
        if element.op == p.FLOW:
            if element.expression is not None:
                yield None
            else:
                yield from _reached(program, element.name, seen)


def effects(program: p.Program, name: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """The variables that a rail reads before it sets them, and those that it writes; none if that cannot be shown."""
    reads: set[str] = set()
    writes: set[str] = set()
    for flow in _reached(program, name, set()):
        if flow is None:
            return None
        depth_end = 0
        own: set[str] = set()
        for at, e in enumerate(flow.instructions):
            if e.op in (p.USER, p.EVENT, p.BRANCH):
                return None
            used = find_variables(e.source) if e.source else frozenset()
            if e.op == p.ACTION:
                if e.name not in program.pure_actions or (
                    e.name == "create_event" and not _harmless(e.params["event"]["_type"])
                ):
                    return None
                used = used | {"user_message", "bot_message", "relevant_chunks"}
                used = used.union(
                    *(find_variables(v) for v in e.params.values() if isinstance(v, str))
                )
            reads |= used - own
            target = e.name if e.op == p.SET else e.result if e.op == p.ACTION else None
            if target:
                writes.add(target)
                if at >= depth_end:
                    own.add(target)
            if e.op in (p.IF, p.WHILE):
                depth_end = max(depth_end, at + (e.jump if e.op == p.IF else e.break_offset))
    return frozenset(reads - {"config"}), frozenset(writes)


def independent(program: p.Program, names: list[str]) -> bool:
    """Whether rails can run side by side with the same outcome as one after the other."""
    found = [effects(program, name) for name in names]
    if any(f is None for f in found):
        return False
    pairs = [f for f in found if f is not None]
    for at, (_, writes) in enumerate(pairs):
        for other, (reads, _) in enumerate(pairs):
            if at != other and writes & reads:
                return False
    return True
