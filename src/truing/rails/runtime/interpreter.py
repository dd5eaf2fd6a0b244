"""The state of one conversation's flows, advanced event by event.

The rules are those of NeMo Guardrails' Colang 1.0 runtime, but the state is kept and advanced instead of being computed
anew from the whole history at each step. An event touches the active flows and those that can start on it.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from truing.core.errors import TruingError
from truing.rails.colang import compiler as p
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters

Event = dict[str, Any]
ACTIVE, INTERRUPTED, ABORTED, COMPLETED = range(4)
MAX_SLIDES = 10_000
MAX_DEPTH = 50
MAX_MARKS = 8

_uids = count(1)


class FlowError(TruingError):
    """A flow cannot go on: an endless loop, a recursion too deep, an unknown subflow."""


class Frame:
    """A running flow: where it stands, and which frame interrupted it."""

    __slots__ = ("by", "flow", "head", "status", "uid")

    def __init__(self, flow: p.CompiledFlow, head: int) -> None:
        self.uid = next(_uids)
        self.flow = flow
        self.head = head
        self.status = ACTIVE
        self.by: int | None = None

    def copy(self) -> Frame:
        """The same frame, with the same uid."""
        other = Frame.__new__(Frame)
        other.uid, other.flow, other.head = self.uid, self.flow, self.head
        other.status, other.by = self.status, self.by
        return other


class _Mark:
    """What the state was before a user's utterance, so that a failed turn can be taken back."""

    __slots__ = ("before", "context", "depth", "frames")

    def __init__(self, before: _Mark | None, context: dict[str, Any], frames: list[Frame]) -> None:
        self.before = before
        self.context = dict(context)
        self.frames = [f.copy() for f in frames]
        self.depth: int = 1 if before is None else before.depth + 1


def _key(event: Event) -> tuple[int, str]:
    kind = event["type"]
    if kind == "UserIntent":
        return p.USER, event["intent"]
    if kind == "BotIntent":
        return p.BOT, event["intent"]
    if kind == "InternalSystemActionFinished":
        return p.ACTION, event["action_name"]
    return p.EVENT, kind


def matches(element: p.Instruction, event: Event) -> bool:
    """Whether an element waits for this event."""
    kind = event["type"]
    op = element.op
    if kind == "UserIntent":
        return op == p.USER and (element.name == "..." or element.name == event["intent"])
    if kind == "BotIntent":
        return op == p.BOT and (element.name == "..." or element.name == event["intent"])
    if kind == "InternalSystemActionFinished":
        if event["status"] != "success" or op != p.ACTION:
            return False
        return bool(element.name == event["action_name"])
    if op != p.EVENT or element.name != kind:
        return False
    return all(event.get(name) == value for name, value in element.fields)


