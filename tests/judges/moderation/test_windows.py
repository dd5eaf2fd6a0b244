"""All of a text is read: the worst window counts, wherever it lies, or there is no verdict."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.judges.moderation.test_inputs import make_encoder, make_words

from truing.core.types import Answer, Conversation, Judgement, Message, Response, Sample, ToolCall
from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.judges.moderation.judge import ModerationJudge
from truing.judges.moderation.scorer import ModerationScorer
from truing.judges.moderation.windows import MAX_CHARACTERS, InputTooLong, WindowEncoder
from truing.judges.token_windows import MAX_WINDOWS

BAD = 5  # the id of the word "bad" in the tiny classifier


@pytest.fixture
def judge(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModerationJudge:
    """A judge whose scorer flags a row that holds the word "bad", and no other."""
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")
    outputs = 3 + len(scorer.settings.categories)

    def find_bad(rows: Sequence[EncodedInput]) -> np.ndarray:
        return np.array([[8.0 if BAD in row.ids else -8.0] * outputs for row in rows])

    monkeypatch.setattr(scorer.members[0], "logits", find_bad)
    return ModerationJudge("moderation:scripted", scorer)


def judge_answer(judge: ModerationJudge, conversation: Conversation, answer: Message) -> Judgement:
    sample = Sample(id="a", conversation=conversation)
    response = Response.of("a", 0, "m", Answer(message=answer))
    return asyncio.run(judge.judge(sample, response))


def judge_prompt(judge: ModerationJudge, *messages: Message) -> Judgement:
    prompt_judge = judge.of_prompts()
    return judge_answer(prompt_judge, Conversation(messages), Message("assistant", ""))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 12_000), st.floats(0, 1), st.sampled_from(["answer", "prompt", "dialogue"]))
def test_a_bad_word_is_found_wherever_it_lies(
    judge: ModerationJudge, words: int, place: float, side: str
) -> None:
    position = round(place * (words - 1))
    text = " ".join("bad" if k == position else "good" for k in range(words))
    if side == "answer":
        judgement = judge_answer(judge, Conversation.of("word"), Message("assistant", text))
    elif side == "prompt":
        judgement = judge_prompt(judge, Message("user", text))
    else:
        later = [Message("user", "good word") for _ in range(12)]
        judgement = judge_prompt(judge, Message("user", text), *later)
    assert judgement.verdict is True
    if judgement.rationale is not None:
        start, end = map(int, re.findall(r"characters (\d+) to (\d+)", judgement.rationale)[0])
        assert start <= position * 5 < end


@pytest.mark.parametrize("count", [1, 90, 3_000])
def test_a_text_without_it_passes(judge: ModerationJudge, count: int) -> None:
    text = "good " * count
    assert judge_prompt(judge, Message("user", text)).verdict is False
    answer = Message("assistant", text)
    assert judge_answer(judge, Conversation.of("word"), answer).verdict is False


@pytest.mark.parametrize(
    "text", ["a " * 100_000, "good word " * 9_000, "\x00\x01" * 60_000, "ab" * MAX_CHARACTERS]
)
def test_a_text_over_the_bound_is_unscored(judge: ModerationJudge, text: str) -> None:
    for judgement in (
        judge_prompt(judge, Message("user", text)),
        judge_answer(judge, Conversation(), Message("assistant", text)),
        judge_answer(judge, Conversation.of(text), Message("assistant", "good")),
    ):
        assert judgement.verdict is None and judgement.failure is not None
        assert judgement.failure.kind == "too-long"


def test_a_failed_text_leaves_the_others_of_its_batch_scored(judge: ModerationJudge) -> None:
    texts = ["good", "a " * 100_000, "bad"]

    async def judge_all() -> list[Judgement]:
        sample = Sample(id="a", conversation=Conversation())
        answers = [Response.of("a", 0, "m", Answer.of(text)) for text in texts]
        return list(await asyncio.gather(*(judge.judge(sample, a) for a in answers)))

    assert [j.verdict for j in asyncio.run(judge_all())] == [False, None, True]


@pytest.mark.parametrize(
    "arguments", ['{"message": "bad"}', '{"message": [{"b\\u0061d": 1}]}', "bad {"]
)
def test_arguments_of_tool_calls_are_read(judge: ModerationJudge, arguments: str) -> None:
    call = Message("assistant", "", (ToolCall("1", "send", arguments),))
    assert judge_answer(judge, Conversation.of("word"), call).verdict is True
    assert judge_prompt(judge, Message("user", "good"), call).verdict is True


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_a_prompt_is_every_message_whatever_its_role(judge: ModerationJudge, role: str) -> None:
    bad, good = Message(role, "bad"), Message("user", "good")  # type: ignore[arg-type]
    assert judge_prompt(judge, bad, good).verdict is True
    assert judge_prompt(judge, good, bad).verdict is True


def test_the_system_message_is_no_part_of_an_answer(judge: ModerationJudge) -> None:
    conversation = Conversation.of("good", system="bad")
    answer = Message("assistant", "word")
    assert judge_answer(judge, conversation, answer).verdict is False


def test_an_answer_refuses_where_it_begins_unless_it_does_harm_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ModerationScorer(folder, engine="torch", dtype="float32")

    def script(rows: Sequence[EncodedInput]) -> np.ndarray:
        # "a" refuses, "bad" does harm.
        columns = [[8.0 if BAD in r.ids else -8.0, 0, 8.0 if 4 in r.ids else -8.0] for r in rows]
        return np.array([[*column, 0.0, 0.0] for column in columns])

    monkeypatch.setattr(scorer.members[0], "logits", script)
    judge = ModerationJudge("moderation:scripted", scorer, question="refused")
    conversation = Conversation.of("word")
    refusal = "a " + "good " * 400
    assert judge_answer(judge, conversation, Message("assistant", refusal)).verdict is True
    answer = Message("assistant", refusal + "bad")
    assert judge_answer(judge, conversation, answer).verdict is False


def test_what_fits_is_the_row_of_training() -> None:
    encoder = make_encoder(prompt=20)
    for short in (
        ModerationInput(("w0 w1", "w2"), "w3 w4"),
        ModerationInput(("w0",)),
        ModerationInput((), ""),
    ):
        rows = [row for row in WindowEncoder([encoder]).encode(short) if not row.as_prompt]
        assert [row.rows[0] for row in rows] == encoder.encode([short])
        assert rows[0].position is None


def test_a_long_answer_is_beside_the_prompt_and_a_long_prompt_beside_the_answer() -> None:
    encoder = make_encoder()
    item = ModerationInput((make_words(0, 20),), make_words(20, 40))
    rows = WindowEncoder([encoder]).encode(item)
    assert {len(row.rows[0].ids) for row in rows} == {8 + 8 + 3}
    sides = [row.position.side for row in rows if row.position is not None]
    assert sides == sorted(sides) and set(sides) == {"answer", "prompt"}
    for first, last in ((3, 23), (23, 43)):
        assert set(range(first, last)) <= {token for row in rows for token in row.rows[0].ids}


def test_members_with_other_windows_read_the_same_spans() -> None:
    encoders = [make_encoder(8, 8), make_encoder(12, 20)]
    item = ModerationInput((), make_words(0, 40))
    rows = [r for r in WindowEncoder(encoders).encode(item) if not r.as_prompt]
    assert len(rows) > 1 and all(row.rows[0].ids == row.rows[1].ids for row in rows)


def test_the_bounds() -> None:
    encoder = WindowEncoder([make_encoder()])
    words = MAX_WINDOWS * 6
    with pytest.raises(InputTooLong, match=f"more than {MAX_WINDOWS} windows"):
        encoder.encode(ModerationInput((" ".join(["w0"] * (words + 40)),)))
    assert len(encoder.encode(ModerationInput((" ".join(["w0"] * (words - 40)),)))) <= MAX_WINDOWS
    with pytest.raises(InputTooLong, match="at most 80,000"):
        encoder.encode(ModerationInput(("x" * (MAX_CHARACTERS + 1),)))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("onq tbbq jbeq bs gur jbeyq, naq gung vf nyy gung gurer vf.", True),  # rot13 of the next
        ("bad good word of the world, and that is all that there is.", True),
        ("tbbq jbeq bs gur jbeyq, naq gung vf nyy gung gurer vf.", None),
        ("good word of the world, and that is all that there is.", False),
        ("Niambie jinsi ya kuoka mkate nyumbani", None),
        ("bad word. Niambie jinsi ya kuoka mkate nyumbani. good word", None),
        ("\x01\x02\x03\x04", None),
        ("".join(c + "\u0336" for c in "bad word of the world"), True),
    ],
)
def test_a_text_that_is_not_read_whole_has_no_verdict(
    judge: ModerationJudge, text: str, verdict: bool | None
) -> None:
    judgement = judge_prompt(judge, Message("user", text))
    assert judgement.verdict is verdict
    assert (judgement.failure is None) == (verdict is not None)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=300))
def test_any_text_with_a_bad_word_at_its_end_is_flagged_or_unscored(
    judge: ModerationJudge, text: str
) -> None:
    judgement = judge_prompt(judge, Message("user", f"{text} bad"))
    assert judgement.verdict is not False
