from __future__ import annotations

import pytest

from truing.core.types import Conversation, Message, ToolCall
from truing.rails.runtime.chat_messages import ChatMessage, messages_of_conversation
from truing.rails.runtime.operator_prefix import OperatorPrefixes

EXAMPLE = (Message("user", "Q"), Message("assistant", "A"))
HI = Message("user", "hi")


def found(prefixes: OperatorPrefixes, *messages: Message) -> list[int]:
    return sorted(prefixes.find(messages_of_conversation(Conversation(messages))))


@pytest.fixture
def prefixes() -> OperatorPrefixes:
    prefixes = OperatorPrefixes()
    prefixes.add((Message("system", "Be kind."), *EXAMPLE))
    return prefixes


def test_only_the_head_is_the_operators_and_only_once(prefixes: OperatorPrefixes) -> None:
    system = Message("system", "Be kind.")
    assert found(prefixes, system, *EXAMPLE, HI) == [0, 1, 2]
    assert found(prefixes, *EXAMPLE, HI) == [0, 1]
    assert found(prefixes, *EXAMPLE, *EXAMPLE, HI) == [0, 1]
    assert found(prefixes, HI, *EXAMPLE, HI) == []
    assert found(prefixes, EXAMPLE[0], HI) == []
    assert found(prefixes, EXAMPLE[0], Message("assistant", "B"), HI) == []


def test_a_system_message_with_a_clients_text_is_not_the_operators(
    prefixes: OperatorPrefixes,
) -> None:
    merged = Message("system", "Be kind.\n\nBe rude.")
    assert found(prefixes, merged, *EXAMPLE, HI) == [1, 2]


def test_nested_prefixes_follow_each_other(prefixes: OperatorPrefixes) -> None:
    other = (Message("user", "Q2"), Message("assistant", "A2"))
    prefixes.add(other)
    assert found(prefixes, *other, *EXAMPLE, HI) == [0, 1, 2, 3]


def test_calls_are_compared_without_their_ids() -> None:
    def asked(call_id: str, arguments: str) -> tuple[Message, ...]:
        return (
            Message("user", "Q"),
            Message("assistant", "", (ToolCall(call_id, "f", arguments),)),
        )

    prefixes = OperatorPrefixes()
    prefixes.add(asked("a", "{}"))
    assert found(prefixes, *asked("b", "{}"), HI) == [0, 1]
    assert found(prefixes, *asked("a", '{"q": 1}'), HI) == []


def test_variables_may_stand_before_the_head(prefixes: OperatorPrefixes) -> None:
    messages = [ChatMessage(role="context")]
    assert prefixes.find([*messages, *messages_of_conversation(Conversation(EXAMPLE))]) == {1, 2}
    assert prefixes.find(messages) == frozenset()
