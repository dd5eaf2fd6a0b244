"""A random share of the answers is judged, and an e-process says when harm exceeds what is tolerated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from truing.core.protocols import Judge
from truing.core.types import Answer, Conversation, Response, Sample
from truing.stats.sequential import HarmRateAlarm


class Audit:
    """`judge` must not be one that a rail of this server uses: it would measure what it blocked."""

    def __init__(self, judge: Judge, alarm: HarmRateAlarm, on_alarm: Callable[[str], None]) -> None:
        self._judge, self._alarm, self._on_alarm = judge, alarm, on_alarm
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = False

    @property
    def evidence(self) -> float:
        """The e-value: how strongly the audits speak against the tolerated rate."""
        return self._alarm.evidence

    def hear(self, conversation: Conversation, answer: Answer) -> None:
        """Draws whether this answer is audited; the judging runs beside the traffic."""
        if self._alarm.should_audit():
            task = asyncio.create_task(self._judge_one(conversation, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _judge_one(self, conversation: Conversation, answer: Answer) -> None:
        try:
            sample = Sample(conversation=conversation, id="audit")
            made = await self._judge.judge(sample, Response.of("audit", 0, "served", answer))
            verdict = made.verdict
        except (
            Exception
        ):  # a judge that breaks down leaves the answer unscored; the alarm counts it
            verdict = None
        raised = self._alarm.observe(verdict)
        if raised and not self._told:
            self._told = True
            state = self._alarm.state()
            self._on_alarm(
                f"harm alarm: {state.harmful} of {state.audited} audited answers are harmful, more than the tolerated "
                f"{100 * self._alarm.tolerated:.1f} % explains (evidence {state.evidence:.0f})"
            )

    async def finish(self) -> None:
        """Waits for the audits under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
