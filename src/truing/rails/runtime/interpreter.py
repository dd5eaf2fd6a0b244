"""Interprets the compiled Colang flows of one conversation, event by event.

The semantics are those of NeMo Guardrails' Colang 1.0 runtime. NeMo computes the state anew from
the whole history at each step; here the state (the frames of running flows and the context) is kept
and advanced, so that an event touches only the running flows and those that can start on it.
"""

from __future__ import annotations

from typing import Any

from truing.core.errors import TruingError
from truing.rails.colang import compiler as p
from truing.rails.colang.flow_reference import parse_flow_name, parse_flow_parameters
from truing.rails.runtime.event_matching import event_key, matches
from truing.rails.runtime.event_types import (
    BotIntent,
    ContextUpdate,
    Event,
    HidePreviousTurn,
    StartAction,
    StartFlow,
    StartUtterance,
    UserIntent,
    UserMessage,
    Utterance,
)
from truing.rails.runtime.flow_frames import (
    ABORTED,
    ACTIVE,
    COMPLETED,
    INTERRUPTED,
    FlowFrame,
    FlowSnapshot,
)

MAX_STEPS_PER_EVENT = 10_000
MAX_CALL_DEPTH = 50
MAX_SNAPSHOTS = 8
MAX_FRAMES = 64  # above this, frames that can never resume are dropped


class FlowError(TruingError):
    """A flow cannot go on: an endless loop, too deep a recursion, an unknown subflow."""


