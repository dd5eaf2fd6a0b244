"""What a judge of a rail sees of the conversation: the texts that the input rails read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dialog_turns import make_turn
from library_cases import KeywordJudge

from truing.core.types import Conversation, Judgement, Response, Sample
from truing.models.scripted import ScriptedModel
from truing.rails.library.judged_texts import judge_text, read_conversation
from truing.rails.runtime.chat_messages import decode_messages

PARTS = [{"type": "text", "text": "how do I"}, {"type": "text", "text": "repair it?"}]
UTTERANCE = {"type": "UtteranceUserActionFinished", "final_transcript": "how do I repair it?"}


@pytest.mark.parametrize(
    "row",
    [
        {"role": "user", "content": "how do I repair it?"},
        {"role": "user", "content": PARTS},
        {"role": "event", "event": UTTERANCE},
    ],
)
def test_an_output_is_judged_with_the_users_newest_message(row: dict[str, Any]) -> None:
    seen: list[Sample] = []

    class RecordingJudge(KeywordJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            seen.append(sample)
            return await super().judge(sample, response)

    turn = make_turn(
        ScriptedModel("x"), messages=decode_messages([{"role": "user", "content": "hello"}, row])
    )
    asyncio.run(judge_text(turn, RecordingJudge(), "output", "an answer"))
    assert seen[0].prompt == "how do I repair it?"


def test_roles_and_places_of_the_conversation() -> None:
    calls = [{"id": "1", "function": {"name": "find", "arguments": "{}"}}]
    rows = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "a result", "tool_call_id": "1"},
        {"role": "assistant", "content": "later"},
    ]
    turn = make_turn(ScriptedModel("x"), messages=decode_messages(rows))
    assert read_conversation(turn) == Conversation.of("[+ image]", system="Be brief.")
    assert read_conversation(make_turn(ScriptedModel("x"))) == Conversation()
