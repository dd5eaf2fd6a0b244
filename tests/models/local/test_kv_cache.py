"""The cache of keys and values: growth, removal of rows, and one decoding step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from truing.models.local.attention import AttentionOptions, PrefixBlock
from truing.models.local.kv_cache import CAPACITY_MULTIPLE, DecodeStep, KVCache

KV_HEADS, DIM = 2, 4
OPTIONS = AttentionOptions(scale=0.5)


def random_tensor(heads: int, tokens: int, seed: int) -> Tensor:
    return torch.randn(heads, tokens, DIM, generator=torch.Generator().manual_seed(seed))


def make_cache(*lengths: int, slots: int = 4) -> tuple[KVCache, Tensor, Tensor]:
    """Returns a cache with rows of these lengths, and their packed keys and values."""
    k = random_tensor(KV_HEADS, sum(lengths), 1)
    v = random_tensor(KV_HEADS, sum(lengths), 2)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    cache = KVCache(slots)
    cache.add([k], [v], [(end - n, end) for n, end in zip(lengths, ends)])
    return cache, k, v


def test_rows_hold_their_spans() -> None:
    cache, k, v = make_cache(3, 5)
    assert cache.lengths == [3, 5]
    assert cache.k[0].shape == (4, KV_HEADS, CAPACITY_MULTIPLE, DIM)
    assert torch.equal(cache.k[0][0, :, :3], k[:, :3])
    assert torch.equal(cache.v[0][1, :, :5], v[:, 3:])
    assert not cache.k[0][0, :, 3:].any()


def test_the_capacity_grows_in_multiples_and_by_a_quarter_at_least() -> None:
    cache, k, _ = make_cache(3)
    assert cache.capacity == CAPACITY_MULTIPLE
    cache.grow(CAPACITY_MULTIPLE)
    assert cache.capacity == CAPACITY_MULTIPLE  # large enough
    cache.grow(CAPACITY_MULTIPLE + 1)
    assert cache.capacity == 2 * CAPACITY_MULTIPLE
    cache.grow(8 * CAPACITY_MULTIPLE)
    cache.grow(8 * CAPACITY_MULTIPLE + 1)
    assert cache.capacity == 10 * CAPACITY_MULTIPLE
    assert torch.equal(cache.k[0][0, :, :3], k)


def test_an_empty_cache_cannot_grow_without_a_shape() -> None:
    assert KVCache(2).capacity == 0
    with pytest.raises(ValueError, match="needs `like`"):
        KVCache(2).grow(1)


def test_the_last_row_moves_into_the_slot_of_a_dropped_one() -> None:
    cache, k, v = make_cache(3, 5, 2)
    assert cache.drop(0) == 2
    assert cache.lengths == [2, 5]
    assert torch.equal(cache.k[0][0, :, :2], k[:, 8:])
    assert torch.equal(cache.v[0][0, :, :2], v[:, 8:])
    assert cache.drop(1) == 1  # the last row itself: nothing moves
    assert cache.lengths == [2]


def test_a_slot_is_used_again() -> None:
    cache, _, _ = make_cache(3, 5)
    cache.drop(1)
    k, v = random_tensor(KV_HEADS, 4, 3), random_tensor(KV_HEADS, 4, 4)
    cache.add([k], [v], [(0, 4)])
    assert cache.lengths == [3, 4]
    assert torch.equal(cache.k[0][1, :, :4], k)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns the attention `[heads, D]` of one query `[heads, D]` on all keys."""
    k, v = (x.repeat_interleave(q.shape[0] // KV_HEADS, dim=0) for x in (k, v))
    weights = (torch.einsum("hd,hld->hl", q, k) * OPTIONS.scale).softmax(-1)
    return torch.einsum("hl,hld->hd", weights, v)


def test_a_decoding_step_attends_to_the_row_and_the_new_token() -> None:
    cache, k, v = make_cache(3, 5)
    q = random_tensor(4, 2, 5)
    new_k, new_v = random_tensor(KV_HEADS, 2, 6), random_tensor(KV_HEADS, 2, 7)
    step = DecodeStep(cache, torch.tensor([3, 5]))
    out = step.attend(0, q, new_k, new_v, OPTIONS)
    for row, span in enumerate((slice(0, 3), slice(3, 8))):
        keys, values = (
            torch.cat((old[:, span], new[:, row : row + 1]), dim=1)
            for old, new in ((k, new_k), (v, new_v))
        )
        assert torch.allclose(out[row], attend_plainly(q[:, row], keys, values), atol=1e-5)
    assert cache.lengths == [3, 5]
    step.commit_tokens()
    assert cache.lengths == [4, 6]
    assert torch.equal(cache.k[0][0, :, 3], new_k[:, 0])


def test_a_shared_prefix_belongs_to_its_rows_only() -> None:
    cache, k, v = make_cache(3, 5)
    prefix_k, prefix_v = random_tensor(KV_HEADS, 6, 8), random_tensor(KV_HEADS, 6, 9)
    block = PrefixBlock([prefix_k[None]], [prefix_v[None]])
    q = random_tensor(4, 2, 5)
    new_k, new_v = random_tensor(KV_HEADS, 2, 6), random_tensor(KV_HEADS, 2, 7)
    step = DecodeStep(cache, torch.tensor([3, 11]), [(block, torch.tensor([1]))])
    out = step.attend(0, q, new_k, new_v, OPTIONS)
    keys = torch.cat((k[:, :3], new_k[:, :1]), dim=1)
    values = torch.cat((v[:, :3], new_v[:, :1]), dim=1)
    assert torch.allclose(out[0], attend_plainly(q[:, 0], keys, values), atol=1e-5)
    keys = torch.cat((prefix_k, k[:, 3:], new_k[:, 1:]), dim=1)
    values = torch.cat((prefix_v, v[:, 3:], new_v[:, 1:]), dim=1)
    assert torch.allclose(out[1], attend_plainly(q[:, 1], keys, values), atol=1e-5)
