"""A transformers model as a function of packed tokens: hidden states, logits, prefix blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import UserError
from truing.hf.loading import LoadedModel, context_length, eos_token_ids, limit_torch_threads
from truing.models.local.attention import (
    ATTENTION_NAME,
    AttentionStep,
    PackedStep,
    PrefixBlock,
    SegmentGroup,
    register_attention,
    use_step,
)


class PackedForward:
    """Runs a loaded causal model; not thread-safe."""

    def __init__(self, loaded: LoadedModel, *, prefix_bytes: int = 256 << 20) -> None:
        register_attention()
        model = loaded.model
        if not getattr(model, "_supports_attention_backend", False):
            raise UserError(
                f"local:{loaded.weights.name}: {type(model).__name__} has no replaceable attention"
            )
        model.set_attn_implementation(ATTENTION_NAME)
        self.model = model
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        self.tokenizer = loaded.tokenizer
        self.window = context_length(model)
        self.ends = eos_token_ids(model, loaded.tokenizer)
        config = model.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)
        scale = getattr(config, "logits_scaling", None)
        # Granite divides the logits by `logits_scaling`, Cohere multiplies them by `logit_scale`;
        # their forward() does it, but here the body and the head are called separately.
        self._scale = 1.0 / scale if scale else getattr(config, "logit_scale", None)
        self._blocks: OrderedDict[tuple[int, ...], PrefixBlock] = OrderedDict()
        self._limit = prefix_bytes
        limit_torch_threads()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    def hidden(self, ids: Tensor, positions: Tensor, step: AttentionStep) -> Tensor:
        """Returns the last hidden states `[T, E]` of packed tokens `[T]` at their positions."""
        prepared_mask = torch.empty(
            1, 1, 1, 1, device=ids.device
        )  # a prepared mask: transformers makes none
        with use_step(step):
            out = self.body(
                input_ids=ids[None],
                attention_mask=prepared_mask,
                position_ids=positions[None],
                use_cache=False,
            )
        states: Tensor = out.last_hidden_state[0]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits `[n, V]` in float32 of hidden states `[n, E]`."""
        logits: Tensor = self.head(hidden)
        if self._scale is not None:
            logits = logits * self._scale
        # float32 before the cap and the softmax: bfloat16 keeps about three significant digits.
        logits = logits.float()
        return torch.tanh(logits / self._cap) * self._cap if self._cap is not None else logits

    def read_prefix(self, ids: Sequence[int], base: PrefixBlock | None = None) -> PrefixBlock:
        """Returns the keys and values of tokens at the start (or after `base`)."""
        start = base.length if base is not None else 0
        row, positions = self.tensor(ids), torch.arange(start, start + len(ids), device=self.device)
        step = PackedStep(
            [group_causal_segments([len(ids)], self.device)[0]], positions, base, keep=True
        )
        self.hidden(row, positions, step)
        if base is not None and base.length:
            return base.then(step.k, step.v)
        return PrefixBlock(
            [k.unsqueeze(0).contiguous() for k in step.k],
            [v.unsqueeze(0).contiguous() for v in step.v],
        )

    def cached_prefix(self, ids: tuple[int, ...]) -> PrefixBlock:
        """As `read_prefix`, cached; the least recently used are dropped beyond the memory limit."""
        block = self._blocks.get(ids)
        if block is None:
            block = self._blocks[ids] = self.read_prefix(ids)
            # At least the newest block stays, even if it alone exceeds the limit.
            while (
                len(self._blocks) > 1 and sum(b.bytes for b in self._blocks.values()) > self._limit
            ):
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(ids)
        return block

    def has_prefix(self, ids: tuple[int, ...]) -> bool:
        """Whether a prefix is cached."""
        return ids in self._blocks

    def clear_prefixes(self) -> None:
        """Drops the cached prefixes (after a change of the weights)."""
        self._blocks.clear()

    def tensor(self, values: Sequence[int]) -> Tensor:
        """Returns integers as a tensor on the model's device."""
        return torch.tensor(list(values), dtype=torch.long, device=self.device)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text; special tokens in it are parsed, none are added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of token ids without special tokens."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def group_causal_segments(
    lengths: Sequence[int], device: Any, *, waste: float = 0.25
) -> list[SegmentGroup]:
    """Returns groups of consecutive segments, each causal in itself; similar lengths go
    together.
    """
    starts = [0]
    for n in lengths:
        starts.append(starts[-1] + n)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[SegmentGroup] = []
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        end = start
        # The constant lets short segments share a group, where a relative bound alone would give
        # a group to each length.
        while end < len(order) and lengths[order[end]] >= longest * (1 - waste) - 8:
            end += 1
        members = order[start:end]
        offsets = torch.arange(longest)
        sizes = torch.tensor([lengths[i] for i in members])[:, None]
        index = torch.tensor([starts[i] for i in members])[:, None] + torch.minimum(
            offsets[None], sizes - 1
        )
        groups.append(SegmentGroup(index.to(device), (offsets[None] < sizes).to(device)))
        start = end
    return groups
