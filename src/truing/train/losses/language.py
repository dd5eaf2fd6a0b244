"""Language-model losses: supervised, pre-training mix (ptx), context distillation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from truing.train.losses.tensors import Reduction, masked_mean

IGNORE = -100


def _wide(logits: Tensor) -> Tensor:
    """Half precision made single before a softmax over a large vocabulary."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """log π of each token given those before it: `[B, T-1]` from logits `[B, T, V]` and ids `[B, T]`."""
    scores = torch.log_softmax(_wide(logits[:, :-1]), dim=-1)
    return scores.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)


def sft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Shifted cross-entropy, mean over all tokens whose label is not -100; 0 where there is none."""
    aim = labels[:, 1:].reshape(-1)
    flat = _wide(logits[:, :-1].reshape(-1, logits.shape[-1]))
    total = F.cross_entropy(flat, aim, ignore_index=IGNORE, reduction="sum")
    return total / (aim != IGNORE).sum().clamp(min=1)


def ptx_loss(logits: Tensor, labels: Tensor, *, coefficient: float = 16.0) -> Tensor:
    """coefficient × language-model loss on pre-training (or SFT) text: the ptx mix of InstructGPT (2203.02155)."""
    return coefficient * sft_loss(logits, labels)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    *,
    kind: Literal["forward", "reverse"] = "forward",
    temperature: float = 1.0,
    reduction: Reduction = "row",
) -> Tensor:
    """KL of the whole next-token distribution at the positions of the mask; logits `[B, T, V]`, mask `[B, T]`.

    Context distillation (Askell et al. 2021, 2112.00861): the teacher is the model with its prompt in front, the
    student the model without; `forward` is KL(teacher ‖ student), `reverse` KL(student ‖ teacher). The teacher gets
    no gradient. Positions correspond: logits at `t` predict the same token on both sides. Scaled by temperature².
    """
    student = torch.log_softmax(_wide(student_logits) / temperature, -1)
    teacher = torch.log_softmax(teacher_logits.detach().to(student.dtype) / temperature, -1)
    if kind == "forward":
        kl = (teacher.exp() * (teacher - student)).sum(-1)
    elif kind == "reverse":
        kl = (student.exp() * (student - teacher)).sum(-1)
    else:
        raise ValueError(f"distillation kind {kind!r} is neither 'forward' nor 'reverse'")
    return temperature**2 * masked_mean(kl, mask, reduction)
