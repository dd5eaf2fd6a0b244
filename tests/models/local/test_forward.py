"""The packed forward pass: grouping of segments, prefix blocks and their cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from truing.hf.loading import load_causal_lm
from truing.models.local import LocalModel
from truing.models.local.attention import PackedStep
from truing.models.local.forward import PackedForward, group_causal_segments


def test_similar_lengths_share_a_group_and_padding_is_marked() -> None:
    groups = group_causal_segments([4, 100, 3], "cpu")
    assert [tuple(g.index.shape) for g in groups] == [(1, 100), (2, 4)]
    short = groups[1]
    assert short.index.tolist() == [[0, 1, 2, 3], [104, 105, 106, 106]]
    assert short.real.tolist() == [[True] * 4, [True, True, True, False]]
    assert short.rows.tolist() == [0, 1, 2, 3, 104, 105, 106]


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [30, 2, 17, 9, 1]])
def test_every_token_is_in_one_group(lengths: list[int]) -> None:
    groups = group_causal_segments(lengths, "cpu")
    rows = sorted(row for group in groups for row in group.rows.tolist())
    assert rows == list(range(sum(lengths)))


def test_packed_segments_have_the_logits_of_separate_passes(tiny: LocalModel) -> None:
    forward = tiny.forward
    texts = ["the cat sat on the mat", "rain", "how do I repair a bicycle wheel"]
    rows = [forward.encode(text) for text in texts]
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    step = PackedStep(group_causal_segments([len(row) for row in rows], "cpu"), positions)
    with torch.inference_mode():
        packed = forward.logits(
            forward.hidden(forward.tensor([t for row in rows for t in row]), positions, step)
        )
        start = 0
        for row in rows:
            alone = forward.model(input_ids=torch.tensor([row])).logits[0].float()
            assert torch.allclose(packed[start : start + len(row)], alone, atol=1e-4)
            start += len(row)


def test_a_prefix_read_in_two_parts_equals_one_read_at_once(tiny: LocalModel) -> None:
    forward = tiny.forward
    ids = forward.encode("the cat sat on the mat and looked at the rain")
    with torch.inference_mode():
        whole = forward.read_prefix(ids)
        parts = forward.read_prefix(ids[5:], forward.read_prefix(ids[:5]))
    assert parts.length == whole.length == len(ids)
    for a, b in zip((*whole.k, *whole.v), (*parts.k, *parts.v), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_least_recently_used_prefix_is_dropped(make: Callable[..., Path]) -> None:
    loaded = load_causal_lm(str(make("llama")), dtype="float32", device="cpu")
    # A block of 4 tokens: keys and values of 3 layers, 2 heads of 16 floats.
    block_bytes = 2 * 3 * 2 * 4 * 16 * 4
    forward = PackedForward(loaded, prefix_bytes=2 * block_bytes)
    a, b, c = (tuple(range(n, n + 4)) for n in (10, 20, 30))
    with torch.inference_mode():
        block = forward.cached_prefix(a)
        assert block.bytes == block_bytes
        forward.cached_prefix(b)
        assert forward.cached_prefix(a) is block
        forward.cached_prefix(c)
    assert [forward.has_prefix(ids) for ids in (a, b, c)] == [True, False, True]
    forward.clear_prefixes()
    assert not forward.has_prefix(a)


def test_text_and_tokens(tiny: LocalModel) -> None:
    ids = tiny.forward.encode("<|im_start|>the cat<|im_end|>")
    assert ids[0] == tiny.forward.tokenizer.bos_token_id  # special tokens are parsed
    assert tiny.forward.decode(ids) == "the cat"
    assert tiny.forward.window == 256
    assert tiny.forward.dtype == torch.float32
