"""A conversation and its answers as token ids: the chat template, or plain turns where there is none.

Needs a tokenizer of transformers (the `local` extra). Training and the judges that training makes read text through
this, so that a score at use is the score at training (trl #381).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truing.core.errors import UserError
from truing.core.types import Message

_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
MIN_PROMPT_TOKENS = 8  # tokens of a prompt that stay when it has to give way to a long answer


class AnswerTooLong(Exception):
    """An answer that does not fit in the window."""


class ChatTokenizer:
    """Renders conversations with the tokenizer's chat template (`plain` = as `User:` / `Assistant:` turns instead).

    The end token that closes an answer is part of it. `name` is what errors call the model.
    """

    def __init__(self, tokenizer: Any, *, plain: bool = False, name: str = "the model") -> None:
        self.tokenizer, self.name = tokenizer, name
        self.plain = plain or not getattr(tokenizer, "chat_template", None)
        end = (
            tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        )
        if end is None:
            raise UserError(
                f"{name}: the tokenizer has no end token, so an answer would never stop"
            )
        self.eos_token_id = int(end)

    def render(self, messages: Sequence[Message]) -> str:
        """The text up to where the next answer begins, or to the end of the last answer."""
        if self.plain:
            turns = [f"{_NAMES[m.role]}: {m.content}" for m in messages]
            return "\n\n".join(
                [
                    *turns,
                    *(() if messages and messages[-1].role == "assistant" else ("Assistant:",)),
                ]
            )
        rows = [{"role": m.role, "content": m.content} for m in messages]
        ask = not messages or messages[-1].role != "assistant"
        try:
            return str(
                self.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=ask)
            )
        except Exception as error:  # a template is a program; jinja raises what it likes
            raise UserError(
                f"{self.name}: the chat template refuses a conversation: {error}"
            ) from error

    def encode_text(self, text: str, *, first: bool) -> list[int]:
        """Token ids; only the beginning of a plain text gets the tokenizer's own special tokens."""
        made = list(self.tokenizer(text, add_special_tokens=self.plain and first).input_ids)
        tail = self.tokenizer.sep_token_id
        return (
            made[:-1]
            if self.plain and first and made and tail is not None and made[-1] == tail
            else made
        )

    def encode_answer(self, conversation: Sequence[Message], text: str) -> list[int]:
        """The answer's ids after a conversation, its end token included."""
        before = self.render(conversation)
        whole = self.render([*conversation, Message("assistant", text)])
        said = whole[len(before) :] if whole.startswith(before) else text
        made = self.encode_text(said, first=False)
        if self.eos_token_id in made:
            return made[: len(made) - made[::-1].index(self.eos_token_id)]
        return [*made, self.eos_token_id]

    def encode_prompt(self, conversation: Sequence[Message]) -> list[int]:
        """The ids of a conversation, up to where the answer begins."""
        return self.encode_text(self.render(conversation), first=True)

    def encode_row(self, conversation: Sequence[Message], text: str, window: int) -> list[int]:
        """Prompt and answer within a window; a long prompt is cut from the left. TooLong if the answer does not fit."""
        prompt, answer = self.encode_prompt(conversation), self.encode_answer(conversation, text)
        return [*truncate_prompt(prompt, len(answer), window), *answer]


def truncate_prompt(prompt: Sequence[int], answer: int, window: int) -> Sequence[int]:
    """The end of the prompt that leaves room for an answer of so many tokens; TooLong where too little would stay."""
    room = window - answer
    if room < min(MIN_PROMPT_TOKENS, len(prompt)):
        raise AnswerTooLong
    return prompt[-room:] if room < len(prompt) else prompt
