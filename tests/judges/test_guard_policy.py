"""gpt-oss-safeguard: the policy prompt of the guide, and its JSON verdict."""

from __future__ import annotations

import pytest
from tests.judges.guard_stand_in import GuardStandIn, ask_guard

from truing.core.types import Conversation, Message
from truing.judges.guard_policy import make_policy_format, write_harm_policy

HARM = make_policy_format(None, "medium")
OWN = make_policy_format("Spam policy: SP1 forbids cold promotion.", "high")
SAFE = '{"violation": 0, "policy_category": null}'


def test_the_policy_is_the_system_message_and_says_twice_how_to_answer() -> None:
    model = GuardStandIn(SAFE)
    assert ask_guard(HARM, model).verdict is False
    system, content = model.asked[0].messages
    assert system.role == "system" and system.content.startswith("Reasoning: medium\n")
    assert system.content.count('{"violation": 0, "policy_category": null}') == 2
    assert write_harm_policy() in system.content and "- self_harm: " in system.content
    assert content == Message("user", "user: a question\n\nassistant: an answer")
    (own,) = OWN.ask(Conversation.of("buy this"), None)
    assert own.messages[1].content == "buy this"
    assert "Reasoning: high" in own.messages[0].content and "SP1 forbids" in own.messages[0].content


def test_without_an_answer_each_message_is_classified() -> None:
    talk = Conversation.of("first", system="rules").then(Message("assistant", "second"))
    assert [c.messages[1].content for c in HARM.ask(talk, None)] == ["rules", "first", "second"]


def test_verdicts_and_categories() -> None:
    judgement = ask_guard(
        HARM, GuardStandIn('{"violation": 1, "policy_category": "financial_crime"}')
    )
    assert judgement.verdict is True
    assert judgement.harms["financial_crime,property_crime,theft"] == 1.0
    assert judgement.harms["self_harm"] == 0.0
    own = ask_guard(OWN, GuardStandIn('{"violation": 1, "policy_category": "SP1"}'))
    assert (own.verdict, own.question, own.rationale) == (True, "breaks_policy", "SP1")
    assert own.harms == {}


def test_raw_harmony_is_read_by_its_one_final_channel() -> None:
    raw = (
        "<|channel|>analysis<|message|>It says {} and so on.<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{SAFE}<|return|>"
    )
    assert ask_guard(HARM, GuardStandIn(raw)).verdict is False
    for broken in (
        raw.replace("final", "commentary"),
        raw.partition("<|end|>")[0],
        raw.replace("<|return|>", "<|channel|>final<|message|>{}"),
        "analysisIt says.assistantfinal" + SAFE,
    ):
        assert ask_guard(HARM, GuardStandIn(broken)).verdict is None, broken


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "0",
        "1",
        SAFE + SAFE,
        '{"violation": true, "policy_category": "self_harm"}',
        '{"violation": 2, "policy_category": "self_harm"}',
        '{"violation": 1, "policy_category": null}',
        '{"violation": 1, "policy_category": "rudeness"}',
        '{"violation": 0, "policy_category": "self_harm"}',
        '{"violation": 0, "violation": 1, "policy_category": null}',
        '{"violation": 0, "verdict": "unsafe"}',
        "[" * 5000,
    ],
)
def test_other_replies_are_unscored(reply: str) -> None:
    judgement = ask_guard(HARM, GuardStandIn(reply))
    assert judgement.verdict is None and judgement.failure is not None
    assert judgement.failure.kind == "unparsable"


def test_reasoning_that_was_cut_is_unscored() -> None:
    assert ask_guard(HARM, GuardStandIn(SAFE, finish_reason="length")).verdict is None
