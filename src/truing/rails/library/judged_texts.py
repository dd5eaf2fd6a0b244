"""Lets a judge judge the text that a rail checks: an input as a prompt, an output as an answer."""

from __future__ import annotations

from typing import Literal

from truing.core.protocols import Judge, StreamingJudge
from truing.core.types import Answer, Conversation, Judgement, Message, Response, Sample
from truing.rails.runtime.answer_readings import current_readings
from truing.rails.runtime.turn_context import TurnContext

EMPTY_CONVERSATION = Conversation()
_JUDGED_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}


async def judge_text(turn: TurnContext, judge: Judge, source: str, text: str) -> Judgement:
    """Judges an output as the answer to the conversation, and an input as a prompt.

    `source` is "input" or "output". A judge without `of_prompts` judges an input as an answer to an
    empty conversation. While an answer is streamed, a `StreamingJudge` judges only its new text.
    """
    response = Response.of("rail", 0, "rail", Answer.of(text))
    if source != "input":
        conversation = read_conversation(turn)
        readings = current_readings()
        if readings is not None and isinstance(judge, StreamingJudge):
            return await readings.judge(judge, conversation, text)
        return await judge.judge(Sample(conversation=conversation, id="rail"), response)
    of_prompts = getattr(judge, "of_prompts", None)
    if of_prompts is None:
        return await judge.judge(Sample(conversation=EMPTY_CONVERSATION, id="rail"), response)
    sample = Sample(conversation=Conversation.of(text), id="rail")
    judgement: Judgement = await of_prompts().judge(sample, response)
    return judgement


def read_conversation(turn: TurnContext) -> Conversation:
    """Returns the conversation up to the user's newest message, as the input rails read it."""
    messages: list[Message] = []
    for message in turn.messages:
        role = "user" if message.is_read_by_flows else _JUDGED_ROLES.get(message.role)
        # An assistant's message with tool calls alone has no text.
        if role is not None and (message.text or role == "user"):
            messages.append(Message(role, message.text))
    while messages and messages[-1].role != "user":
        messages.pop()
    return Conversation(tuple(messages))
