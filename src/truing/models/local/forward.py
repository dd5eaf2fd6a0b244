"""One transformers model seen as a function of packed tokens: hidden states, logits, prefix blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from truing.core.errors import UserError
from truing.hf.loading import LoadedModel, context_length, eos_token_ids, limit_torch_threads
from truing.models.local.attention import NAME, Block, Group, Packed, Step, during, register


class Forward:
    """Runs a loaded causal model; not for several threads at once."""

    def __init__(self, loaded: LoadedModel, *, prefix_bytes: int = 256 << 20) -> None:
        register()
        model = loaded.model
        if not getattr(model, "_supports_attention_backend", False):
            raise UserError(
                f"local:{loaded.weights.name}: {type(model).__name__} has no replaceable attention"
            )
        model.set_attn_implementation(NAME)
        self.model = model
        self.body = model.base_model
        self.head = model.get_output_embeddings()
        self.tokenizer = loaded.tokenizer
        self.window = context_length(model)
        self.ends = eos_token_ids(model, loaded.tokenizer)
        config = model.config.get_text_config()
        self._cap = getattr(config, "final_logit_softcapping", None)
        scale = getattr(config, "logits_scaling", None)
        self._scale = 1.0 / scale if scale else getattr(config, "logit_scale", None)
        self._blocks: OrderedDict[tuple[int, ...], Block] = OrderedDict()
        self._limit = prefix_bytes
        limit_torch_threads()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic in use."""
        return next(self.model.parameters()).dtype

    def hidden(self, ids: Tensor, at: Tensor, step: Step) -> Tensor:
        """Last hidden states `[T, E]` of packed tokens at their positions."""
        nothing = torch.empty(
            1, 1, 1, 1, device=ids.device
        )  # a prepared mask: transformers makes none
        with during(step):
            out = self.body(
                input_ids=ids[None], attention_mask=nothing, position_ids=at[None], use_cache=False
            )
        return out.last_hidden_state[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[n, V]` in float32 of hidden states `[n, E]`."""
        made = self.head(hidden)
        if self._scale is not None:
            made = made * self._scale
        made = made.float()
        return torch.tanh(made / self._cap) * self._cap if self._cap is not None else made

    def block(self, ids: Sequence[int], base: Block | None = None) -> Block:
        """Keys and values of tokens that come first (or after `base`)."""
        start = base.length if base is not None else 0
        row, where = self.tensor(ids), torch.arange(start, start + len(ids), device=self.device)
        step = Packed([causal([len(ids)], self.device)[0]], where, base, keep=True)
        self.hidden(row, where, step)
        if base is not None and base.length:
            return base.then(step.k, step.v)
        return Block(
            [k.unsqueeze(0).contiguous() for k in step.k],
            [v.unsqueeze(0).contiguous() for v in step.v],
        )

    def stored(self, ids: tuple[int, ...]) -> Block:
        """As `block`, kept for the next time; the least lately used are dropped beyond the memory limit."""
        found = self._blocks.get(ids)
        if found is None:
            found = self._blocks[ids] = self.block(ids)
            while (
                len(self._blocks) > 1 and sum(b.bytes for b in self._blocks.values()) > self._limit
            ):
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(ids)
        return found

    def knows(self, ids: tuple[int, ...]) -> bool:
        """Whether a prefix is stored."""
        return ids in self._blocks

    def forget(self) -> None:
        """Drops stored prefixes (the weights have changed)."""
        self._blocks.clear()

    def tensor(self, values: Sequence[int]) -> Tensor:
        """Whole numbers on the model's device."""
        return torch.tensor(list(values), dtype=torch.long, device=self.device)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands (special tokens in it are read, none are added)."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids without special tokens."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def causal(lengths: Sequence[int], device: Any, *, waste: float = 0.25) -> list[Group]:
    """Groups for segments that lie one after another, each causal in itself; similar lengths go together."""
    starts = [0]
    for n in lengths:
        starts.append(starts[-1] + n)
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups: list[Group] = []
    at = 0
    while at < len(order):
        wide = lengths[order[at]]
        end = at
        while end < len(order) and lengths[order[end]] >= wide * (1 - waste) - 8:
            end += 1
        chosen = order[at:end]
        offsets = torch.arange(wide)
        sizes = torch.tensor([lengths[i] for i in chosen])[:, None]
        index = torch.tensor([starts[i] for i in chosen])[:, None] + torch.minimum(
            offsets[None], sizes - 1
        )
        groups.append(Group(index.to(device), (offsets[None] < sizes).to(device)))
        at = end
    return groups
