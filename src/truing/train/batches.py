"""Examples as token rows: chat template, answer masks, padded batches.

The end token that closes an answer belongs to the answer. Masks come from lengths and never from
token ids, so that a pad token that equals the end token masks nothing (trl #3091).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
    """Token ids of the prompt and of each answer.

    `teacher` holds the ids of the teacher's prompt (distil). Where several turns of a dialogue are
    learned, the whole dialogue is the one answer, `prompt` is empty, and `turn_mask` is 1 at the
    tokens of the assistant's turns.
    """

    item: TrainingExample
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    teacher: tuple[int, ...] = ()
    turn_mask: tuple[int, ...] = ()

    def token_ids(self, answer: int = 0) -> tuple[int, ...]:
        """Returns the ids of the prompt and one answer."""
        return (*self.prompt, *self.answers[answer])

    def answer_mask(self, answer: int = 0) -> tuple[int, ...]:
        """Returns 1 for each id of `token_ids(answer)` that is learned, else 0."""
        if self.turn_mask:
            return self.turn_mask
        return (0,) * len(self.prompt) + (1,) * len(self.answers[answer])


class ExampleEncoder(ChatTokenizer):
    """Encodes training examples within `max_length` tokens.

    A prompt that is too long is cut from the left; an answer is never cut. `encoder` is true for
    BERT-like bases, which have no chat template. `wrap` adds the teacher's prompt (distil).
    """

    def __init__(
        self,
        tokenizer: Any,
        settings: TrainingSettings,
        *,
        encoder: bool = False,
        wrap: PromptWrapper | None = None,
    ) -> None:
        uses_plain_turns = settings.template == "plain" or encoder
        if not getattr(tokenizer, "chat_template", None) and not uses_plain_turns:
            raise UserError(
                f"{settings.base}: the tokenizer has no chat template; --template plain trains on "
                "plain `User:` / `Assistant:` turns (as local: prompts such a model)"
            )
        super().__init__(tokenizer, plain=uses_plain_turns, name=settings.base)
        self.settings, self.wrap = settings, wrap

    def encode(self, item: TrainingExample) -> EncodedExample:
        """Returns the token ids of an example; raises AnswerTooLong if an answer does not fit."""
        messages = item.conversation.messages
        answers = tuple(tuple(self.encode_answer(messages, text)) for text in item.answers)
        if item.cut:
            answers = tuple(ids[:-1] for ids in answers)  # without the end token
        # All answers get the same prompt, so that a pair differs by its answers alone.
        longest_answer = max((len(ids) for ids in answers), default=0)
        prompt = truncate_prompt(
            self.encode_prompt(messages), longest_answer, self.settings.max_length
        )
        if self.settings.kind == "sft" and self.settings.turns == "all":
            return self._encode_dialogue(item)
        teacher: tuple[int, ...] = ()
        if self.wrap is not None:
            teacher = tuple(self.encode_prompt(self.wrap(item.conversation).messages))
        return EncodedExample(item, tuple(prompt), answers, teacher)

    def _encode_dialogue(self, example: TrainingExample) -> EncodedExample:
        """Encodes a dialogue in which every assistant turn is learned.

        Each turn is encoded as it is at inference: what the template renders before the answer,
        then the answer with its end token.
        """
        messages = [*example.conversation.messages, Message("assistant", example.answers[0])]
        end_text = str(self.tokenizer.decode([self.eos_token_id]))
        ids: list[int] = []
        mask: list[int] = []
        encoded_text = ""  # the part of the rendered dialogue that `ids` covers
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.render(messages[:index])
            continues = before.startswith(encoded_text)
            new_text = before[len(encoded_text) :] if continues else before
            prompt_ids = self.encode_text(new_text, first=not ids)
            answer_ids = self.encode_answer(messages[:index], message.content)
            ids += [*prompt_ids, *answer_ids]
            mask += [0] * len(prompt_ids) + [1] * len(answer_ids)

            rendered = self.render(messages[: index + 1])
            if end_text in rendered[len(before) :]:
                # What the template writes behind the end token (a line break) belongs to the next
                # turn.
                encoded_text = rendered[: rendered.rindex(end_text) + len(end_text)]
            else:
                encoded_text = rendered
        excess = max(0, len(ids) - self.settings.max_length)
        return EncodedExample(example, (), (tuple(ids[excess:]),), turn_mask=tuple(mask[excess:]))

    def encode_all(
        self, items: Iterable[TrainingExample]
    ) -> tuple[list[EncodedExample], list[str]]:
        """Returns the encoded examples, and the names of those with an answer that is too long."""
        encoded: list[EncodedExample] = []
        too_long: list[str] = []
        for item in items:
            try:
                encoded.append(self.encode(item))
            except AnswerTooLong:
                too_long.append(item.name)
        return encoded, too_long


@dataclass(frozen=True)
class TokenBatch:
    """A padded batch: token ids, mask of real tokens, mask of answer tokens; all `[B, T]`."""

    ids: Tensor
    mask: Tensor
    answer_mask: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """Returns the batch on another device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device), self.answer_mask.to(device))


def pad_batch(
    rows: Sequence[Sequence[int]], answer_masks: Sequence[Sequence[int]], pad_id: int
) -> TokenBatch:
    """Pads rows and their answer masks on the right."""
    ids, mask = pad_rows(rows, pad_id)
    answer_mask, _ = pad_rows(answer_masks, 0)
    return TokenBatch(ids, mask, answer_mask)


def collate_examples(batch: Sequence[EncodedExample], pad_id: int) -> TokenBatch:
    """Returns a batch of all first answers, followed (for pairs) by all second answers.

    So `chunk(2)` splits a batch of pairs into the chosen and the rejected answers.
    """
    answer_count = max(len(e.answers) for e in batch)
    order = [(e, answer) for answer in range(answer_count) for e in batch]
    return pad_batch(
        [e.token_ids(answer) for e, answer in order],
        [e.answer_mask(answer) for e, answer in order],
        pad_id,
    )
