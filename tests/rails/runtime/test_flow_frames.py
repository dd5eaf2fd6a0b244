"""Frames of running flows, and their snapshots."""

from __future__ import annotations

from truing.rails.colang.compiler import compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.flow_frames import ACTIVE, FlowFrame, FlowSnapshot


def test_frames_have_their_own_ids_which_copies_share() -> None:
    flow = compile_flow(parse_colang("main.co", "define flow\n  user go\n").flows[0])
    first, second = FlowFrame(flow, 0), FlowFrame(flow, 0)
    assert first.uid != second.uid
    copy = first.copy()
    copy.pc = 1
    assert (copy.uid, copy.status) == (first.uid, ACTIVE)
    assert first.pc == 0


def test_a_snapshot_keeps_copies_and_its_depth() -> None:
    flow = compile_flow(parse_colang("main.co", "define flow\n  user go\n").flows[0])
    frame, context = FlowFrame(flow, 0), {"x": 1}
    first = FlowSnapshot(None, context, [frame])
    second = FlowSnapshot(first, context, [])
    frame.pc, context["x"] = 1, 2
    assert (first.frames[0].pc, first.context) == (0, {"x": 1})
    assert (first.depth, second.depth, second.previous) == (1, 2, first)
