"""Log-probabilities of answer tokens without the logits of everything else.

With a vocabulary of 50,000 to 150,000 the logits take more memory than all layers. This module
applies the head to the hidden states of answer tokens alone (no prompts, no padding), a few hundred
at a time, and no logits are kept: if the head is frozen, the gradient of the hidden states is
computed with the log-probabilities; if it is trained, the logits are computed again in the backward
pass.

Answers to one prompt can share its forward pass (`grouped_answer_log_probs`): the prompt is read
once, and the answers attend to its keys and values, through which the gradients of all answers
flow back into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from truing.hf.loading import cache_argument, position_ids
from truing.train.frozen_base import FrozenLinear

# Elements of logits in memory at a time: 2^24 are 64 MiB in float32.
CHUNK_ELEMENTS = 1 << 24
# Settings of models that change logits after the head (Gemma 2, Cohere, Granite, ...).
_LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier")


def answer_log_probs(
    model: Any, ids: Tensor, mask: Tensor, answer_mask: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Returns log π of the last A tokens of each row, `[B, A]` float32; 0 outside `answer_mask`.

    `ids` and `mask` are `[B, T]`. `answer_mask` `[B, A]` marks the tokens that count; A is below T,
    since the first token of a row has no prediction. π is softmax(logits / temperature).
    """
    width = answer_mask.shape[1]
    targets, counted = ids[:, ids.shape[1] - width :], answer_mask.bool()
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask)}
    # The logits at t predict token t + 1, so one column before the answers is needed too.
    keep = {"use_cache": False, "logits_to_keep": width + 1}
    head = _find_head(model)
    if head is None:
        logits = model(**inputs, **keep).logits[:, :-1]
        return _selected_log_probs(logits, targets, temperature) * counted
    with _capture_input(head) as captured:
        model(**inputs, **keep)
    hidden = captured[0][:, :-1]
    return _scatter_log_probs(head, hidden, targets, counted, temperature)


def _scatter_log_probs(
    head: nn.Linear, hidden: Tensor, targets: Tensor, counted: Tensor, temperature: float
) -> Tensor:
    """Returns log π of the targets `[B, A]` that hidden states `[B, A, H]` predict; 0 elsewhere."""
    selected = _head_log_probs(head, hidden[counted], targets[counted], temperature)
    zeros = torch.zeros(counted.shape, dtype=selected.dtype, device=selected.device)
    return zeros.masked_scatter(counted, selected)


