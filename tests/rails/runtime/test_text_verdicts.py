"""What the outcome of a stage means for a text of a client."""

from truing.core.types import Ruling
from truing.rails.runtime.chat_messages import ChatMessage
from truing.rails.runtime.checked_texts import TextVerdict
from truing.rails.runtime.client_texts import ClientText
from truing.rails.runtime.text_verdicts import name_source, was_refused

REFUSED = TextVerdict(None, "I cannot help with that.")


def history(answer: ChatMessage) -> list[ChatMessage]:
    return [
        ChatMessage(role="user", content="one"),
        answer,
        ChatMessage(role="user", content="two"),
    ]


def test_a_message_was_refused_if_its_refusal_follows() -> None:
    text = ClientText(0, "content", "user", "one")
    refusal = ChatMessage(role="assistant", content=REFUSED.reply)
    assert was_refused(history(refusal), text, REFUSED)
    assert was_refused(history(ChatMessage(role="exception", content="x")), text, REFUSED)
    assert not was_refused(history(ChatMessage(role="assistant", content="Gladly.")), text, REFUSED)
    assert not was_refused(history(ChatMessage(role="user", content=REFUSED.reply)), text, REFUSED)


def test_the_last_message_and_other_parts_were_not_refused() -> None:
    messages = history(ChatMessage(role="assistant", content=REFUSED.reply))
    assert not was_refused(messages, ClientText(2, "content", "user", "two"), REFUSED)
    assert not was_refused(messages, ClientText(0, "name", "user", "one"), REFUSED)
    # A verdict without words for the client has no refusal that could have followed.
    empty = history(ChatMessage(role="assistant", content=""))
    assert not was_refused(empty, ClientText(0, "content", "user", "one"), TextVerdict(None))


def test_a_block_names_where_its_text_stands() -> None:
    rulings = [
        Ruling(name="self check input", stage="input", ruling="block", reason="policy"),
        Ruling(name="other", stage="input", ruling="allow"),
    ]
    block, passed = name_source(ClientText(0, "content", "system", "x"), rulings)
    assert block.reason == "policy (in the system message)" and passed == rulings[1]
    call = ClientText(0, "content", "tool", "x", "tool_input", "search", call_id="call-7")
    ruling = Ruling(name="check", stage="tool_input", ruling="block", reason="policy")
    assert next(iter(name_source(call, [ruling]))).call_ids == ("call-7",)
