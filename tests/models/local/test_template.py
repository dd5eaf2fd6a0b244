"""Chat templates: rendering, and the heads that prompts share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.models.local.generation import ASKS, SYSTEM, answers

from truing.core.errors import UserError
from truing.core.types import Conversation, Message, Sampling, Tool, ToolCall
from truing.models.local import LocalModel
from truing.models.local.template import ChatTemplate, _row


def test_templates(tiny: LocalModel, make: Callable[..., Path]) -> None:
    plain = LocalModel.load(
        str(make("llama", template=False, bos=True)), dtype="float32", device="cpu"
    )
    assert plain.template.render(ASKS[3]).endswith("User: a\n\nAssistant:")
    assert plain.template.prompt(ASKS[3]).ids[0] == plain.forward.tokenizer.bos_token_id
    with pytest.raises(UserError, match="without messages"):
        tiny.template.render(Conversation())
    strict = ChatTemplate(tiny.forward.tokenizer)
    strict.tokenizer = _NoSystem(tiny.forward.tokenizer)
    assert strict.render(ASKS[3]).count(SYSTEM) == 1
    (tooled,) = answers(tiny, ASKS[:1], Sampling(max_tokens=2, tools=(Tool("look", "looks"),)))[0]
    assert tooled.failure is None


class _NoSystem:
    """A tokenizer whose template refuses a system role, as Gemma's does."""

    def __init__(self, inner: Any) -> None:
        self.chat_template = "x"
        self._inner = inner

    def apply_chat_template(self, rows: list[dict[str, Any]], **kwargs: Any) -> Any:
        if rows[0]["role"] == "system":
            raise ValueError("System role not supported")
        return self._inner.apply_chat_template(rows, **kwargs)


class _Characters:
    """A tokenizer with one token for each character, and no chat template."""

    chat_template = None

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=[ord(character) for character in text])


class _WithTools(_Characters):
    """The same, with a chat template that begins with the names of the tools."""

    chat_template = "x"  # type: ignore[assignment]

    def apply_chat_template(
        self, rows: list[dict[str, Any]], *, tools: Any = (), **options: Any
    ) -> str:
        names = ",".join(tool["function"]["name"] for tool in tools)
        return f"[{names}]" + ";".join(f"{row['role']}:{row['content']}" for row in rows)


def test_plain_turns_without_a_template() -> None:
    template = ChatTemplate(_Characters())
    conversation = Conversation.of("hi", system="be brief")
    assert template.render(conversation) == "System: be brief\n\nUser: hi\n\nAssistant:"
    prefilled = conversation.then(Message("assistant", "Well"))
    assert template.render(prefilled).endswith("User: hi\n\nAssistant: Well")


def test_heads_end_before_the_last_user_turn_and_after_the_system_message() -> None:
    template = ChatTemplate(_Characters(), shortest=4)
    conversation = (
        Conversation.of("one", system="be brief")
        .then(Message("assistant", "two"))
        .then(Message("user", "three"))
    )
    prompt = template.prompt(conversation)
    # The last token of a head may merge with what follows, so it is not part of the head.
    history = "System: be brief\n\nUser: one\n\nAssistant: two\n\nUser:"
    system = "System: be brief\n\nUser:"
    assert prompt.heads == (len(history), len(system))
    text = "".join(map(chr, prompt.ids))
    assert [text[:n] for n in prompt.heads] == [history, system]


def test_short_heads_are_not_shared() -> None:
    conversation = Conversation.of("hi", system="brief")
    head = "System: brief\n\nUser:"
    assert ChatTemplate(_Characters(), shortest=len(head)).prompt(conversation).heads == (
        len(head),
    )
    assert ChatTemplate(_Characters(), shortest=len(head) + 1).prompt(conversation).heads == ()


def test_prompts_without_a_last_user_turn_share_no_head() -> None:
    template = ChatTemplate(_Characters(), shortest=4)
    conversation = Conversation.of("hi", system="be brief")
    assert template.prompt(conversation.then(Message("assistant", "Well"))).heads == ()


def test_heads_of_prompts_with_tools_hold_their_definitions() -> None:
    template = ChatTemplate(_WithTools(), shortest=4)
    asked = Conversation.of("hi", system="be brief")
    call = Message("assistant", "", (ToolCall("c", "look", "{}"),))
    answered = asked.then(call).then(Message("tool", "dark", (), "c"))
    prompts = [template.prompt(c, (Tool("look"),)) for c in (asked, answered)]
    for prompt in prompts:
        (size,) = prompt.heads
        assert "".join(map(chr, prompt.ids[:size])) == "[look]system:be brief;user"
    # The same conversation with another tool shares nothing with it.
    other = template.prompt(answered, (Tool("hear"),))
    assert "".join(map(chr, other.ids[: other.heads[0]])) == "[hear]system:be brief;user"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"id": "m1"}', {"id": "m1"}),
        ("no JSON", "no JSON"),
        ("[1]", "[1]"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_arguments_of_calls_are_objects_for_a_template(arguments: str, shown: object) -> None:
    row = _row(Message("assistant", "", (ToolCall("c", "read", arguments),)))
    assert row["tool_calls"][0]["function"]["arguments"] == shown