class Machine:
    """The flows of one conversation. `process` takes events one after the other, `next_steps` says what follows."""

    def __init__(self, program: p.Program, config: Any = None) -> None:
        self.program = program
        self.config = config
        self.context: dict[str, Any] = {}
        self.frames: list[Frame] = []
        self.updates: dict[str, Any] = {}
        self.step: p.Instruction | None = None
        self.step_by: int | None = None
        self.step_priority = 0.0
        self.marks: _Mark | None = None
        self.last: Event | None = None
        self.slides = 0

    def fork(self) -> Machine:
        """A copy that goes its own way."""
        other = Machine(self.program, self.config)
        other.context = dict(self.context)
        other.frames = [f.copy() for f in self.frames]
        other.marks, other.last = self.marks, self.last
        return other

    # -- what comes in -------------------------------------------------------------------------------------------------

    def process(self, event: Event) -> None:
        """Advances the flows by one event."""
        kind = event["type"]
        if kind == "hide_prev_turn":
            self._take_back()
            return
        if kind == "UtteranceUserActionFinished":
            before = self.marks if self.marks is None or self.marks.depth < MAX_MARKS else None
            self.marks = _Mark(before, self.context, self.frames)
        self.last = event
        if kind == "StartInternalSystemAction":
            return
        if kind == "ContextUpdate":
            self.context.update(event["data"])
            self.updates = {}
            self.step = None
            return
        self._advance(event, kind)
        if kind == "BotIntent" and event["intent"] == "stop":
            self.frames = []

    def _take_back(self) -> None:
        if self.marks is None:
            raise FlowError("a turn that did not start with a user's message cannot be taken back")
        mark = self.marks
        self.context, self.frames, self.marks = (
            dict(mark.context),
            [f.copy() for f in mark.frames],
            mark.before,
        )
        self.updates, self.step, self.step_by, self.last = {}, None, None, None

    def _advance(self, event: Event, kind: str) -> None:
        context = self.context
        if kind == "UserMessage":
            context["last_user_message"] = event["text"]
        elif kind == "StartUtteranceBotAction":
            context["last_bot_message"] = event["script"]
        context["event"] = event
        context["config"] = self.config
        old, self.frames = self.frames, []
        self.updates, self.step, self.step_by, self.step_priority = {}, None, None, 0.0
        self.slides = 0
        finished = self._continue(old, event, kind)
        self._start(event, kind)
        self._settle(finished)

    # -- flows that run ------------------------------------------------------------------------------------------------

    def _continue(self, old: list[Frame], event: Event, kind: str) -> bool:
        """Advances the frames that run; tells whether an extension flow finished."""
        finished = False
        for frame in old:
            if frame.status >= ABORTED:
                continue
            if frame.status == INTERRUPTED:
                self.frames.append(frame)
                continue
            flow = frame.flow
            element = flow.instructions[frame.head]
            if kind not in flow.trigger_types:
                self.frames.append(frame)
                self._propose(frame, 0.9)
                continue
            head = self._matching(frame, element, event)
            if head:
                frame.head = head
                self._slide(frame, 0)
                if frame.head < 0:
                    frame.status = COMPLETED
                    finished = finished or flow.is_extension
            elif flow.instructions[frame.head].actionable or not flow.is_interruptible:
                frame.status = ABORTED
            else:
                frame.status = INTERRUPTED
            self.frames.append(frame)
        return finished

    def _matching(self, frame: Frame, element: p.Instruction, event: Event) -> int | None:
        if element.op != p.BRANCH:
            return frame.head + 1 if matches(element, event) else None
        found = None
        for offset in element.branch_offsets:
            if matches(frame.flow.instructions[frame.head + offset], event):
                found = frame.head + offset + 1
        if found is None and element.else_offset and event["type"] == "UserIntent":
            found = frame.head + element.else_offset
        return found

    # -- flows that start ----------------------------------------------------------------------------------------------

    def _start(self, event: Event, kind: str) -> None:
        named = self.program.flows.get(event["flow_id"]) if kind == "start_flow" else None
        found = self.program.find_candidates(*_key(event))
        if named is not None and named not in found:
            found = sorted([*found, named], key=lambda f: f.index)
        for flow in found:
            if flow.is_subflow and flow is not named:
                continue
            if not flow.allow_multiple and any(
                f.flow is flow or f.flow.id == flow.id for f in self.frames
            ):
                continue
            head = self._slide_plain(flow, 0)
            begins = matches(flow.instructions[head], event)
            if not begins and flow is not named:
                continue
            if event.get("params"):
                self.updates.update(event["params"])
            frame = Frame(flow, head + 1 if begins else head)
            self.frames.append(frame)
            self._slide(frame, 0)

    # -- who decides, who waits ----------------------------------------------------------------------------------------

    def _settle(self, extension_finished: bool) -> None:
        frames = self.frames
        if extension_finished:
            for frame in frames:
                if frame.status == ABORTED:
                    frame.status = ACTIVE
                    self._propose(frame, 1.0)
        decider = None
        for frame in frames:
            if frame.status == INTERRUPTED and frame.by is None:
                frame.by = self.step_by
            if frame.uid == self.step_by:
                decider = frame
        if decider is not None and decider.flow.is_extension and decider.head > 1:
            for frame in frames:
                if frame.status == ABORTED and frame.flow.is_interruptible:
                    frame.status = INTERRUPTED
                    frame.by = self.step_by
        changes = any(f.status == INTERRUPTED for f in frames)
        while changes:
            changes = self._resume()
        if len(frames) > 64:
            self._forget()

    def _resume(self) -> bool:
        """One pass over the interrupted frames: those whose interrupter finished go on, those whose it was aborted stop."""
        changes = False
        status = {f.uid: f for f in self.frames}
        for frame in self.frames:
            if frame.status != INTERRUPTED:
                continue
            by = status.get(frame.by) if frame.by is not None else None
            if by is None and frame.by is not None:
                by = next((f for f in self.frames if f.uid == frame.by), None)
            if frame.by is None or (by is not None and by.status == COMPLETED):
                frame.status, frame.by = ACTIVE, None
                self._slide(frame, 0)
                if frame.head < 0:
                    frame.status = COMPLETED
                changes = True
            elif by is not None and by.status == ABORTED:
                frame.status, frame.by = ABORTED, None
                changes = True
        return changes

    def _forget(self) -> None:
        """Drops frames that can never go on (their interrupter is gone), except one for each flow that runs only once."""
        alive = {f.uid for f in self.frames}
        seen: set[str] = set()
        kept = []
        for frame in self.frames:
            dead = frame.status == INTERRUPTED and frame.by is not None and frame.by not in alive
            if dead and (
                frame.flow.allow_multiple or frame.flow.is_subflow or frame.flow.id in seen
            ):
                continue
            if dead:
                seen.add(frame.flow.id)
            kept.append(frame)
        self.frames = kept

    # -- sliding -------------------------------------------------------------------------------------------------------

    def _propose(self, frame: Frame, weight: float) -> None:
        priority = frame.flow.priority
        if self.step is not None and self.step_priority >= priority:
            return
        elements = frame.flow.instructions
        if frame.head >= len(elements):
            return
        element = elements[frame.head]
        if element.actionable:
            self.step, self.step_by, self.step_priority = element, frame.uid, priority * weight

    def _slide(self, frame: Frame, depth: int) -> None:
        """Moves a frame to its next element that waits or acts, calling subflows on the way."""
        while True:
            frame.head = self._slide_plain(frame.flow, frame.head)
            if frame.head < 0:
                return
            if frame.flow.instructions[frame.head].op != p.FLOW:
                self._propose(frame, 1.0)
                return
            if self._call(frame, depth):
                return

    def _call(self, frame: Frame, depth: int) -> bool:
        """Calls a subflow; tells whether it is still running."""
        if depth > MAX_DEPTH:
            raise FlowError(
                f"subflows call each other more than {MAX_DEPTH} deep, at {frame.flow.id!r}"
            )
        element = frame.flow.instructions[frame.head]
        name = element.name
        if element.expression is not None:
            name = element.expression(self.context)
        if not isinstance(name, str):
            raise FlowError(
                f"{element.name!r} in the flow {frame.flow.id!r} is no subflow's name but {name!r}"
            )
        if ("(" in name and ")" in name) or "$" in name:
            self.updates.update(parse_flow_parameters(name))
            name = parse_flow_name(name)
        flow = self.program.flows.get(name)
        if flow is None:
            raise FlowError(f"there is no subflow {name!r} (called by {frame.flow.id!r})")
        sub = Frame(flow, 0)
        frame.head += 1
        self._slide(sub, depth + 1)
        if sub.head < 0:
            return False
        frame.status, frame.by = INTERRUPTED, sub.uid
        self.frames.append(sub)
        self._propose(sub, 1.0)
        return True

    def _slide_plain(self, flow: p.CompiledFlow, head: int) -> int:
        """The next head that waits or acts; -(last head + 1) when the flow is over."""
        elements = flow.instructions
        size = len(elements)
        previous = head if head < size else head - 1
        context = self.context
        while True:
            if head == size or head < 0:
                return -(previous + 1)
            self.slides += 1
            if self.slides > MAX_SLIDES:
                raise FlowError(
                    f"the flow {flow.id!r} does not come to an end (line {elements[previous].line})"
                )
            previous = head
            element = elements[head]
            op = element.op
            if op < p.FIRST_SLIDING_OP:
                return head
            if op == p.JUMP:
                head = head + element.jump if element.jump else -1
                continue
            if op == p.BREAK:
                head += element.break_offset or 1
                continue
            if op == p.CONTINUE:
                head += element.continue_offset or 1
                continue
            value = element.expression(context) if element.expression else None
            if op == p.SET:
                value = list(value) if isinstance(value, tuple) else value
                context[element.name] = value
                self.updates[element.name] = value
                head += 1
            elif op == p.IF:
                head += 1 if value else element.jump
            elif op == p.WHILE:
                head += 1 if value else element.break_offset
            elif not value:
                raise FlowError(
                    f"the check {element.source!r} in the flow {flow.id!r} does not hold"
                )
            else:
                head += 1

    # -- what comes out ------------------------------------------------------------------------------------------------

    def next_steps(self) -> list[Event]:
        """The events that follow from the last one."""
        last = self.last
        if last is not None and last["type"] == "BotIntent" and last["intent"] == "stop":
            return []
        found: list[Event] = []
        if self.updates:
            found.append({"type": "ContextUpdate", "data": self.updates})
        step = self.step
        if step is None:
            return found
        if step.op == p.BOT:
            event: Event = {"type": "BotIntent", "intent": step.name}
            if step.comment:
                event["instructions"] = step.comment
        else:
            event = {
                "type": "StartInternalSystemAction",
                "action_name": step.name,
                "action_params": step.params,
                "action_result_key": step.result,
            }
        found.append(event)
        return found

    @property
    def decider(self) -> str | None:
        """The name of the flow that decided the next step."""
        return next((f.flow.id for f in self.frames if f.uid == self.step_by), None)