def grouped_answer_log_probs(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    answer_mask: Tensor,
    group_sizes: Sequence[int],
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Returns the same as `answer_log_probs`, reading each prompt once for all of its answers.

    The rows of a group are adjacent and have the same prompt: their first T - A columns are equal.
    The prompts are padded on the left. The model must be one that `can_share_prompts`.
    """
    head = _find_head(model)
    if head is None:
        raise ValueError("the model's head cannot be applied by itself: see can_share_prompts")
    width = answer_mask.shape[1]
    start = ids.shape[1] - width
    sizes = torch.tensor(group_sizes, device=ids.device)
    group_of_row = torch.repeat_interleave(torch.arange(len(sizes), device=ids.device), sizes)
    first_rows = sizes.cumsum(0) - sizes
    positions = position_ids(mask)
    with _capture_input(head) as captured:
        prompts = model(
            input_ids=ids[first_rows, :start],
            attention_mask=mask[first_rows, :start],
            position_ids=positions[first_rows, :start],
            use_cache=True,
            logits_to_keep=1,
        )
        if width > 1:
            name = cache_argument(_plain_model(model))
            cache = getattr(prompts, name)
            cache.batch_select_indices(group_of_row)
            model(
                input_ids=ids[:, start:-1],
                attention_mask=mask[:, :-1],
                position_ids=positions[:, start:-1],
                use_cache=True,
                logits_to_keep=width - 1,
                **{name: cache},
            )
    # The last token of a prompt predicts the first of each of its answers.
    hidden = torch.cat([captured[0][:, -1:][group_of_row], *captured[1:]], 1)
    return _scatter_log_probs(head, hidden, ids[:, start:], answer_mask.bool(), temperature)


def can_share_prompts(model: Any) -> bool:
    """Whether answers to one prompt can share its forward pass (`grouped_answer_log_probs`).

    They cannot if the head must not be applied by itself, if activations are computed again in the
    backward pass (there is no cache then), or if the model keeps anything but the keys and values
    of all tokens: windows of tokens, or the state of a recurrent layer.
    """
    if _find_head(model) is None:
        return False
    base = _plain_model(model)
    # transformers renames the property (`is_gradient_checkpointing` is removed in 6).
    has_new_name = hasattr(type(base), "is_activation_checkpointing")
    checkpointing = "is_activation_checkpointing" if has_new_name else "is_gradient_checkpointing"
    if getattr(base, checkpointing, False) and base.training:
        return False
    if getattr(base, "_is_stateful", False) or not getattr(base, "config", None):
        return False
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=base.config).layers
    return all(type(layer) is DynamicLayer for layer in layers)


def _plain_model(model: Any) -> Any:
    """Returns the model inside the wrappers of DDP and PEFT."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def _find_head(model: Any) -> nn.Linear | None:
    """Returns the language-model head, or None if it cannot be applied by itself.

    It cannot if the model changes the logits after the head, or if the weight is sharded: outside
    the forward pass a process has only a part of it.
    """
    base = _plain_model(model)
    get_head = getattr(base, "get_output_embeddings", None)
    head: Any = get_head() if get_head is not None else None
    config: Any = getattr(base, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    changes_logits = any(getattr(text_config, name, None) for name in _LOGIT_SETTINGS)
    # Sharded parameters (DTensor) have `full_tensor`. LoRA on the head makes it another type.
    is_plain = type(head) in (nn.Linear, FrozenLinear) and not hasattr(head.weight, "full_tensor")
    return head if is_plain and not changes_logits else None


@contextmanager
def _capture_input(head: nn.Linear) -> Iterator[list[Tensor]]:
    """Captures the input of the head during a forward pass of the model.

    The head itself then sees the last token of each row only, so that no large logits arise.
    """
    captured: list[Tensor] = []

    def capture_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        captured.append(args[0])
        return (args[0][:, -1:], *args[1:])

    handle = head.register_forward_pre_hook(capture_input, prepend=True)
    try:
        yield captured
    finally:
        handle.remove()


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """Returns logits / temperature in float32; logits in float64 (of tests) stay in float64."""
    if logits.dtype != torch.float64:
        logits = logits.float()
    return logits if temperature == 1.0 else logits / temperature


def _selected_log_probs(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Returns log π of the targets `[...]` by logits `[..., V]`."""
    logits = _scaled(logits, temperature)
    chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def _head_log_probs(head: nn.Linear, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Returns log π of the targets `[N]` that hidden states `[N, H]` predict, chunk by chunk."""
    # At least 16 tokens, so that a huge vocabulary does not make tiny products.
    chunk = max(16, CHUNK_ELEMENTS // head.out_features)
    needs_grad = torch.is_grad_enabled() and hidden.requires_grad
    chunk_log_probs = []
    for begin in range(0, len(targets), chunk):
        part, part_targets = hidden[begin : begin + chunk], targets[begin : begin + chunk]
        # The backward pass begins with the last chunk: computing that one again saves no memory.
        is_last = begin + chunk >= len(targets)
        if needs_grad and not head.weight.requires_grad:
            apply_frozen: Any = _FrozenHeadLogProbs.apply  # torch does not annotate it
            log_probs: Tensor = apply_frozen(part, part_targets, head, temperature)
        elif needs_grad and not is_last:
            log_probs = checkpoint(
                _apply_head, head, part, part_targets, temperature, use_reentrant=False
            )
        else:
            log_probs = _apply_head(head, part, part_targets, temperature)
        chunk_log_probs.append(log_probs)
    return (
        torch.cat(chunk_log_probs)
        if chunk_log_probs
        else _apply_head(head, hidden, targets, temperature)
    )


def _apply_head(head: nn.Linear, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _selected_log_probs(head(hidden), targets, temperature)


class _FrozenHeadLogProbs(torch.autograd.Function):
    """log π of targets under a frozen head; keeps d log π / d hidden `[N, H]`, not the logits."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, head: nn.Linear, temperature: float
    ) -> Tensor:
        """Returns the log-probabilities `[N]`."""
        logits = head(hidden)
        scaled = _scaled(logits, temperature)
        log_normaliser = scaled.logsumexp(-1, keepdim=True)
        index = targets.unsqueeze(-1)
        log_probs = (scaled.gather(-1, index) - log_normaliser).squeeze(-1)
        # d log π(y) / d logits = (1[y] - π) / temperature
        gradient = (scaled - log_normaliser).exp_().neg_()
        gradient.scatter_add_(-1, index, torch.ones_like(index, dtype=gradient.dtype))
        if temperature != 1.0:
            gradient /= temperature
        weight = head.weight.to(logits.dtype)
        ctx.save_for_backward((gradient.to(logits.dtype) @ weight).to(hidden.dtype))
        return log_probs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Returns the gradient of the hidden states."""
        (per_token,) = ctx.saved_tensors
        return (grads[0].unsqueeze(-1) * per_token).to(per_token.dtype), None, None, None
