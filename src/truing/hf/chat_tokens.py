"""Turns conversations and answers into token ids, with the chat template or as plain turns.

Needs a tokenizer of transformers (the extra `local`). Training and the judges that it produces both
use this module, so that a reward model scores the same tokens that it was trained on (trl issue
381).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from truing.core.errors import UserError
from truing.core.types import Message

_ROLE_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}

MIN_PROMPT_TOKENS = 8
"""Number of prompt tokens that must remain when a prompt is cut to fit an answer."""


class AnswerTooLong(Exception):
    """An answer does not fit into the context window."""


class ChatTokenizer:
    """Renders conversations with the tokenizer's chat template and encodes them.

    `plain` (and a tokenizer without a template) uses `User:` / `Assistant:` turns instead. The end
    token that closes an answer is part of the answer. `name` is the model's name in error messages.
    """

    def __init__(self, tokenizer: Any, *, plain: bool = False, name: str = "the model") -> None:
        self.tokenizer, self.name = tokenizer, name
        self.plain = plain or not getattr(tokenizer, "chat_template", None)
        end = tokenizer.eos_token_id
        if end is None:
            end = tokenizer.sep_token_id
        if end is None:
            raise UserError(
                f"{name}: the tokenizer has no end token, so an answer would never stop"
            )
        self.eos_token_id = int(end)

    def render(self, messages: Sequence[Message]) -> str:
        """Returns the text up to the start of the next answer.

        If the last message is an assistant's, the text ends after that message.
        """
        expects_answer = not messages or messages[-1].role != "assistant"
        if self.plain:
            turns = [f"{_ROLE_NAMES[m.role]}: {m.content}" for m in messages]
            if expects_answer:
                turns.append("Assistant:")
            return "\n\n".join(turns)
        rows = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                rows, tokenize=False, add_generation_prompt=expects_answer
            )
        except Exception as error:  # a template is a Jinja program and may raise anything
            raise UserError(
                f"{self.name}: the chat template refuses a conversation: {error}"
            ) from error
        return str(text)

    def encode_text(self, text: str, *, first: bool) -> list[int]:
        """Returns token ids; only the `first` text of a plain sequence gets special tokens.

        A chat template writes its own special tokens, so they must not be added twice.
        """
        add_special_tokens = self.plain and first
        ids = list(self.tokenizer(text, add_special_tokens=add_special_tokens).input_ids)
        separator = self.tokenizer.sep_token_id
        # BERT-like tokenizers also append a separator, which would end the sequence here.
        if add_special_tokens and ids and separator is not None and ids[-1] == separator:
            return ids[:-1]
        return ids

    def encode_answer(self, conversation: Sequence[Message], text: str) -> list[int]:
        """Returns the ids of an answer to a conversation, up to and including its end token."""
        before = self.render(conversation)
        with_answer = self.render([*conversation, Message("assistant", text)])
        # Some templates render earlier turns differently once an answer follows.
        answer_text = with_answer[len(before) :] if with_answer.startswith(before) else text
        ids = self.encode_text(answer_text, first=False)
        if self.eos_token_id in ids:
            last_end = len(ids) - ids[::-1].index(self.eos_token_id)
            return ids[:last_end]
        return [*ids, self.eos_token_id]

    def encode_prompt(self, conversation: Sequence[Message]) -> list[int]:
        """Returns the ids of a conversation, up to the start of the answer."""
        return self.encode_text(self.render(conversation), first=True)

    def encode_row(
        self, conversation: Sequence[Message], text: str, window: int, *, end: bool = True
    ) -> list[int]:
        """Returns the ids of prompt and answer, at most `window`; a long prompt loses its start.

        `end=False` leaves out the end token that closes the answer, for one that was cut. Raises
        AnswerTooLong if the answer does not fit.
        """
        prompt, answer = self.encode_prompt(conversation), self.encode_answer(conversation, text)
        if not end:
            answer = answer[:-1]
        return [*truncate_prompt(prompt, len(answer), window), *answer]


def truncate_prompt(prompt: Sequence[int], answer_length: int, window: int) -> Sequence[int]:
    """Returns the end of the prompt that leaves `answer_length` tokens of the window free.

    Raises AnswerTooLong if fewer than `MIN_PROMPT_TOKENS` of a longer prompt would remain.
    """
    available = window - answer_length
    if available < min(MIN_PROMPT_TOKENS, len(prompt)):
        raise AnswerTooLong
    return prompt[-available:] if available < len(prompt) else prompt
