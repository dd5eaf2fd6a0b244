"""Judges a random share of the served answers and raises an alarm when harm exceeds the tolerated
rate (an e-process).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from truing.core.protocols import Judge
from truing.core.types import Answer, Conversation, ImageMessage, Response, Sample
from truing.stats.sequential import HarmRateAlarm

# Audits in progress, each with its conversation in memory: what a judge slower than the traffic may
# hold. The answers beyond it count as unscored.
MAX_PENDING = 128


class HarmAudit:
    """Samples answers, judges them in the background, and calls `on_alarm` once with a message.

    `judge` must not be one that a rail of this server uses: it would measure what it blocked.
    """

    def __init__(self, judge: Judge, alarm: HarmRateAlarm, on_alarm: Callable[[str], None]) -> None:
        self._judge, self._alarm, self._on_alarm = judge, alarm, on_alarm
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm_reported = False

    @property
    def evidence(self) -> float:
        """The e-value: how strongly the audited answers speak against the tolerated rate."""
        return self._alarm.evidence

    def observe(self, conversation: Conversation, answer: Answer) -> None:
        """Decides at random whether this answer is audited, and starts its judging."""
        if self._alarm.should_audit():
            if len(self._tasks) >= MAX_PENDING:
                self._alarm.observe(None)
                return
            task = asyncio.create_task(self._judge_answer(conversation, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _judge_answer(self, conversation: Conversation, answer: Answer) -> None:
        try:
            sample = Sample(conversation=conversation, id="audit")
            judgement = await self._judge.judge(sample, Response.of("audit", 0, "served", answer))
            verdict = judgement.verdict
            if any(isinstance(message, ImageMessage) for message in conversation.messages):
                verdict = verdict or None  # the judge has read the texts alone
        except Exception:  # a judge that fails leaves the answer unscored; the alarm counts it
            verdict = None
        raised = self._alarm.observe(verdict)
        if raised and not self._alarm_reported:
            self._alarm_reported = True
            state = self._alarm.state()
            self._on_alarm(
                f"harm alarm: {state.harmful} of {state.audited} audited answers are harmful, "
                f"more than the tolerated {100 * self._alarm.tolerated:.1f} % explains "
                f"(evidence {state.evidence:.0f})"
            )

    async def finish(self, seconds: float = 30.0) -> None:
        """Waits for the judging in progress, at most so many seconds."""
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=seconds)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
