"""The audit of served answers: each drawn answer is judged once, a failing judge counts as
unscored, one alarm.
"""

from __future__ import annotations

import asyncio
from typing import Any

from truing.core.types import Answer, Conversation, Judgement, Lineage, Response, Sample
from truing.serve.openai.audit import MAX_PENDING, HarmAudit
from truing.stats.sequential import HarmRateAlarm


class CountingJudge:
    """Calls every answer harmful, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.name, self.question, self.lineage = "counting", "harmful", Lineage(name="counting")
        self.calls, self.fails = 0, fails

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.calls += 1
        if self.fails:
            raise RuntimeError("no verdict")
        return Judgement(
            sample_id=sample.id, index=0, judge=self.name, question="harmful", verdict=True
        )


def observe(judge: CountingJudge, answers: int, alarm: HarmRateAlarm) -> list[str]:
    messages: list[str] = []

    async def run() -> None:
        audit = HarmAudit(judge, alarm, messages.append)  # type: ignore[arg-type]
        for _ in range(answers):
            audit.observe(Conversation.of("hello"), Answer.of("fine"))
        await audit.finish()

    asyncio.run(run())
    return messages


def test_every_drawn_answer_is_judged_and_the_alarm_speaks_once() -> None:
    judge = CountingJudge()
    messages = observe(judge, 60, HarmRateAlarm(0.05, audit_rate=1.0))
    assert judge.calls == 60
    assert len(messages) == 1 and "more than the tolerated 5.0 %" in messages[0]


def test_a_judge_that_fails_is_counted_as_unscored() -> None:
    judge = CountingJudge(fails=True)
    alarm: Any = HarmRateAlarm(0.05, audit_rate=1.0)
    observe(judge, 5, alarm)
    assert judge.calls == 5
    assert alarm.state().unscored == 5


def test_a_judge_that_hangs_holds_a_bounded_number_of_answers_and_no_shutdown() -> None:
    class HangingJudge(CountingJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            self.calls += 1
            await asyncio.sleep(3600)
            raise AssertionError

    judge, alarm = HangingJudge(), HarmRateAlarm(0.05, audit_rate=1.0)

    async def run() -> None:
        audit = HarmAudit(judge, alarm, print)  # type: ignore[arg-type]
        for _ in range(MAX_PENDING + 50):
            audit.observe(Conversation.of("hello"), Answer.of("fine"))
        await asyncio.sleep(0)
        assert alarm.state().unscored == 50
        await audit.finish(0.05)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert judge.calls == MAX_PENDING
