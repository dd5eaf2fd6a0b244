"""Prompts as token ids, the prompts of each step, and the rollout: answers with log-probabilities.

Prompts are padded on the left and answers on the right, so that all answers of a rollout begin at
the same column. Masks come from lengths, never from token ids: a pad token may have the same id as
the end token, and a sampled `<unk>` is a real token. Texts hold what was sampled, special tokens
included: a judge must see a sampled `<|im_start|>user`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from truing.core.errors import DataError
from truing.core.ids import stream_seed
from truing.core.types import Message, Response, Sample
from truing.hf.loading import pad_rows
from truing.train.batches import ExampleEncoder


@dataclass(frozen=True)
class TokenizedPrompt:
    """A sample and the token ids of its rendered conversation."""

    sample: Sample
    ids: tuple[int, ...]


@dataclass(frozen=True)
class GeneratedAnswers:
    """Sampled answers, one for each prompt of a batch.

    `ids` hold each answer's tokens including the end token, `log_probs` `[B, A]` their
    log-probabilities, `ended` whether the end token was sampled before the length limit.
    """

    ids: tuple[tuple[int, ...], ...]
    log_probs: Tensor
    ended: tuple[bool, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Rollout:
    """The answers of one step on this process.

    `input_ids` and `attention_mask` are `[B, P + A]` (P prompt columns, A answer columns),
    `answer_mask`, `log_probs` and `ref_log_probs` are `[B, A]`. `global_rows` holds the row of each
    answer among the answers of all processes; answers to one prompt are adjacent. `texts` are
    without the end token that closes an answer; `special` says which answers hold special tokens
    before it (empty = none).

    `sampler_log_probs` are those of the generator, if it is not the policy in the same precision.
    With `on_policy`, `log_probs` are the generator's too, and those of the policy come from the
    forward pass of the one gradient step.
    """

    prompts: tuple[TokenizedPrompt, ...]
    global_rows: tuple[int, ...]
    input_ids: Tensor
    attention_mask: Tensor
    answer_mask: Tensor
    log_probs: Tensor
    ended: tuple[bool, ...]
    texts: tuple[str, ...]
    ref_log_probs: Tensor | None = None
    special: tuple[bool, ...] = ()
    sampler_log_probs: Tensor | None = None
    on_policy: bool = False

    @property
    def answer_start(self) -> int:
        """The column of the first answer token."""
        return int(self.input_ids.shape[1] - self.answer_mask.shape[1])

    @property
    def answer_lengths(self) -> Tensor:
        """Number of tokens of each answer, `[B]`."""
        return self.answer_mask.sum(-1)

    @property
    def answer_ids(self) -> Tensor:
        """The token ids of the answers, `[B, A]`."""
        return self.input_ids[:, self.answer_start :]

    def select_rows(self, rows: Sequence[int]) -> Rollout:
        """Returns the rollout of these local rows, in this order."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.input_ids.device)
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            global_rows=tuple(self.global_rows[row] for row in rows),
            input_ids=self.input_ids[index],
            attention_mask=self.attention_mask[index],
            answer_mask=self.answer_mask[index],
            log_probs=self.log_probs[index],
            ended=tuple(self.ended[row] for row in rows),
            texts=tuple(self.texts[row] for row in rows),
            ref_log_probs=None if self.ref_log_probs is None else self.ref_log_probs[index],
            special=tuple(self.special[row] for row in rows) if self.special else (),
            sampler_log_probs=(
                None if self.sampler_log_probs is None else self.sampler_log_probs[index]
            ),
        )

    def with_rows(self, rows: Sequence[int], other: Rollout) -> Rollout:
        """Returns this rollout with some of its rows replaced by those of another one, in order."""
        prompt_width = max(self.answer_start, other.answer_start)
        answer_width = max(self.answer_mask.shape[1], other.answer_mask.shape[1])
        wide, new = (
            rollout._widened(prompt_width, answer_width).__dict__.copy()
            for rollout in (self, other)
        )
        index = torch.tensor(list(rows), dtype=torch.long, device=self.input_ids.device)
        for name, value in wide.items():
            if isinstance(value, Tensor):
                wide[name] = value.index_copy(0, index, new[name])
            elif isinstance(value, tuple) and value:
                items = list(value)
                for row, item in zip(rows, new[name]):
                    items[row] = item
                wide[name] = tuple(items)
        return Rollout(**wide)

    def _widened(self, prompt_width: int, answer_width: int) -> Rollout:
        left = prompt_width - self.answer_start
        right = answer_width - self.answer_mask.shape[1]

        def widen(x: Tensor) -> Tensor:
            return F.pad(x, (0, right))

        def widen_optional(x: Tensor | None) -> Tensor | None:
            return None if x is None else widen(x)

        return replace(
            self,
            input_ids=F.pad(self.input_ids, (left, right)),
            attention_mask=F.pad(self.attention_mask, (left, right)),
            answer_mask=widen(self.answer_mask),
            log_probs=widen(self.log_probs),
            ref_log_probs=widen_optional(self.ref_log_probs),
            sampler_log_probs=widen_optional(self.sampler_log_probs),
        )

    def to_responses(self, model_name: str) -> list[Response]:
        """Returns the answers as the judges read them."""
        return [
            Response(
                sample_id=prompt.sample.id,
                index=row,
                model=model_name,
                message=Message("assistant", text),
                finish_reason="stop" if ended else "length",
            )
            for prompt, row, text, ended in zip(
                self.prompts, self.global_rows, self.texts, self.ended
            )
        ]


