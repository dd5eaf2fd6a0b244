"""The direction of refusal in a model's states, and a model without it: in memory, for a while.

Arditi et al. 2024 (2406.11717): the mean state of harmful requests minus that of harmless ones is a
direction that refusals depend on. Whether a lever's refusals outlast its removal is a question of
durability. Nothing here is stored: no vector, no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from depth import next_token_logps
from torch import Tensor, nn

from truing.hf.loading import LoadedModel, pad_rows, position_ids

LARGEST_KL = 0.1
"""A direction whose removal moves the next token of harmless requests further than this, in nats,
takes more than refusals away; the limit of the paper."""
BATCH = 16


@torch.inference_mode()
def mean_states(loaded: LoadedModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Returns the mean state of the prompts' last tokens after each layer, `[layers + 1, width]`.

    Row 0 is that of the embeddings.
    """
    total: Tensor | None = None
    for start in range(0, len(prompts), BATCH):
        ids, mask = pad_rows(prompts[start : start + BATCH], 0, side="left")
        output = loaded.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids(mask),
            use_cache=False,
            output_hidden_states=True,
        )
        states = torch.stack([layer[:, -1].float().sum(0) for layer in output.hidden_states])
        total = states if total is None else total + states
    assert total is not None, "no prompts"
    return total / len(prompts)


def directions(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Returns the unit vectors from the harmless to the harmful means, one for each layer."""
    return torch.nn.functional.normalize(harmful - harmless, dim=-1)


def remove_direction(states: Tensor, direction: Tensor) -> Tensor:
    """Returns states without their part along a unit vector, in the type of the states."""
    exact = states.float()
    return (exact - (exact @ direction)[..., None] * direction).to(states.dtype)


@contextmanager
def without_direction(model: Any, direction: Tensor) -> Iterator[None]:
    """Lets no layer of a model write along a direction, as long as the context lasts.

    What the embeddings, attention and feed-forward layers add to the stream of states loses its
    part along the direction, so the stream never has one. The weights stay as they are.
    """

    def change_output(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (remove_direction(output[0], direction), *output[1:])
        return remove_direction(output, direction)

    body = model.base_model
    writers = [body.embed_tokens]
    for layer in body.layers:
        writers += [layer.self_attn, layer.mlp]
    handles = [writer.register_forward_hook(change_output) for writer in writers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def refusal_score(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], refusal: Sequence[int]
) -> float:
    """Returns the mean log-probability of the first tokens of a refusal."""
    logps = next_token_logps(loaded, prompts, [refusal] * len(prompts))
    index = torch.tensor(refusal)[:, None]
    return float(torch.stack([row.gather(1, index).sum() for row in logps]).mean())


def first_token_logps(loaded: LoadedModel, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Returns the log-probabilities of the first token of an answer, `[prompts, vocabulary]`."""
    rows = next_token_logps(loaded, prompts, [[0]] * len(prompts))
    return torch.cat([row[:1] for row in rows])


def mean_kl(before: Tensor, after: Tensor) -> float:
    """Returns the mean of KL(before ‖ after) over rows of log-probabilities, in nats."""
    return float((before.exp() * (before - after)).sum(-1).mean())


def choose_direction(refusals: Sequence[float], kls: Sequence[float]) -> int:
    """Returns the index of the direction without which the model refuses least.

    Only among those whose removal moves harmless requests by at most `LARGEST_KL`; if there is
    none, the one that moves them least.
    """
    allowed = [k for k, kl in enumerate(kls) if kl <= LARGEST_KL]
    if not allowed:
        return min(range(len(kls)), key=lambda k: kls[k])
    return min(allowed, key=lambda k: refusals[k])