class Interpreter:
    """Runs the flows of one conversation.

    `process` takes one event and advances all flows; `next_steps` returns what the flows decided to
    do next. Of several flows that could act, the one with the highest priority decides: among
    equals the first flow that this event moved, else the last one that was already waiting.
    """

    def __init__(self, program: p.Program, config: Any = None) -> None:
        self.program = program
        self.config = config
        self.context: dict[str, Any] = {}
        self.frames: list[FlowFrame] = []
        # What the last event led to: variables set, the instruction to run next and the frame that
        # proposed it.
        self.updates: dict[str, Any] = {}
        self.next_instruction: p.Instruction | None = None
        self.deciding_frame_id: int | None = None
        self.next_priority = 0.0
        self.snapshots: FlowSnapshot | None = None
        self.last_event: Event | None = None
        self.steps_taken = 0

    def fork(self) -> Interpreter:
        """Returns an independent copy, without the decision on the next step."""
        fork = Interpreter(self.program, self.config)
        fork.context = dict(self.context)
        fork.frames = [frame.copy() for frame in self.frames]
        fork.snapshots, fork.last_event = self.snapshots, self.last_event
        return fork

    def restart(self, context: dict[str, Any]) -> None:
        """Drops all running flows and takes over variables; a failed turn returns to this state."""
        self.context, self.frames = dict(context), []
        self.snapshots = FlowSnapshot(None, self.context, [])

    # -- events --------------------------------------------------------------------------------

    def process(self, event: Event, nemo_event: dict[str, Any] | None = None) -> None:
        """Advances the flows by an event; `nemo_event` is its NeMo form where the caller has it.

        Raises FlowError if a flow cannot go on.
        """
        if isinstance(event, HidePreviousTurn):
            self._restore_snapshot()
            return
        if isinstance(event, Utterance):
            previous = self.snapshots
            if previous is not None and previous.depth >= MAX_SNAPSHOTS:
                previous = None  # bounds the memory of long conversations
            self.snapshots = FlowSnapshot(previous, self.context, self.frames)
        self.last_event = event
        if isinstance(event, StartAction):
            return
        if isinstance(event, ContextUpdate):
            self.context.update(event.data)
            self.updates = {}
            self.next_instruction = None
            return
        self._advance_flows(event, event.to_nemo() if nemo_event is None else nemo_event)
        if isinstance(event, BotIntent) and event.stops_turn:
            self.frames = []

    def _restore_snapshot(self) -> None:
        snapshot = self.snapshots
        if snapshot is None:
            raise FlowError("a turn that did not start with a user's message cannot be taken back")
        self.context = dict(snapshot.context)
        self.frames = [frame.copy() for frame in snapshot.frames]
        self.snapshots = snapshot.previous
        self.updates, self.next_instruction = {}, None
        self.deciding_frame_id, self.last_event = None, None

    def _advance_flows(self, event: Event, nemo_event: dict[str, Any]) -> None:
        context = self.context
        if isinstance(event, UserMessage):
            context["last_user_message"] = event.text
        elif isinstance(event, StartUtterance):
            context["last_bot_message"] = event.script
        context["event"] = nemo_event
        context["config"] = self.config
        running, self.frames = self.frames, []
        self.updates, self.next_instruction = {}, None
        self.deciding_frame_id, self.next_priority = None, 0.0
        self.steps_taken = 0
        extension_finished = self._continue_flows(running, event)
        self._start_flows(event)
        self._resolve_interruptions(extension_finished)

    def is_running(self, flow_id: str) -> bool:
        """Returns whether a flow of this name has started and not ended."""
        return any(
            frame.flow.id == flow_id and frame.status in (ACTIVE, INTERRUPTED) and frame.pc >= 0
            for frame in self.frames
        )

    def abort_flows_at(self, action_name: str) -> None:
        """Aborts the flows whose next instruction is an action of this name."""
        for frame in self.frames:
            instructions = frame.flow.instructions
            if frame.status != ACTIVE or not 0 <= frame.pc < len(instructions):
                continue
            instruction = instructions[frame.pc]
            if instruction.op == p.ACTION and instruction.name == action_name:
                frame.status = ABORTED

    # -- running flows ---------------------------------------------------------------------------

    def _continue_flows(self, running: list[FlowFrame], event: Event) -> bool:
        """Advances the frames of running flows; returns whether an extension flow finished."""
        extension_finished = False
        kind = event.type
        for frame in running:
            if frame.status >= ABORTED:
                continue
            if frame.status == INTERRUPTED:
                self.frames.append(frame)
                continue
            flow = frame.flow
            if kind not in flow.trigger_types:
                self.frames.append(frame)
                # It has waited since an earlier event: at equal priority, a flow that this event
                # moved goes first.
                self._propose(frame, 0.9)
                continue
            next_pc = self._match_frame(frame, event)
            if next_pc:
                frame.pc = next_pc
                self._run_frame(frame, 0)
                if frame.pc < 0:
                    frame.status = COMPLETED
                    extension_finished = extension_finished or flow.is_extension
            elif flow.instructions[frame.pc].actionable or not flow.is_interruptible:
                # Not the step that this flow proposed, or the flow may not be interrupted.
                frame.status = ABORTED
            else:
                frame.status = INTERRUPTED
            self.frames.append(frame)
        return extension_finished

    def _match_frame(self, frame: FlowFrame, event: Event) -> int | None:
        """Returns the program counter after the instruction that the event matches, or None."""
        instructions = frame.flow.instructions
        instruction = instructions[frame.pc]
        if instruction.op != p.BRANCH:
            return frame.pc + 1 if matches(instruction, event) else None
        next_pc = None
        for offset in instruction.branch_offsets:
            # No break: as in NeMo, the last branch that matches wins.
            if matches(instructions[frame.pc + offset], event):
                next_pc = frame.pc + offset + 1
        if next_pc is None and instruction.else_offset and isinstance(event, UserIntent):
            next_pc = frame.pc + instruction.else_offset
        return next_pc

    # -- new flows -------------------------------------------------------------------------------

    def _start_flows(self, event: Event) -> None:
        """Starts the flows whose first instruction matches, or the one that `start_flow` names."""
        requested = self.program.flows.get(event.flow_id) if isinstance(event, StartFlow) else None
        candidates = self.program.find_candidates(*event_key(event))
        if requested is not None and requested not in candidates:
            candidates = sorted([*candidates, requested], key=lambda flow: flow.index)
        for flow in candidates:
            if flow.is_subflow and flow is not requested:
                continue
            is_running = any(f.flow is flow or f.flow.id == flow.id for f in self.frames)
            if is_running and not flow.allow_multiple:
                continue
            pc = self._run_to_wait(flow, 0)
            # A subflow without a step that waits or acts is over at once.
            is_match = pc >= 0 and matches(flow.instructions[pc], event)
            if not is_match and flow is not requested:
                continue
            self.updates.update(event.get("params") or {})
            frame = FlowFrame(flow, pc + 1 if is_match else pc)
            self.frames.append(frame)
            if pc < 0:
                frame.status = COMPLETED
            else:
                self._run_frame(frame, 0)

    # -- interruptions ---------------------------------------------------------------------------

    def _resolve_interruptions(self, extension_finished: bool) -> None:
        """Settles which frames wait for the deciding one, and resumes those whose wait is over."""
        if extension_finished:
            # A finished extension flow reactivates the flows that it aborted.
            for frame in self.frames:
                if frame.status != ABORTED:
                    continue
                if 0 <= frame.pc < len(frame.flow.instructions):
                    frame.status = ACTIVE
                    self._propose(frame, 1.0)
                else:
                    frame.status = COMPLETED  # its last step was the subflow that it waited for
        deciding = None
        for frame in self.frames:
            if frame.status == INTERRUPTED and frame.interrupted_by is None:
                frame.interrupted_by = self.deciding_frame_id
            if frame.uid == self.deciding_frame_id:
                deciding = frame
        if deciding is not None and deciding.flow.is_extension and deciding.pc > 1:
            for frame in self.frames:
                if frame.status == ABORTED and frame.flow.is_interruptible:
                    frame.status = INTERRUPTED
                    frame.interrupted_by = self.deciding_frame_id
        # A frame that finishes may release another one: repeat until nothing changes.
        while self._resume_frames():
            pass
        if len(self.frames) > MAX_FRAMES:
            self._drop_dead_frames()

    def _resume_frames(self) -> bool:
        """Makes one pass over the interrupted frames; returns whether anything changed.

        A frame goes on when the one that interrupted it is complete, and aborts when that one
        aborted.
        """
        if not any(frame.status == INTERRUPTED for frame in self.frames):
            return False
        changed = False
        frames_by_id = {frame.uid: frame for frame in self.frames}
        # The list grows while it is iterated: a resumed frame may call a subflow, whose frame is
        # appended.
        for frame in self.frames:
            if frame.status != INTERRUPTED:
                continue
            blocker = None
            if frame.interrupted_by is not None:
                blocker = frames_by_id.get(frame.interrupted_by)
                if blocker is None:
                    blocker = next((f for f in self.frames if f.uid == frame.interrupted_by), None)
            if frame.interrupted_by is None or (
                blocker is not None and blocker.status == COMPLETED
            ):
                frame.status, frame.interrupted_by = ACTIVE, None
                self._run_frame(frame, 0)
                if frame.pc < 0:
                    frame.status = COMPLETED
                changed = True
            elif blocker is not None and blocker.status == ABORTED:
                frame.status, frame.interrupted_by = ABORTED, None
                changed = True
        return changed

    def _drop_dead_frames(self) -> None:
        """Drops frames that can never resume because the frame they wait for is gone.

        One frame of each flow that runs only once is kept: its presence keeps the flow from
        starting again.
        """
        alive = {frame.uid for frame in self.frames}
        seen: set[str] = set()
        remaining = []
        for frame in self.frames:
            is_dead = (
                frame.status == INTERRUPTED
                and frame.interrupted_by is not None
                and frame.interrupted_by not in alive
            )
            flow = frame.flow
            if is_dead and (flow.allow_multiple or flow.is_subflow or flow.id in seen):
                continue
            if is_dead:
                seen.add(flow.id)
            remaining.append(frame)
        self.frames = remaining

    # -- running a frame -------------------------------------------------------------------------

    def _propose(self, frame: FlowFrame, priority_factor: float) -> None:
        """Makes the frame's instruction the next step, if no step of at least its priority is
        proposed.

        `priority_factor` lowers the stored priority of flows that were already waiting, so that a
        later flow of the same priority replaces them (as in NeMo Guardrails).
        """
        priority = frame.flow.priority
        if self.next_instruction is not None and self.next_priority >= priority:
            return
        instructions = frame.flow.instructions
        if frame.pc >= len(instructions):
            return
        instruction = instructions[frame.pc]
        if instruction.actionable:
            self.next_instruction, self.deciding_frame_id = instruction, frame.uid
            self.next_priority = priority * priority_factor

    def _run_frame(self, frame: FlowFrame, depth: int) -> None:
        """Runs a frame up to its next instruction that waits or acts, calling subflows on the
        way.
        """
        while True:
            frame.pc = self._run_to_wait(frame.flow, frame.pc)
            if frame.pc < 0:
                return
            if frame.flow.instructions[frame.pc].op != p.FLOW:
                self._propose(frame, 1.0)
                return
            if self._call_subflow(frame, depth):
                return

    def _call_subflow(self, frame: FlowFrame, depth: int) -> bool:
        """Runs the subflow at the program counter; returns whether it has not finished yet."""
        flow_id = frame.flow.id
        if depth > MAX_CALL_DEPTH:
            raise FlowError(
                f"subflows call each other more than {MAX_CALL_DEPTH} deep, at {flow_id!r}"
            )
        instruction = frame.flow.instructions[frame.pc]
        name = instruction.name
        if instruction.expression is not None:
            name = instruction.expression(self.context)
        if not isinstance(name, str):
            raise FlowError(
                f"{instruction.name!r} in the flow {flow_id!r} should name a subflow, but its "
                f"value is {name!r}"
            )
        if ("(" in name and ")" in name) or "$" in name:
            self.updates.update(parse_flow_parameters(name))
            name = parse_flow_name(name)
        subflow = self.program.flows.get(name)
        if subflow is None:
            raise FlowError(f"there is no subflow {name!r} (called by {flow_id!r})")
        callee = FlowFrame(subflow, 0)
        frame.pc += 1
        self._run_frame(callee, depth + 1)
        if callee.pc < 0:
            return False
        frame.status, frame.interrupted_by = INTERRUPTED, callee.uid
        self.frames.append(callee)
        self._propose(callee, 1.0)
        return True

    def _run_to_wait(self, flow: p.CompiledFlow, pc: int) -> int:
        """Runs the instructions from `pc` that neither wait nor act (if, while, set, jump, ...).

        Returns the index of the next instruction that does, or, when the flow is over, -(last index
        + 1).
        """
        instructions = flow.instructions
        size = len(instructions)
        previous = pc if pc < size else pc - 1
        context = self.context
        while True:
            if pc == size or pc < 0:
                return -(previous + 1)
            self.steps_taken += 1
            if self.steps_taken > MAX_STEPS_PER_EVENT:
                raise FlowError(
                    f"the flow {flow.id!r} does not come to an end (line "
                    f"{instructions[previous].line})"
                )
            previous = pc
            instruction = instructions[pc]
            op = instruction.op
            if op < p.FIRST_SLIDING_OP:
                return pc
            if op == p.JUMP:
                pc = pc + instruction.jump if instruction.jump else -1  # a jump of 0 is `return`
                continue
            if op == p.BREAK:
                pc += instruction.break_offset or 1
                continue
            if op == p.CONTINUE:
                pc += instruction.continue_offset or 1
                continue
            evaluated = instruction.expression(context) if instruction.expression else None
            if op == p.SET:
                evaluated = list(evaluated) if isinstance(evaluated, tuple) else evaluated
                context[instruction.name] = evaluated
                self.updates[instruction.name] = evaluated
                pc += 1
            elif op == p.IF:
                pc += 1 if evaluated else instruction.jump
            elif op == p.WHILE:
                pc += 1 if evaluated else instruction.break_offset
            elif not evaluated:
                raise FlowError(
                    f"the check {instruction.source!r} in the flow {flow.id!r} does not hold"
                )
            else:
                pc += 1

    # -- decisions -------------------------------------------------------------------------------

    def next_steps(self) -> list[Event]:
        """Returns the events that follow: context updates, then a bot intent or an action."""
        last = self.last_event
        if isinstance(last, BotIntent) and last.stops_turn:
            return []
        steps: list[Event] = []
        if self.updates:
            steps.append(ContextUpdate(self.updates))
        instruction = self.next_instruction
        if instruction is None:
            return steps
        if instruction.op == p.BOT:
            steps.append(BotIntent(instruction.name, instruction.comment or None))
        else:
            steps.append(StartAction(instruction.name, instruction.params, instruction.result))
        return steps