def tokenize_prompts(
    samples: Iterable[Sample], encoder: ExampleEncoder, *, max_tokens: int
) -> tuple[list[TokenizedPrompt], list[str]]:
    """Returns the prompts of at most `max_tokens` tokens, and the sample ids of the others.

    Long prompts are left out and not truncated: a truncated prompt asks something else.
    Raises DataError if no prompt is left.
    """
    prompts: list[TokenizedPrompt] = []
    too_long: list[str] = []
    for sample in samples:
        ids = tuple(encoder.encode_text(encoder.render(sample.conversation.messages), first=True))
        # An empty prompt has no position whose logits predict the first answer token.
        if 0 < len(ids) <= max_tokens:
            prompts.append(TokenizedPrompt(sample, ids))
        else:
            too_long.append(sample.id)
    if not prompts:
        raise DataError(
            f"none of {len(too_long)} prompts fits into max_prompt = {max_tokens} tokens"
        )
    return prompts, too_long


def sample_prompt_indices(count: int, step: int, size: int, seed: int) -> list[int]:
    """Returns the `size` prompts (of `count`) of a step, counted from 0.

    The prompts are shuffled anew each epoch. The result depends on the arguments alone, so a
    resumed run needs no state of the data order.
    """
    indices: list[int] = []
    epoch_orders: dict[int, list[int]] = {}
    for position in range(step * size, (step + 1) * size):
        epoch, offset = divmod(position, count)
        if epoch not in epoch_orders:
            epoch_orders[epoch] = list(range(count))
            random.Random(stream_seed(seed, "prompts", epoch)).shuffle(epoch_orders[epoch])
        indices.append(epoch_orders[epoch][offset])
    return indices


def redraw_prompt_indices(count: int, step: int, size: int, seed: int, draw: int) -> list[int]:
    """Returns the prompts that replace those of a step in its redraw number `draw`, from 1."""
    passes = -(-size // count)
    indices = list(range(count)) * passes
    random.Random(stream_seed(seed, "redraw", step, draw)).shuffle(indices)
    return indices[:size]


def build_rollout(
    prompts: Sequence[TokenizedPrompt],
    global_rows: Sequence[int],
    answers: GeneratedAnswers,
    tokenizer: Any,
    *,
    device: Any,
    pad_id: int,
    hide_special_tokens: bool = False,
) -> Rollout:
    """Returns the padded rollout of sampled answers."""
    prompt_ids, prompt_mask = pad_rows([prompt.ids for prompt in prompts], pad_id, side="left")
    answer_ids, answer_mask = pad_rows(answers.ids, pad_id)
    special_ids = special_token_ids(tokenizer)
    # The end token that closes an answer is no part of its text.
    contents = [ids[:-1] if ended else ids for ids, ended in zip(answers.ids, answers.ended)]
    texts = tokenizer.batch_decode(
        [list(ids) for ids in contents], skip_special_tokens=hide_special_tokens
    )
    return Rollout(
        prompts=tuple(prompts),
        global_rows=tuple(global_rows),
        input_ids=torch.cat([prompt_ids, answer_ids], 1).to(device),
        attention_mask=torch.cat([prompt_mask, answer_mask], 1).to(device),
        answer_mask=answer_mask.to(device),
        # The generator allocates columns for the longest answer allowed.
        log_probs=answers.log_probs[:, : answer_ids.shape[1]].to(device),
        ended=answers.ended,
        texts=tuple(text.strip() for text in texts),
        special=tuple(not special_ids.isdisjoint(ids) for ids in contents),
    )


def special_token_ids(tokenizer: Any) -> frozenset[int]:
    """Returns the ids of the tokens that mark turns, ends and padding; not of the unknown token."""
    # Llama 3 registers the marks of turns as added tokens alone, SmolLM2 as special ones too.
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}
