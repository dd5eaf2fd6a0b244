"""Batches of pre-training (or SFT) text for the ptx loss of an RL run (InstructGPT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.train.batches import ExampleEncoder, collate_examples
from truing.train.examples import TrainingSet
from truing.train.rl.settings import RLSettings
from truing.train.rl.update import PretrainingBatches
from truing.train.settings import TrainingSettings


def pretraining_batches(
    sources: Sequence[TrainingSet], settings: RLSettings, tokenizer: Any
) -> PretrainingBatches:
    """Returns batches of pre-training (or SFT) text; a function of the gradient step alone."""
    sft_settings = TrainingSettings(
        kind="sft",
        out=settings.out,
        base=settings.base,
        template=settings.template,
        max_length=settings.max_length,
    )
    items = [item for source in sources for item in source.items]
    rows = ExampleEncoder(tokenizer, sft_settings).encode_all(items)[0]
    if not rows:
        raise PlanError("no row of the pre-training text fits into max_prompt + max_new")
    # A fixed pseudo-random order, the same in every process and after a resume.
    rows = sorted(rows, key=lambda row: digest(str(settings.seed), row.item.name))

    def batch_of(step: int) -> tuple[Tensor, Tensor, Tensor]:
        first = step * settings.ptx_batch
        batch = collate_examples(
            [rows[(first + k) % len(rows)] for k in range(settings.ptx_batch)], 0
        )
        labels = torch.where(batch.answer_mask.bool(), batch.ids, torch.full_like(batch.ids, -100))
        return batch.ids, batch.mask, labels

    return batch_of
