"""Text as token rows: the chat template, which tokens are the answer's own, padded batches.

The end token that closes an answer is part of it, and masks come from lengths, never from ids: a pad token that
equals the end token hides nothing (trl #3091).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from truing.core.errors import UserError
from truing.core.types import Conversation, Message
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer, truncate_prompt
from truing.hf.loading import pad_rows
from truing.train.examples import TrainingExample
from truing.train.settings import TrainingSettings

PromptWrapper = Callable[[Conversation], Conversation]


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of a prompt and of each answer; `labels` marks the answer's tokens (1) where several turns are learned."""

    item: TrainingExample
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


class ExampleEncoder(ChatTokenizer):
    """As `Turns`, for whole training rows: answers fit in the window, long prompts are cut from the left."""

    def __init__(
        self,
        tokenizer: Any,
        settings: TrainingSettings,
        *,
        encoder: bool = False,
        wrap: PromptWrapper | None = None,
    ) -> None:
        has = bool(getattr(tokenizer, "chat_template", None))
        if not has and settings.template != "plain" and not encoder:
            raise UserError(
                f"{settings.base}: the tokenizer has no chat template; --template plain trains on plain "
                f"`User:` / `Assistant:` turns (which is how local: reads such a model)"
            )
        super().__init__(
            tokenizer, plain=settings.template == "plain" or encoder, name=settings.base
        )
        self.settings, self.wrap = settings, wrap

    def encode(self, item: TrainingExample) -> EncodedExample:
        """Ids of prompt and answers within the window; raises TooLong if an answer alone does not fit."""
        messages = item.conversation.messages
        answers = tuple(tuple(self.encode_answer(messages, a)) for a in item.answers)
        if item.cut:
            answers = tuple(a[:-1] for a in answers)
        prompt = truncate_prompt(
            self.encode_prompt(messages),
            max((len(a) for a in answers), default=0),
            self.settings.max_length,
        )
        if self.settings.kind == "sft" and self.settings.turns == "all":
            return self._dialogue(item)
        teacher: tuple[int, ...] = ()
        if self.wrap is not None:
            teacher = tuple(self.encode_prompt(self.wrap(item.conversation).messages))
        return EncodedExample(item, tuple(prompt), answers, teacher)

    def _dialogue(self, item: TrainingExample) -> EncodedExample:
        """All assistant turns as targets."""
        messages = [*item.conversation.messages, Message("assistant", item.answers[0])]
        ids: list[int] = []
        marks: list[int] = []
        done = ""
        stop = str(self.tokenizer.decode([self.eos_token_id]))
        for at, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.render(messages[:at])
            gap = before[len(done) :] if before.startswith(done) else before
            new = self.encode_text(gap, first=not ids)
            said = self.encode_answer(messages[:at], message.content)
            whole = self.render(messages[: at + 1])
            # what the template writes behind the end token (a line break) belongs to the turn that follows
            done = (
                whole[: whole.rindex(stop) + len(stop)] if stop in whole[len(before) :] else whole
            )
            ids += [*new, *said]
            marks += [0] * len(new) + [1] * len(said)
        cut = max(0, len(ids) - self.settings.max_length)
        return EncodedExample(item, (), (tuple(ids[cut:]),), marks=tuple(marks[cut:]))

    def all(self, items: Iterable[TrainingExample]) -> tuple[list[EncodedExample], list[str]]:
        """Encoded rows, and the names of those that are too long."""
        kept: list[EncodedExample] = []
        long: list[str] = []
        for item in items:
            try:
                kept.append(self.encode(item))
            except AnswerTooLong:
                long.append(item.name)
        return kept, long


@dataclass(frozen=True)
class TokenBatch:
    """A padded batch: ids, mask of real tokens, mask of the answers' tokens; all `[B, T]`."""

    ids: Tensor
    mask: Tensor
    answer: Tensor

    def to(self, device: Any) -> TokenBatch:
        """The same on another device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device), self.answer.to(device))


def pad_batch(
    rows: Sequence[Sequence[int]], marks: Sequence[Sequence[int]], fill: int
) -> TokenBatch:
    """Right-padded rows."""
    ids, mask = pad_rows(rows, fill)
    answer, _ = pad_rows(marks, 0)
    return TokenBatch(ids, mask, answer)


def collate_examples(batch: Sequence[EncodedExample], fill: int) -> TokenBatch:
    """First answers in order, then (for pairs) the second answers in the same order."""
    width = max(len(e.answers) for e in batch)
    rows = [e.row(k) for k in range(width) for e in batch]
    marks = [e.mark(k) for k in range(width) for e in batch]
    return pad_batch(rows, marks, fill)
