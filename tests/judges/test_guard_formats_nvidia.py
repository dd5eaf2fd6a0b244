"""NVIDIA's guards: content safety (v2, v3), reasoning, and topic control."""

from __future__ import annotations

import asyncio

import pytest
from tests.judges.guard_stand_in import GuardStandIn, ask_guard

from truing.core.types import Answer, Conversation, Message, Response, Sample
from truing.judges.guard_formats import GuardReading
from truing.judges.guard_formats_nvidia import (
    CONTENT_SAFETY,
    TOPIC_ENDING,
    build_content_safety_prompt,
    make_reasoning_format,
    make_topic_format,
    parse_harm_lines,
    parse_safety_json,
)
from truing.judges.guards import GuardJudge

BOTH = '{"User Safety": "unsafe", "Response Safety": "%s", "Safety Categories": "%s"}'


def test_content_safety_is_asked_with_the_published_task() -> None:
    (asked,) = build_content_safety_prompt(Conversation.of("q {response}"), "r {prompt}")
    text = asked.prompt
    assert text.startswith("Task: Check if there is unsafe content in the user or agent messages")
    assert "\nS1: Violence.\n" in text and "\nS23: Immoral/Unethical.\n<END UNSAFE" in text
    assert (
        "<BEGIN CONVERSATION>\n\nuser: q {response}\n\nresponse: agent: r {prompt}\n\n"
        "<END CONVERSATION>\n\nProvide your safety assessment" in text
    )
    assert text.endswith("in your response.\nOutput JSON:")
    (asked,) = build_content_safety_prompt(Conversation.of("q"), None)
    assert "user: q\n\n<END CONVERSATION>" in asked.prompt


def test_content_safety_rates_both_sides() -> None:
    reply = BOTH % ("safe", "Violence, Threat")
    judgement = ask_guard(CONTENT_SAFETY, GuardStandIn(reply))
    # The categories are those of the user's message, not of the safe answer.
    assert judgement.verdict is False and not any(judgement.harms.values())
    judgement = ask_guard(CONTENT_SAFETY, GuardStandIn(reply), "harmful_prompt")
    assert judgement.verdict is True and judgement.rationale == "Violence, Threat"
    judgement = ask_guard(CONTENT_SAFETY, GuardStandIn(BOTH % ("unsafe", "sexual (minor)")))
    assert judgement.verdict is True and judgement.harms["child_abuse"] == 1.0
    reply = '{"User Safety": "safe"}'
    assert ask_guard(CONTENT_SAFETY, GuardStandIn(reply), "harmful_prompt").verdict is False
    assert ask_guard(CONTENT_SAFETY, GuardStandIn(reply)).verdict is None


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "safe",
        "{}",
        "[]",
        '{"User Safety": "safe"} but unsafe',
        '{"User Safety": "safe", "User Safety": "unsafe"}',
        '{"User Safety": "safe", "Safety Categories": "Violence"}',
        '{"User Safety": "unsafe", "Safety Categories": "Rudeness"}',
        '{"User Safety": "probably safe"}',
        '{"User Safety": true}',
        '{"User Safety": "safe", "note": "x"}',
        "[" * 5000,
    ],
)
def test_other_content_safety_replies_are_unscored(reply: str) -> None:
    assert isinstance(parse_safety_json(reply), str)
    assert ask_guard(CONTENT_SAFETY, GuardStandIn(reply), "harmful_prompt").verdict is None


def test_reasoning_modes_differ_in_the_last_word_and_the_bound() -> None:
    plain, thinking = (make_reasoning_format(thinks=thinks) for thinks in (False, True))
    prompts = [f.ask(Conversation.of("q"), "r")[0].prompt for f in (plain, thinking)]
    assert prompts[0].endswith(" as None. /no_think") and prompts[1].endswith(" as None. /think")
    assert "S13: Needs Caution.\nS14: Manipulation." in prompts[0] and "S22: " in prompts[0]
    assert "Human user:\nq\n\nAI assistant:\nr\n" in prompts[0]
    assert "AI assistant:\nNone\n" in plain.ask(Conversation.of("q"), None)[0].prompt
    assert plain.max_tokens == 400 < thinking.max_tokens


def test_reasoning_replies() -> None:
    thoughtful = "<think>\nThe user says\nPrompt harm: harmful\n</think>\n\n"
    reply = "Prompt harm: unharmful\nResponse Harm: harmful"
    for text in (reply, f'"{reply}"', thoughtful + reply):
        assert parse_harm_lines(text) == GuardReading({"harmful_prompt": False, "harmful": True})
    alone = parse_harm_lines("Prompt harm: harmful\nResponse harm: None")
    assert alone == GuardReading({"harmful_prompt": True})
    for text in (
        "",
        "unharmful",
        "Prompt harm: unharmful",
        reply + "\nPrompt harm: harmful",
        "<think>" + reply,
        "<think>x</think>" + reply + "</think>",
        thoughtful + thoughtful + reply,
    ):
        assert isinstance(parse_harm_lines(text), str), text


def test_thoughts_that_were_cut_are_unscored() -> None:
    judgement = ask_guard(
        make_reasoning_format(thinks=True), GuardStandIn("<think>hm", finish_reason="length")
    )
    assert judgement.verdict is None and judgement.failure is not None


@pytest.mark.parametrize("turns", [(), (Message("user", " "),)])
def test_a_conversation_that_the_topic_prompt_does_not_show_is_unscored(
    turns: tuple[Message, ...],
) -> None:
    model = GuardStandIn("on-topic")
    judge = GuardJudge("topic", make_topic_format("Bicycles."), model)
    texts = (Message("system", "Talk about trains."), Message("tool", "a timetable"), *turns)
    sample = Sample(id="a", conversation=Conversation(texts))
    judgement = asyncio.run(judge.judge(sample, Response.of("a", 0, "m", Answer.of("x"))))
    assert judgement.verdict is None and judgement.failure is not None
    assert model.asked == []


def test_topic_control_gets_the_rules_and_the_dialogue() -> None:
    topic = make_topic_format("Talk about bicycles only.")
    dialogue = Conversation.of("hello", system="other").then(Message("assistant", "hi"))
    (asked,) = topic.ask(dialogue.then(Message("user", "and trains?")), None)
    assert [m.role for m in asked.messages] == ["system", "user", "assistant", "user"]
    assert asked.system == f"Talk about bicycles only.\n\n{TOPIC_ENDING}"
    whole = make_topic_format(f"Bicycles. {TOPIC_ENDING}\n").ask(Conversation.of("x"), None)
    assert whole[0].system == f"Bicycles. {TOPIC_ENDING}"
    verdicts = [
        ask_guard(topic, GuardStandIn(reply)).verdict
        for reply in ("off-topic", ' "On-topic".', "on-topic, I think", "", "not off-topic")
    ]
    assert verdicts == [True, False, None, None, None]
