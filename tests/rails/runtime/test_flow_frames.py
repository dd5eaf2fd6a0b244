"""Frames of running flows, and the snapshots that `hide_prev_turn` restores."""

from __future__ import annotations

from truing.rails.colang.compiler import CompiledFlow, compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.flow_frames import (
    ABORTED,
    ACTIVE,
    COMPLETED,
    INTERRUPTED,
    FlowFrame,
    FlowSnapshot,
)


def compile_greeting() -> CompiledFlow:
    return compile_flow(parse_colang("a.co", "define flow\n  user greet\n  bot greet\n").flows[0])


def test_a_new_frame_is_active_and_waits_for_nothing() -> None:
    flow = compile_greeting()
    first, second = FlowFrame(flow, 1), FlowFrame(flow, 0)
    assert (first.flow, first.pc, first.status, first.interrupted_by) == (flow, 1, ACTIVE, None)
    assert second.uid > first.uid


def test_states_are_ordered_so_that_finished_frames_are_the_last() -> None:
    assert ACTIVE < INTERRUPTED < ABORTED < COMPLETED


def test_a_copy_keeps_the_uid_and_changes_alone() -> None:
    frame = FlowFrame(compile_greeting(), 1)
    frame.status, frame.interrupted_by = INTERRUPTED, 7
    copy = frame.copy()
    assert (copy.uid, copy.flow, copy.pc) == (frame.uid, frame.flow, 1)
    assert (copy.status, copy.interrupted_by) == (INTERRUPTED, 7)
    copy.pc, copy.status, copy.interrupted_by = -1, COMPLETED, None
    assert (frame.pc, frame.status, frame.interrupted_by) == (1, INTERRUPTED, 7)


def test_a_snapshot_keeps_the_state_of_its_time() -> None:
    frame, context = FlowFrame(compile_greeting(), 1), {"name": "Ada"}
    snapshot = FlowSnapshot(None, context, [frame])
    frame.pc, context["name"] = -1, "Eve"
    assert snapshot.context == {"name": "Ada"}
    assert [(f.uid, f.pc) for f in snapshot.frames] == [(frame.uid, 1)]


def test_depth_counts_the_snapshots_before() -> None:
    snapshots = [FlowSnapshot(None, {}, [])]
    for _ in range(3):
        snapshots.append(FlowSnapshot(snapshots[-1], {}, []))
    assert [snapshot.depth for snapshot in snapshots] == [1, 2, 3, 4]
    assert snapshots[3].previous is snapshots[2]
