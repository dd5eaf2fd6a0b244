"""Text as token rows: the chat template, which tokens are the answer's own, padded batches.

The end token that closes an answer is part of it, and masks come from lengths, never from ids: a pad token that
equals the end token hides nothing (trl #3091).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from truing.backbone import pad
from truing.errors import UserError
from truing.train.settings import Item, Settings
from truing.types import Conversation, Message

_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_LEAST = 8  # tokens of a prompt that stay when it has to give way to a long answer
Wrap = Callable[[Conversation], Conversation]


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and of each answer; `labels` marks the answer's tokens (1) where several turns are learned."""

    item: Item
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    teacher: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()

    def row(self, which: int = 0) -> tuple[int, ...]:
        """Prompt and answer."""
        return (*self.prompt, *self.answers[which])

    def mark(self, which: int = 0) -> tuple[int, ...]:
        """1 on the answer's tokens."""
        if self.marks and which == 0:
            return self.marks
        return (*(0 for _ in self.prompt), *(1 for _ in self.answers[which]))


class TooLong(Exception):
    """An answer that does not fit in the window."""


class Encoder:
    """Renders conversations with the tokenizer's chat template, or as plain turns, and cuts long prompts from the left."""

    def __init__(self, tokenizer: Any, settings: Settings, *, encoder: bool = False, wrap: Wrap | None = None) -> None:
        self.tokenizer, self.settings, self.wrap = tokenizer, settings, wrap
        has = bool(getattr(tokenizer, "chat_template", None))
        self.plain = settings.template == "plain" or encoder or not has
        if not has and settings.template != "plain" and not encoder:
            raise UserError(f"{settings.base}: the tokenizer has no chat template; --template plain trains on plain "
                            f"`User:` / `Assistant:` turns (which is how local: reads such a model)")
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        if end is None:
            raise UserError(f"{settings.base}: the tokenizer has no end token, so an answer would never stop")
        self.end = int(end)

    def render(self, messages: Sequence[Message]) -> str:
        """The text up to where the next answer begins, or to the end of the last answer."""
        if self.plain:
            turns = [f"{_NAMES[m.role]}: {m.content}" for m in messages]
            return "\n\n".join([*turns, *(() if messages[-1].role == "assistant" else ("Assistant:",))])
        rows = [{"role": m.role, "content": m.content} for m in messages]
        ask = messages[-1].role != "assistant"
        try:
            return str(self.tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=ask))
        except Exception as error:  # a template is a program; jinja raises what it likes
            raise UserError(f"the chat template refuses a conversation: {error}") from error

    def ids(self, text: str, *, first: bool) -> list[int]:
        """Token ids; only the beginning of a plain text gets the tokenizer's own special tokens."""
        made = list(self.tokenizer(text, add_special_tokens=self.plain and first).input_ids)
        tail = self.tokenizer.sep_token_id
        return made[:-1] if self.plain and first and made and tail is not None and made[-1] == tail else made

    def answer(self, conversation: Sequence[Message], text: str) -> list[int]:
        """The answer's ids, its end token included."""
        before = self.render(conversation)
        whole = self.render([*conversation, Message("assistant", text)])
        said = whole[len(before) :] if whole.startswith(before) else text
        made = self.ids(said, first=False)
        if self.end in made:
            return made[: len(made) - made[::-1].index(self.end)]
        return [*made, self.end]

    def encode(self, item: Item) -> Encoded:
        """Ids of prompt and answers within the window; raises TooLong if an answer alone does not fit."""
        messages = item.conversation.messages
        prompt = self.ids(self.render(messages), first=True)
        answers = tuple(tuple(self.answer(messages, a)) for a in item.answers)
        longest = max((len(a) for a in answers), default=0)
        room = self.settings.max_length - longest
        if room < min(_LEAST, len(prompt)):
            raise TooLong
        if self.settings.kind == "sft" and self.settings.turns == "all":
            return self._dialogue(item)
        teacher: tuple[int, ...] = ()
        if self.wrap is not None:
            teacher = tuple(self.ids(self.render(self.wrap(item.conversation).messages), first=True))
        return Encoded(item, tuple(prompt[-room:] if room < len(prompt) else prompt), answers, teacher)

    def _dialogue(self, item: Item) -> Encoded:
        """All assistant turns as targets."""
        messages = [*item.conversation.messages, Message("assistant", item.answers[0])]
        ids: list[int] = []
        marks: list[int] = []
        done = ""
        for at, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.render(messages[:at])
            gap = before[len(done) :] if before.startswith(done) else before
            new = self.ids(gap, first=not ids)
            said = self.answer(messages[:at], message.content)
            done = self.render(messages[: at + 1])
            ids += [*new, *said]
            marks += [0] * len(new) + [1] * len(said)
        cut = max(0, len(ids) - self.settings.max_length)
        return Encoded(item, (), (tuple(ids[cut:]),), marks=tuple(marks[cut:]))

    def all(self, items: Iterable[Item]) -> tuple[list[Encoded], list[str]]:
        """Encoded rows, and the names of those that are too long."""
        kept: list[Encoded] = []
        long: list[str] = []
        for item in items:
            try:
                kept.append(self.encode(item))
            except TooLong:
                long.append(item.name)
        return kept, long


@dataclass(frozen=True)
class Rows:
    """A padded batch: ids, mask of real tokens, mask of the answers' tokens; all `[B, T]`."""

    ids: Tensor
    mask: Tensor
    answer: Tensor

    def to(self, device: Any) -> Rows:
        """The same on another device."""
        return Rows(self.ids.to(device), self.mask.to(device), self.answer.to(device))


def collate(rows: Sequence[Sequence[int]], marks: Sequence[Sequence[int]], fill: int) -> Rows:
    """Right-padded rows."""
    ids, mask = pad(rows, fill)
    answer, _ = pad(marks, 0)
    return Rows(ids, mask, answer)


def collate_answers(batch: Sequence[Encoded], fill: int) -> Rows:
    """First answers in order, then (for pairs) the second answers in the same order."""
    width = max(len(e.answers) for e in batch)
    rows = [e.row(k) for k in range(width) for e in batch]
    marks = [e.mark(k) for k in range(width) for e in batch]
    return collate(rows, marks, fill)
