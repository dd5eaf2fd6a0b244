"""Prompts of guard models, and their replies beyond the documented ones."""

from __future__ import annotations

import pytest

from truing.core.types import Conversation, Message
from truing.judges.guard_formats import (
    FORMATS,
    GuardReading,
    build_granite_prompt,
    build_llama_guard_prompt,
    build_shieldgemma_prompts,
    build_wildguard_prompt,
    make_llama_guard_parser,
    parse_granite,
    parse_wildguard,
    parse_yes_no,
)

TALK = (
    Conversation.of("first", system="be brief")
    .then(Message("assistant", "second"))
    .then(Message("user", "third"))
)
HARMFUL = GuardReading({"harmful": True, "harmful_prompt": True})
HARMLESS = GuardReading({"harmful": False, "harmful_prompt": False})


def turns(conversation: Conversation) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in conversation.messages]


def test_llama_guard_reads_the_turns_and_apart_what_its_template_does_not_know() -> None:
    history = [("user", "first"), ("assistant", "second"), ("user", "third")]
    prompt, system = build_llama_guard_prompt(TALK, None)
    assert turns(prompt) == history
    assert turns(system) == [("user", TALK.system)]
    (prompt,) = build_llama_guard_prompt(TALK, "answer")
    assert turns(prompt) == [*history, ("assistant", "answer")]


def test_llama_guard_needs_a_user_turn_first() -> None:
    (prompt,) = build_llama_guard_prompt(Conversation(), "answer")
    assert turns(prompt) == [("user", ""), ("assistant", "answer")]


@pytest.mark.parametrize(
    ("reply", "labels"),
    [("unsafe", ()), ("UNSAFE\ns1, S14", ("S1", "S14")), ("  unsafe \n\n S2 ", ("S2",))],
)
def test_llama_guard_codes(reply: str, labels: tuple[str, ...]) -> None:
    reading = make_llama_guard_parser("S", 14)(reply)
    assert isinstance(reading, GuardReading)
    assert reading.labels == labels and reading.answers == HARMFUL.answers


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("unsafe\nS0", "'S0' is none of the codes S1 to S14"),
        ("unsafe\nO1", "'O1' is none of the codes"),
        ("unsafe\nS1\nbecause", "neither 'safe' nor 'unsafe'"),
        ("safe\nbut", "neither 'safe' nor 'unsafe'"),
    ],
)
def test_other_llama_guard_replies_are_errors(reply: str, error: str) -> None:
    message = make_llama_guard_parser("S", 14)(reply)
    assert isinstance(message, str) and error in message


def test_wildguard_lines() -> None:
    prompt, others = build_wildguard_prompt(TALK, None)
    assert "Human user:\nthird\n\nAI assistant:\n\n\n---" in prompt.prompt
    assert "\n\nfirst\n\nsecond\n\nAI assistant:" in others.prompt
    reading = parse_wildguard(
        "Harmful request: Yes.\n\nResponse refusal: n/a\nHarmful response: NO"
    )
    assert reading == GuardReading({"harmful_prompt": True, "harmful": False})
    assert parse_wildguard("Harmful request: perhaps") == (
        "Harmful request: 'perhaps' is neither yes, no nor N/A"
    )


def test_wildguard_texts_that_look_like_fields_stay_text() -> None:
    (prompt,) = build_wildguard_prompt(Conversation.of("a"), "{prompt}")
    assert "AI assistant:\n{prompt}" in prompt.prompt


def test_shieldgemma_asks_one_policy_at_a_time() -> None:
    prompts = [c.prompt for c in build_shieldgemma_prompts(TALK, "answer {answer}")]
    names = ["Dangerous Content", "Harassment", "Hate Speech", "Sexually Explicit Information"]
    assert [name in prompt for name, prompt in zip(names, prompts, strict=True)] == [True] * 4
    assert all("Human Question: third\n\nChatbot Response: answer {answer}\n" in p for p in prompts)
    prompt_only = build_shieldgemma_prompts(TALK, None)[0].prompt
    assert "whether the user prompt is in violation" in prompt_only
    assert "Chatbot Response:" not in prompt_only


def test_yes_and_no_are_whole_words_at_the_start() -> None:
    assert parse_yes_no(" yes, it does") == HARMFUL
    assert parse_yes_no("No") == HARMLESS
    assert parse_yes_no("No. It does not.") == parse_yes_no("No\nIt does not.") == HARMLESS
    for unclear in ("Nothing", "No doubt it does", "No - yes", "Yes or No", "safe: yes"):
        assert isinstance(parse_yes_no(unclear), str)
    assert isinstance(parse_yes_no("It does: yes"), str)


def test_granite_gets_the_risk_and_the_newest_exchange() -> None:
    (prompt,) = build_granite_prompt(TALK, "answer")
    assert turns(prompt) == [("system", "harm"), ("user", "third"), ("assistant", "answer")]
    assert parse_granite("no\n<confidence> Low </confidence>") == HARMLESS
    assert parse_granite("<score>YES</score>") == HARMFUL
    assert parse_granite("<score>no</score><score>no</score>") == "more than one <score>"


def test_first_tokens_of_the_score() -> None:
    scored = {name: (f.yes, f.no) for name, f in FORMATS.items() if f.logprobs}
    llama_guards = {f"llama-guard-{n}": (("unsafe",), ("safe",)) for n in (1, 2, 3, 4)}
    assert scored == {
        **llama_guards,
        "shieldgemma": (("yes",), ("no",)),
        "granite-guardian": (("yes",), ("no",)),
    }
    assert FORMATS["wildguard"].questions == ("harmful", "harmful_prompt", "refused")
