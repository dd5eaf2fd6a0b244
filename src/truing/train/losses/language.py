"""Language-model losses: supervised fine-tuning, pre-training mix (ptx), context distillation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from truing.train.losses.tensors import Reduction, masked_mean

IGNORE = -100


def _to_single_precision(logits: Tensor) -> Tensor:
    """Returns float32 logits of half-precision ones: a softmax over a large vocabulary needs it."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Returns log π of each token given those before it.

    `[B, T-1]` from logits `[B, T, V]` and ids `[B, T]`: the first token has none.
    """
    log_probs = torch.log_softmax(_to_single_precision(logits[:, :-1]), dim=-1)
    return log_probs.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)


def sft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Shifted cross-entropy, mean over all tokens whose label is not -100; 0 if there is none."""
    targets = labels[:, 1:].reshape(-1)
    flat_logits = _to_single_precision(logits[:, :-1].reshape(-1, logits.shape[-1]))
    # The mean of cross_entropy is NaN without a target, so the sum is divided here.
    total = F.cross_entropy(flat_logits, targets, ignore_index=IGNORE, reduction="sum")
    return total / (targets != IGNORE).sum().clamp(min=1)


def ptx_loss(logits: Tensor, labels: Tensor, *, coefficient: float = 16.0) -> Tensor:
    """coefficient × language-model loss on pre-training (or SFT) text.

    The ptx mix of InstructGPT (Ouyang et al. 2022, 2203.02155).
    """
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
    """KL of the next-token distributions at the positions of the mask, scaled by temperature².

    Context distillation (Askell et al. 2021, 2112.00861): the teacher is the model with its prompt
    in front, the student the model without. `forward` is KL(teacher ‖ student), `reverse`
    KL(student ‖ teacher). Logits are `[B, T, V]`, the mask `[B, T]`; logits at `t` predict the same
    token on both sides. The teacher gets no gradient.
    """
    student = torch.log_softmax(_to_single_precision(student_logits) / temperature, -1)
    teacher = torch.log_softmax(teacher_logits.detach().to(student.dtype) / temperature, -1)
    if kind == "forward":
        kl = (teacher.exp() * (teacher - student)).sum(-1)
    elif kind == "reverse":
        kl = (student.exp() * (student - teacher)).sum(-1)
    else:
        raise ValueError(f"distillation kind {kind!r} is neither 'forward' nor 'reverse'")
    # The gradient of a softened KL shrinks with 1 / temperature² (Hinton et al. 2015).
    return temperature**2 * masked_mean(kl, mask, reduction)
