"""One judge of a run: stored judgements, failures, and what is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.model_stand_ins import EvenJudge

from truing.core.errors import BudgetExceeded
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Message,
    Response,
    Sample,
)
from truing.evaluation.judge_stage import JudgeStage
from truing.runs.folder import Manifest, RunWriter
from truing.runs.index import LineSpans

SAMPLE = Sample(id="s", conversation=Conversation.of("prompt"))
RESPONSES = [Response.of("s", index, "m", Answer.of("x" * index)) for index in range(3)]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[RunWriter]:
    run_writer = RunWriter(tmp_path / "run", Manifest())
    yield run_writer
    run_writer.close()


def make_stage(writer: RunWriter, judge: EvenJudge) -> JudgeStage:
    return JudgeStage(judge, writer, lambda file: LineSpans(3))


def judge_all(stage: JudgeStage, responses: list[Response] = RESPONSES) -> list[bool | None]:
    keys = [response.index for response in responses]
    return asyncio.run(stage.judge_responses(keys, SAMPLE, responses, lambda: False))


def read_judgements(writer: RunWriter, stage: JudgeStage) -> list[Judgement]:
    lines = (writer.path / stage.file).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Judgement) for line in lines]


def test_each_response_is_judged_once(writer: RunWriter) -> None:
    judge = EvenJudge()
    stage = make_stage(writer, judge)
    assert judge_all(stage, RESPONSES[:1]) == [True]
    assert judge_all(stage) == [False, True]
    assert judge_all(stage) == []
    assert judge.calls == 3
    assert [j.index for j in read_judgements(writer, stage)] == [0, 1, 2]
    assert stage.spans.count == 3


def test_failed_response_is_unscored_without_a_call(writer: RunWriter) -> None:
    judge = EvenJudge()
    stage = make_stage(writer, judge)
    failure = Failure("model", "timeout", "late")
    failed = Response(sample_id="s", message=Message("assistant"), failure=failure)
    assert judge_all(stage, [failed]) == [None]
    assert judge.calls == 0
    assert read_judgements(writer, stage)[0].failure == failure


def test_judgement_of_another_response_gets_the_right_ids(writer: RunWriter) -> None:
    class ConfusedJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            return replace(await super().judge(sample, response), sample_id="other", index=7)

    stage = make_stage(writer, ConfusedJudge())
    judge_all(stage)
    stored = read_judgements(writer, stage)
    assert [(j.sample_id, j.index) for j in stored] == [("s", 0), ("s", 1), ("s", 2)]


def test_budget_error_stores_nothing_of_the_sample(writer: RunWriter) -> None:
    class BudgetJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            if response.index == 2:
                raise BudgetExceeded("spent")
            return await super().judge(sample, response)

    stage = make_stage(writer, BudgetJudge())
    with pytest.raises(BudgetExceeded):
        judge_all(stage)
    assert read_judgements(writer, stage) == []
    assert stage.spans.count == 0


def test_stopped_run_judges_nothing_more(writer: RunWriter) -> None:
    judge = EvenJudge()
    stage = make_stage(writer, judge)
    verdicts = asyncio.run(
        stage.judge_responses([0, 1, 2], SAMPLE, RESPONSES, lambda: judge.calls == 2)
    )
    assert (verdicts, judge.calls) == ([True, False], 2)
