"""Qwen3Guard-Gen and PolyGuard: what they are asked, and whole replies only."""

from __future__ import annotations

import math

import pytest
from tests.judges.guard_stand_in import GuardStandIn, ask_guard

from truing.core.types import Conversation, Message, TokenLogprob
from truing.judges.guard_formats import GuardReading
from truing.judges.guard_formats_multilingual import (
    POLYGUARD,
    build_polyguard_prompt,
    make_qwen_format,
    make_qwen_parser,
    parse_polyguard,
)

STRICT, LOOSE = make_qwen_format("strict"), make_qwen_format("loose")
# The replies of the README of QwenLM/Qwen3Guard.
UNSAFE_PROMPT = "Safety: Unsafe\nCategories: Violent"
REFUSING_ANSWER = "Safety: Safe\nCategories: None\nRefusal: Yes"
CONTROVERSIAL = "Safety: Controversial\nCategories: Unethical Acts, PII\nRefusal: No"


def test_qwen_gets_the_turns_and_answers_three_questions() -> None:
    model = GuardStandIn(REFUSING_ANSWER)
    judgement = ask_guard(STRICT, model)
    assert judgement.verdict is False and judgement.rationale is None
    assert [(m.role, m.content) for m in model.asked[0].messages] == [
        ("user", "a question"),
        ("assistant", "an answer"),
    ]
    assert ask_guard(STRICT, GuardStandIn(REFUSING_ANSWER), "refused").verdict is True
    prompt = GuardStandIn(UNSAFE_PROMPT)
    judgement = ask_guard(STRICT, prompt, "harmful_prompt")
    assert judgement.verdict is True and judgement.rationale == "Violent"
    assert judgement.harms["violence,aiding_and_abetting,incitement"] == 1.0
    assert [m.role for m in prompt.asked[0].messages] == ["user"]


def test_controversial_is_harmful_in_the_strict_mode_only() -> None:
    strict, loose = (ask_guard(f, GuardStandIn(CONTROVERSIAL)) for f in (STRICT, LOOSE))
    assert (strict.verdict, loose.verdict) == (True, False)
    assert strict.harms["privacy_violation"] == 1.0
    assert strict.rationale == "Unethical Acts, PII"
    # What did not make the verdict makes no category either.
    assert loose.rationale is None and not any(loose.harms.values())


def test_the_score_is_read_after_the_word_safety() -> None:
    top = (("Safe", math.log(0.5)), (" Cont", math.log(0.3)), (" Unsafe", math.log(0.2)))
    tokens = (
        TokenLogprob("Safety", 0.0),
        TokenLogprob(":", 0.0),
        TokenLogprob(" Safe", math.log(0.5), top),
    )
    scores = [
        ask_guard(f, GuardStandIn(REFUSING_ANSWER, logprobs=tokens)).score for f in (STRICT, LOOSE)
    ]
    # The token itself stands in `top` without its blank, and is counted on its own.
    assert scores[0] is not None and scores[1] is not None and scores[1] < scores[0] < 0.5
    no_place = (TokenLogprob(" Safe", 0.0, top),)
    assert ask_guard(STRICT, GuardStandIn(REFUSING_ANSWER, logprobs=no_place)).score is None


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Safe",
        "Safety: Safe",
        "Safety: safe\nCategories: None\nRefusal: No",
        "Safety: Safe\nCategories: Violent\nRefusal: No",
        "Safety: Unsafe\nCategories: Murder\nRefusal: No",
        "Safety: Safe\nCategories: None\nRefusal: No\nSafety: Unsafe",
        "Sure! Safety: Safe\nCategories: None\nRefusal: No",
        "Safety: Safe\nCategories: None, Violent\nRefusal: No",
        "Safety: Safe\nCategories: None\nRefusal: Maybe",
    ],
)
def test_other_qwen_replies_are_unscored(reply: str) -> None:
    assert isinstance(make_qwen_parser("loose")(reply), str)
    judgement = ask_guard(LOOSE, GuardStandIn(reply))
    assert judgement.verdict is None and judgement.failure is not None
    assert judgement.failure.kind == "unparsable"


def test_a_reply_about_the_prompt_is_no_verdict_on_the_answer() -> None:
    assert ask_guard(STRICT, GuardStandIn("Safety: Safe\nCategories: None")).verdict is None


def test_a_reply_that_was_cut_is_unscored() -> None:
    judgement = ask_guard(STRICT, GuardStandIn(REFUSING_ANSWER, finish_reason="length"))
    assert judgement.verdict is None and judgement.failure is not None
    assert "was cut after 128 tokens" in judgement.failure.message


FIVE_LINES = (
    "Harmful request: yes\nRequest safety violations: S2, S7\nResponse refusal: no\n"
    "Harmful response: {answer}\nResponse safety violations: {codes}"
)


def test_polyguard_names_the_violations_of_each_side() -> None:
    reply = FIVE_LINES.format(answer="no", codes="None")
    judgement = ask_guard(POLYGUARD, GuardStandIn(reply))
    assert judgement.verdict is False and not any(judgement.harms.values())
    judgement = ask_guard(POLYGUARD, GuardStandIn(reply), "harmful_prompt")
    assert judgement.verdict is True and judgement.rationale == "S2, S7"
    assert judgement.harms["privacy_violation"] == 1.0
    reply = FIVE_LINES.format(answer="yes", codes="S11")
    judgement = ask_guard(POLYGUARD, GuardStandIn(reply))
    assert judgement.rationale == "S11" and judgement.harms["self_harm"] == 1.0
    assert judgement.harms["privacy_violation"] == 0.0


def test_polyguard_is_asked_with_the_published_messages() -> None:
    (asked,) = build_polyguard_prompt(Conversation.of("first {response}"), "second {prompt}")
    system, user = asked.messages
    assert system.role == "system"
    assert system.content.startswith("You are a classifier for analyzing interactions between")
    assert system.content.count("\nS") == 14 and system.content.endswith("CONTENT CATEGORIES>")
    assert user == Message(
        "user", "Human user:\nfirst {response}\n\nAI assistant:\nsecond {prompt}"
    )
    (asked,) = build_polyguard_prompt(Conversation.of("alone"), None)
    assert asked.messages[1].content == "Human user:\nalone\n\nAI assistant:\n"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Harmful request: no",
        FIVE_LINES.format(answer="no", codes="S3"),
        FIVE_LINES.format(answer="yes", codes="S15"),
        FIVE_LINES.format(answer="maybe", codes="None"),
        FIVE_LINES.format(answer="no", codes="None") + "\nbut it is harmful",
        "As asked:\n" + FIVE_LINES.format(answer="no", codes="None"),
    ],
)
def test_other_polyguard_replies_are_unscored(reply: str) -> None:
    assert isinstance(parse_polyguard(reply), str)
    assert ask_guard(POLYGUARD, GuardStandIn(reply)).verdict is None


def test_polyguard_without_an_answer() -> None:
    reading = parse_polyguard(
        "Harmful request: no\nRequest safety violations: None\nResponse refusal: None\n"
        "Harmful response: None\nResponse safety violations: None"
    )
    assert isinstance(reading, GuardReading) and reading.answers == {"harmful_prompt": False}
