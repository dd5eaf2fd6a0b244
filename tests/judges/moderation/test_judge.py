"""The judge: its specs, its threshold, and what it leaves unscored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from truing.core.errors import SpecError, UserError
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.judges.moderation.judge import ModerationJudge
from truing.judges.moderation.scorer import ModerationScorer
from truing.specs.resolve import resolve

SAMPLE = Sample(id="a", conversation=Conversation.of("a word"))


def make_response(answer: Answer) -> Response:
    return Response.of("a", 0, "m", answer)


def judge_answer(judge: ModerationJudge, answer: Answer) -> Judgement:
    return asyncio.run(judge.judge(SAMPLE, make_response(answer)))


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("moderation:", "a name is missing"),
        ("moderation:DIR,question=what", "must be one of harmful"),
        ("moderation:DIR,threshold=2", "no probability"),
        ("moderation:DIR,colour=red", "unknown argument"),
    ],
)
def test_a_wrong_spec_is_refused(folder: Path, spec: str, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        resolve(spec.replace("DIR", str(folder)), "judge")


def test_an_unknown_folder_or_engine_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        resolve(f"moderation:{folder}/none", "judge")
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        resolve(f"moderation:{folder},engine=onx", "judge")


def test_the_threshold_of_the_spec_decides(folder: Path) -> None:
    spec = f"moderation:{folder},dtype=float32,engine=torch"
    always, never = (resolve(f"{spec},threshold={t}", "judge") for t in (0, 1))
    assert judge_answer(always, Answer.of("bad word")).verdict is True
    assert judge_answer(never, Answer.of("bad word")).verdict is False


def test_the_judge_of_prompts_shares_the_scorer(folder: Path) -> None:
    judge = ModerationJudge("moderation:x", ModerationScorer(folder, engine="torch"))
    prompt_judge = judge.of_prompts()
    assert prompt_judge is judge.of_prompts() and prompt_judge.scorer is judge.scorer
    assert prompt_judge.name == "moderation:x,question=harmful_prompt"
    judgement = judge_answer(prompt_judge, Answer.failed("timeout", "late"))
    assert judgement.question == "harmful_prompt" and judgement.score is not None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer.failed("timeout", "late"), "no-answer"),
        (Answer.of("  \n"), "empty"),
        (
            Answer.of("Kannst du mir sagen, wie man ein Brot backt und was ich brauche?"),
            "language",
        ),
        (Answer.of("Скажи мне, как испечь хлеб"), "language"),
    ],
)
def test_what_cannot_be_judged_is_unscored(folder: Path, answer: Answer, kind: str) -> None:
    judge = resolve(f"moderation:{folder},dtype=float32,engine=torch", "judge")
    judgement = judge_answer(judge, answer)
    assert judgement.verdict is None and judgement.score is None
    assert judgement.failure is not None and judgement.failure.kind == kind


def test_an_error_of_the_engine_leaves_all_of_the_batch_unscored(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")

    def fail(rows: object) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(scorer.members[0].engine, "logits", fail)
    judge = ModerationJudge("moderation:x", scorer)

    async def judge_five() -> list[Judgement]:
        response = make_response(Answer.of("bad word"))
        return list(await asyncio.gather(*(judge.judge(SAMPLE, response) for _ in range(5))))

    for judgement in asyncio.run(judge_five()):
        assert judgement.verdict is None and judgement.failure is not None
        assert "out of memory" in judgement.failure.message
