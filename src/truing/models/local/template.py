"""Encodes conversations with the model's chat template, and finds the heads that many prompts
share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from truing.core.errors import UserError
from truing.core.text import replace_surrogates
from truing.core.types import Conversation, Message, Tool, ToolCall

_MARK = "\u27e6\u27e7"  # stands in for the last user turn when the shared head is looked for


@dataclass(frozen=True)
class EncodedPrompt:
    """The token ids of a prompt, and the lengths of the heads that other prompts may share, longest
    first.
    """

    ids: tuple[int, ...]
    heads: tuple[int, ...] = ()


class ChatTemplate:
    """Renders conversations with a tokenizer's chat template; without one, as plain `User:` /
    `Assistant:` turns.

    A template that knows no system role gets the system text at the head of the first user turn.
    """

    def __init__(self, tokenizer: Any, *, shortest: int = 16) -> None:
        self.tokenizer = tokenizer
        self.plain = not getattr(tokenizer, "chat_template", None)
        self.shortest = shortest
        self._heads: dict[tuple[tuple[Message, ...], tuple[Tool, ...]], tuple[int, ...]] = {}

    def render(
        self, conversation: Conversation, tools: tuple[Tool, ...] = (), *, closed: bool = False
    ) -> str:
        """Returns the prompt text, up to where the answer begins. Raises UserError if the template
        refuses it. The model continues a last assistant turn, unless `closed` ends that turn.
        """
        messages = conversation.messages
        if not messages:
            raise UserError("a conversation without messages has no answer")
        if self.plain:
            return _plain(messages, closed=closed)
        rows = [_row(m) for m in messages]
        options: dict[str, Any] = {"tools": [_tool(t) for t in tools]} if tools else {}
        if messages[-1].role == "assistant" and not closed:
            # The answer goes on from a given beginning: no end-of-turn token, no new header.
            options["continue_final_message"] = True
        else:
            options["add_generation_prompt"] = True
        try:
            return str(self.tokenizer.apply_chat_template(rows, tokenize=False, **options))
        except Exception as error:  # a template is a program; jinja raises what it likes
            # Templates without a system role raise an exception for it; the same text is then
            # tried as part of the first user turn.
            without_system = _merge_system(rows)
            if without_system is None:
                raise UserError(f"the chat template refuses this conversation: {error}") from error
            try:
                return str(
                    self.tokenizer.apply_chat_template(without_system, tokenize=False, **options)
                )
            except Exception as again:
                raise UserError(f"the chat template refuses this conversation: {again}") from again

    def prompt(
        self, conversation: Conversation, tools: tuple[Tool, ...] = (), *, closed: bool = False
    ) -> EncodedPrompt:
        """Token ids, with the heads that other prompts may share: up to the last user turn, and
        after the system message, both with the definitions of the tools.
        """
        ids = self._encode(self.render(conversation, tools, closed=closed))
        messages = conversation.messages
        heads: list[int] = []
        # With tools, calls and results may follow the last user turn.
        newest_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
        if newest_user is not None and (tools or newest_user == len(messages) - 1):
            before = messages[:newest_user]
            system = before[:1] if before and before[0].role == "system" else ()
            for head in dict.fromkeys((before, system)):
                shared = self._head(head, tools)
                n = len(shared)
                # Templates may render a turn by what follows it, and tokens may merge at the
                # border: the head is used only if its tokens really begin the prompt.
                if self.shortest <= n < len(ids) and ids[:n] == shared:
                    heads.append(n)
        return EncodedPrompt(ids, tuple(heads))

    def _head(self, before: tuple[Message, ...], tools: tuple[Tool, ...]) -> tuple[int, ...]:
        head = self._heads.get((before, tools))
        if head is None:
            text = self.render(Conversation((*before, Message("user", _MARK))), tools)
            # the last token may merge with what follows, so it is left to the prompt
            head = self._encode(text.split(_MARK, 1)[0])[:-1]
            # Bounds the memory of a long-lived server, where histories never repeat.
            if len(self._heads) > 4096:
                self._heads.clear()
            self._heads[before, tools] = head
        return head

    def _encode(self, text: str) -> tuple[int, ...]:
        # A chat template writes its special tokens itself; a second BOS would change the answers.
        text = replace_surrogates(text)
        return tuple(self.tokenizer(text, add_special_tokens=self.plain).input_ids)


def _row(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [_call(call) for call in message.tool_calls]
    return row


def _call(call: ToolCall) -> dict[str, Any]:
    row = call.to_openai()
    # Templates write the arguments as JSON themselves: a text would be quoted a second time.
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return row
    if isinstance(arguments, dict):
        row["function"]["arguments"] = arguments
    return row


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": json.loads(tool.parameters),
    }
    return {"type": "function", "function": function}


def _merge_system(rows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    if len(rows) < 2 or rows[0]["role"] != "system" or rows[1]["role"] != "user":
        return None
    first = {"role": "user", "content": f"{rows[0]['content']}\n\n{rows[1]['content']}"}
    return [first, *rows[2:]]


def _plain(messages: tuple[Message, ...], *, closed: bool) -> str:
    names = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
    turns = [f"{names[m.role]}: {m.content}" for m in messages]
    if closed or messages[-1].role != "assistant":
        turns.append("Assistant:")
    return "\n\n".join(turns)
