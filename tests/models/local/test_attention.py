"""Attention over packed rows and shared prefixes, against one softmax over all keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from truing.models.local.attention import (
    AttentionOptions,
    PackedStep,
    PrefixBlock,
    SegmentGroup,
    attend,
    attend_prefix,
    merge_attention,
)
from truing.models.local.forward import group_causal_segments

HEADS, KV_HEADS, DIM = 4, 2, 8
OPTIONS = [
    AttentionOptions(scale=0.4),
    AttentionOptions(scale=0.4, softcap=2.0),
    AttentionOptions(scale=0.4, window=5),
]


def random_tensors(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries, keys and values `[heads, tokens, DIM]`."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(HEADS, tokens, DIM, generator=generator)
    k = torch.randn(KV_HEADS, tokens, DIM, generator=generator)
    v = torch.randn(KV_HEADS, tokens, DIM, generator=generator)
    return q, k, v


def full_attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions) -> Tensor:
    """Returns causal attention `[t, heads, DIM]` of the last t positions, by a plain softmax."""
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=0) for x in (k, v))
    scores = q @ k.transpose(1, 2) * options.scale
    if options.softcap is not None:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    n, total = scores.shape[1:]
    query = torch.arange(total - n, total)[:, None]
    key = torch.arange(total)[None]
    visible = key <= query
    if options.window is not None:
        visible &= query - key < options.window
    return (scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v).transpose(0, 1)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_attend_returns_softmax_and_log_sum_exp(softcap: float | None) -> None:
    q, k, v = (x[None, :KV_HEADS] for x in random_tensors(6))
    out, lse = attend(q, k, v, None, AttentionOptions(scale=0.4, softcap=softcap))
    scores = q @ k.transpose(-1, -2) * 0.4
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    assert torch.allclose(out, scores.softmax(-1) @ v, atol=1e-5)
    assert torch.allclose(lse, scores.logsumexp(-1), atol=1e-5)


def test_merging_weighs_by_score_mass() -> None:
    first, second = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    # Three times the mass on the second: exp(lse) of 1 and 3.
    merged = merge_attention(first, torch.tensor([[0.0]]), second, torch.log(torch.tensor([[3.0]])))
    assert torch.allclose(merged, torch.full((1, 1, 2), 0.75))
    # A block without mass (wholly masked) changes nothing and gives no NaN.
    unchanged = merge_attention(first, torch.tensor([[0.0]]), second, torch.tensor([[-1e30]]))
    assert torch.equal(unchanged, first)


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "softcap", "window"])
def test_attention_merged_over_a_prefix_block_is_full_attention(options: AttentionOptions) -> None:
    prefix, new = 7, 6
    q, k, v = random_tensors(prefix + new)
    block = PrefixBlock([k[None, :, :prefix]], [v[None, :, :prefix]])
    step = PackedStep(
        group_causal_segments([new], "cpu"), torch.arange(prefix, prefix + new), block
    )
    out = step.attend(0, q[:, prefix:], k[:, prefix:], v[:, prefix:], options)
    assert torch.allclose(out, full_attention(q[:, prefix:], k, v, options), atol=1e-5)


def test_segments_behind_a_shared_prefix_do_not_see_each_other() -> None:
    prefix, lengths = 5, [3, 1, 4]
    options = OPTIONS[0]
    q, k, v = random_tensors(prefix + sum(lengths))
    block = PrefixBlock([k[None, :, :prefix]], [v[None, :, :prefix]])
    positions = torch.cat([torch.arange(prefix, prefix + n) for n in lengths])
    step = PackedStep(group_causal_segments(lengths, "cpu"), positions, block, keep=True)
    out = step.attend(0, q[:, prefix:], k[:, prefix:], v[:, prefix:], options)
    start = prefix
    for n in lengths:
        own = slice(start, start + n)
        keys, values = (torch.cat((x[:, :prefix], x[:, own]), dim=1) for x in (k, v))
        expected = full_attention(q[:, own], keys, values, options)
        assert torch.allclose(out[start - prefix : start - prefix + n], expected, atol=1e-5)
        start += n
    assert torch.equal(step.k[0], k[:, prefix:]) and torch.equal(step.v[0], v[:, prefix:])


def test_a_mask_of_visibility_replaces_the_causal_order() -> None:
    q, k, v = random_tensors(3)
    # Tokens 1 and 2 both follow token 0 and do not see each other.
    sees = torch.tensor([[[True, False, False], [True, True, False], [True, False, True]]])
    group = SegmentGroup(torch.arange(3)[None], torch.ones(1, 3, dtype=torch.bool), sees)
    out = PackedStep([group], torch.tensor([0, 1, 1])).attend(0, q, k, v, OPTIONS[0])
    branch = [0, 2]
    expected = full_attention(q[:, branch], k[:, branch], v[:, branch], OPTIONS[0])
    assert torch.allclose(out[branch], expected, atol=1e-5)


def test_a_block_grows_and_knows_its_size() -> None:
    _, k, v = random_tensors(5)
    block = PrefixBlock([k[None, :, :3]], [v[None, :, :3]]).then([k[:, 3:]], [v[:, 3:]])
    assert block.length == 5
    assert torch.equal(block.k[0], k[None]) and torch.equal(block.v[0], v[None])
    assert block.bytes == 2 * KV_HEADS * 5 * DIM * 4
    assert PrefixBlock([], []).length == 0


def test_attend_prefix_shapes_follow_the_queries() -> None:
    q, k, v = random_tensors(4)
    block = PrefixBlock([k[None]], [v[None]])
    out, lse = attend_prefix(q, block, 0, OPTIONS[0], torch.arange(4, 8))
    assert out.shape == (4, HEADS, DIM) and lse.shape == (4, HEADS)
    keys = k.repeat_interleave(2, dim=0)
    scores = q @ keys.transpose(1, 2) * 0.4
    assert torch.allclose(lse, scores.logsumexp(-1).T, atol=1e-5)
