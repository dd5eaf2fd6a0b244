"""Prompts as token rows, the prompts of each step, and a rollout: answers with their log-probabilities.

Prompts are padded on the left, answers on the right, so that every answer begins at the same column. Masks come from
lengths, never from ids: a pad token that equals the end token hides nothing, and a drawn `<unk>` is a real token.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import DataError
from truing.core.types import Response, Sample, stream_seed
from truing.hf.loading import pad_rows
from truing.train.batches import ExampleEncoder


@dataclass(frozen=True)
class Prompt:
    """A sample and the token ids that the model reads before it answers."""

    sample: Sample
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Answered:
    """Answers as they were drawn: ids (the end token included), log-probabilities `[B, A]`, whether each one ended."""

    ids: tuple[tuple[int, ...], ...]
    log_probs: Tensor
    ended: tuple[bool, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Rollout:
    """One step's answers on this process; `[B, P + A]` ids and mask, `[B, A]` everything of the answers.

    `index` is each answer's place among all processes; answers to one prompt stand next to one another.
    """

    prompts: tuple[Prompt, ...]
    index: tuple[int, ...]
    ids: Tensor
    mask: Tensor
    answer: Tensor
    log_probs: Tensor
    ended: tuple[bool, ...]
    texts: tuple[str, ...]
    ref_log_probs: Tensor | None = None

    @property
    def start(self) -> int:
        """The column where the answers begin."""
        return int(self.ids.shape[1] - self.answer.shape[1])

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer, `[B]`."""
        return self.answer.sum(-1)

    @property
    def targets(self) -> Tensor:
        """The answers' ids, `[B, A]`."""
        return self.ids[:, self.start :]

    def take(self, rows: Sequence[int]) -> Rollout:
        """Some of its rows."""
        at = torch.as_tensor(list(rows), device=self.ids.device)
        some = {k: getattr(self, k)[at] for k in ("ids", "mask", "answer", "log_probs")}
        ref = None if self.ref_log_probs is None else self.ref_log_probs[at]
        lists = {
            k: tuple(getattr(self, k)[r] for r in rows)
            for k in ("prompts", "index", "ended", "texts")
        }
        return replace(self, ref_log_probs=ref, **some, **lists)

    def responses(self, model: str) -> list[Response]:
        """What the judges read."""
        from truing.core.types import Message

        return [
            Response(
                sample_id=p.sample.id,
                index=at,
                model=model,
                message=Message("assistant", text),
                finish_reason="stop" if ended else "length",
            )
            for p, at, text, ended in zip(self.prompts, self.index, self.texts, self.ended)
        ]


def read_prompts(
    samples: Iterable[Sample], encoder: ExampleEncoder, *, longest: int
) -> tuple[list[Prompt], list[str]]:
    """Prompts whose tokens fit into `longest`, and the ids of those that do not: a cut prompt asks something else."""
    kept: list[Prompt] = []
    left: list[str] = []
    for sample in samples:
        ids = tuple(encoder.encode_text(encoder.render(sample.conversation.messages), first=True))
        if 0 < len(ids) <= longest:
            kept.append(Prompt(sample, ids))
        else:
            left.append(sample.id)
    if not kept:
        raise DataError(f"none of {len(left)} prompts fits into max_prompt = {longest} tokens")
    return kept, left


def draw_prompts(count: int, step: int, size: int, seed: int) -> list[int]:
    """Which prompts step `step` (from 0) asks: epoch after epoch, shuffled; a pure function of its arguments."""
    chosen: list[int] = []
    orders: dict[int, list[int]] = {}
    for at in range(step * size, (step + 1) * size):
        epoch, place = divmod(at, count)
        if epoch not in orders:
            orders[epoch] = list(range(count))
            random.Random(stream_seed(seed, "prompts", epoch)).shuffle(orders[epoch])
        chosen.append(orders[epoch][place])
    return chosen


def assemble(
    prompts: Sequence[Prompt],
    index: Sequence[int],
    answered: Answered,
    tokenizer: Any,
    *,
    device: Any,
    fill: int,
) -> Rollout:
    """The padded rollout of drawn answers."""
    left, left_mask = pad_rows([p.ids for p in prompts], fill, side="left")
    right, right_mask = pad_rows(answered.ids, fill)
    texts = tokenizer.batch_decode([list(a) for a in answered.ids], skip_special_tokens=True)
    width = right.shape[1]
    return Rollout(
        tuple(prompts),
        tuple(index),
        torch.cat([left, right], 1).to(device),
        torch.cat([left_mask, right_mask], 1).to(device),
        right_mask.to(device),
        answered.log_probs[:, :width].to(device),
        answered.ended,
        tuple(t.strip() for t in texts),
    )
