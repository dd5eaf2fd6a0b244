"""Frames of running flows, and snapshots of all of them: the memory of the Colang interpreter."""

from __future__ import annotations

from itertools import count
from typing import Any

from truing.rails.colang import compiler as p

# The states of a frame. The order matters: ABORTED and COMPLETED frames are dropped at the next
# event.
ACTIVE, INTERRUPTED, ABORTED, COMPLETED = range(4)

_frame_ids = count(1)


class FlowFrame:
    """A running flow: its program counter, its status, and the frame that it waits for.

    `pc` is the index of the instruction that runs next; it is negative once the flow is over.
    `interrupted_by` is the `uid` of a subflow's frame, or of the flow that took precedence.
    """

    __slots__ = ("flow", "interrupted_by", "pc", "status", "uid")

    def __init__(self, flow: p.CompiledFlow, pc: int) -> None:
        self.uid = next(_frame_ids)
        self.flow = flow
        self.pc = pc
        self.status = ACTIVE
        self.interrupted_by: int | None = None

    def copy(self) -> FlowFrame:
        """Returns a copy with the same uid, to which `interrupted_by` of others still refers."""
        frame = FlowFrame.__new__(FlowFrame)
        frame.uid, frame.flow, frame.pc = self.uid, self.flow, self.pc
        frame.status, frame.interrupted_by = self.status, self.interrupted_by
        return frame


class FlowSnapshot:
    """The state before a user's utterance, to which `hide_prev_turn` returns."""

    __slots__ = ("context", "depth", "frames", "previous")

    def __init__(
        self, previous: FlowSnapshot | None, context: dict[str, Any], frames: list[FlowFrame]
    ) -> None:
        self.previous = previous
        self.context = dict(context)
        self.frames = [frame.copy() for frame in frames]
        self.depth: int = 1 if previous is None else previous.depth + 1
