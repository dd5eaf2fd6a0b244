"""Answers that are judged while they are written: each sentence, at a cost linear in the text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judges.guard_stand_in import GuardStandIn

from truing.core.errors import BudgetExceeded
from truing.core.protocols import JudgeStream, StreamingJudge
from truing.core.types import Conversation, Judgement, Lineage, Response, Sample
from truing.judges.answer_streams import (
    AnswerStream,
    WindowedStream,
)
from truing.judges.guard_catalog import PLAIN_FORMATS
from truing.judges.guards import GuardJudge
from truing.judges.rubric import RubricJudge
from truing.judges.verdicts import make_judgement, make_unscored

CHAT = Conversation.of("a question")


class WordJudge:
    """Harmful is a text with the word FORBIDDEN; cannot read UNREADABLE, breaks on BROKEN."""

    name, question, lineage = "words", "harmful", Lineage(name="words", hash="0" * 16)

    def __init__(self) -> None:
        self.read: list[str] = []

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.read.append(response.text)
        if "BROKEN" in response.text:
            raise RuntimeError("out of memory")
        if "UNREADABLE" in response.text:
            return make_unscored(self, sample, response, "language", "unknown")
        return make_judgement(self, sample, response, "FORBIDDEN" in response.text)


def push_all(stream: JudgeStream, pieces: list[str]) -> list[bool | str | None]:
    """Returns the verdict after each piece (None: no sentence ended; "failed": unscored)."""

    async def run() -> list[bool | str | None]:
        verdicts: list[bool | str | None] = []
        for piece in pieces:
            judgement = await stream.push(piece)
            if judgement is None:
                verdicts.append(None)
            else:
                verdicts.append("failed" if judgement.verdict is None else judgement.verdict)
        return verdicts

    return asyncio.run(run())


def test_a_verdict_at_the_end_of_each_sentence() -> None:
    judge = WordJudge()
    stream = AnswerStream(judge, CHAT)
    pieces = ["It ", "rains. ", "The FORBIDDEN", " word", ". ", "More. ", "And more. "]
    assert push_all(stream, pieces) == [None, False, None, None, True, True, True]
    assert judge.read[:2] == ["It rains. ", "It rains. The FORBIDDEN word. "]
    assert len(judge.read) == 4
    finished = asyncio.run(stream.finish())
    assert finished.verdict is True and judge.read[-1] == "".join(pieces)


@pytest.mark.parametrize("word", ["UNREADABLE", "BROKEN"])
def test_a_stream_that_failed_stays_failed(word: str) -> None:
    judge = WordJudge()
    stream = AnswerStream(judge, CHAT)
    verdicts = push_all(stream, ["Fine. ", f"{word}. ", "Fine. ", "Fine"])
    assert verdicts == [False, "failed", "failed", "failed"]
    for judgement in (asyncio.run(stream.flush()), asyncio.run(stream.finish())):
        assert judgement.verdict is None and judgement.failure is not None
    assert len(judge.read) == 2


def test_a_spent_budget_ends_the_run_and_not_the_answer_alone() -> None:
    class SpentJudge(WordJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            raise BudgetExceeded("the budget of 1 requests is spent")

    stream = AnswerStream(SpentJudge(), CHAT)
    for call in (lambda: stream.push("Fine. "), stream.flush, stream.finish):
        with pytest.raises(BudgetExceeded, match="^the budget of 1 requests is spent$"):
            asyncio.run(call())


def test_flush_reads_within_a_sentence_and_nothing_twice() -> None:
    judge = WordJudge()
    stream = AnswerStream(judge, CHAT)

    async def run() -> list[Judgement]:
        empty = await stream.flush()
        await stream.push("It is FORBID")
        first = await stream.flush()
        again = await stream.flush()
        await stream.push("DEN")
        return [empty, first, again, await stream.flush()]

    empty, first, again, last = asyncio.run(run())
    assert empty.verdict is None and empty.failure is not None and empty.failure.kind == "empty"
    assert (first.verdict, again, last.verdict) == (False, first, True)
    assert judge.read == ["It is FORBID", "It is FORBIDDEN"]


def test_windows_cover_all_and_cost_the_same_each() -> None:
    judge = WordJudge()
    stream = WindowedStream(judge, CHAT, window=200)
    sentences = [f"On day {n} it rains in the garden, as so often. " for n in range(100)]
    text = "".join(sentences)
    assert set(push_all(stream, sentences)) == {False}
    assert max(map(len, judge.read)) <= 200 + len(sentences[-1])
    assert sum(map(len, judge.read)) < 5 * len(text)
    # Every reading begins where the one before has read already.
    position = 0
    for reading in judge.read:
        start = text.find(reading, max(0, position - len(reading)))
        assert 0 <= start <= position
        position = start + len(reading)
    assert position == len(text)
    assert push_all(stream, ["A FORBIDDEN word. "]) == [True]
    note = asyncio.run(stream.flush()).rationale or ""
    assert note.endswith(f"to {len(text) + 18} of the answer")


@given(st.lists(st.text(max_size=30), max_size=12), st.integers(1, 80))
def test_any_pieces_end_with_the_verdict_on_the_whole(pieces: list[str], window: int) -> None:
    text = "".join(pieces)
    for stream in (
        AnswerStream(WordJudge(), CHAT),
        WindowedStream(WordJudge(), CHAT, window=window),
    ):
        push_all(stream, pieces)
        judgement = asyncio.run(stream.finish())
        assert judgement.verdict is ("FORBIDDEN" in text)


def test_guards_and_prompted_judges_can_stream() -> None:
    model = GuardStandIn("safe", "unsafe\nS1", "nonsense")
    guard = GuardJudge("llama-guard-3", PLAIN_FORMATS["llama-guard-3"], model)
    assert isinstance(guard, StreamingJudge)
    assert push_all(guard.start(CHAT), ["One. ", "Two. "]) == [False, True]
    assert push_all(guard.start(CHAT), ["One. ", "Two. "]) == ["failed", "failed"]
    assert [c.messages[-1].content for c in model.asked] == ["One. ", "One. Two. ", "One. "]


def test_the_marks_of_a_prompted_judge_stay_the_same_in_a_stream() -> None:
    reply = "reason: fine\ncategories: none\ngrade: 1\nverdict: no"
    model: Any = GuardStandIn(reply)
    judge = RubricJudge("llm:harm", "harmful", "rubric", model)
    stream = judge.start(CHAT)
    assert push_all(stream, ["One. ", "Two. "]) == [False, False]
    first, second = (c.prompt for c in model.asked)
    mark = first[2:14]
    assert first.startswith(f"<<{mark}\n") and second.startswith(f"<<{mark}\n")
    assert second.startswith(first[: first.index("One. ") + 5])
    assert asyncio.run(stream.finish()).verdict is False
    # The verdict on the whole is asked for as without a stream.
    assert model.asked[2].prompt[2:14] != mark
    assert judge.start(CHAT)._reader._stream_mark != mark  # type: ignore[attr-defined]
