"""Padding and batching, device and dtype selection, and the scalar head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import UserError
from truing.hf import loading
from truing.hf.loading import ScalarModel


def test_pad_rows_on_either_side() -> None:
    ids, mask = loading.pad_rows([[1, 2, 3], [9]], 9)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = loading.pad_rows([[1, 2, 3], [4]], 0, side="left")
    assert ids.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert loading.pad_rows([], 0)[0].shape == (0, 0)


def test_position_ids_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]])
    assert loading.position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(1, 100), st.integers(1, 8))
def test_batches_cover_each_row_once_within_the_limits(
    lengths: list[int], tokens: int, rows: int
) -> None:
    batches = list(loading.batch_by_length(lengths, tokens=tokens, rows=rows))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


@pytest.mark.parametrize(
    ("flags", "dtype", "int8"),
    [
        ({"amx_bf16", "avx512_vnni"}, torch.bfloat16, False),
        ({"avx512_bf16"}, torch.bfloat16, False),
        ({"avx512_vnni"}, torch.float32, True),
        ({"avx2"}, torch.float32, False),
    ],
)
def test_dtype_follows_the_cpu(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: Any, int8: bool
) -> None:
    monkeypatch.setattr(loading, "cpu_flags", lambda: frozenset(flags))
    assert loading.select_dtype("auto", torch.device("cpu")) == dtype
    assert loading.prefers_int8() is int8
    assert loading.select_dtype("float16", torch.device("cpu")) == torch.float16


def test_unknown_dtype_and_device() -> None:
    with pytest.raises(UserError, match="dtype='bfloat' is unknown; did you mean 'bfloat16'"):
        loading.select_dtype("bfloat")
    with pytest.raises(UserError, match="device='abacus' is no device of torch"):
        loading.select_device("abacus")


def test_training_attention_is_eager_for_short_rows_on_a_cpu() -> None:
    assert loading.select_training_attention(256, torch.device("cpu")) == "eager"
    assert loading.select_training_attention(257, torch.device("cpu")) is None
    assert loading.select_training_attention(10, torch.device("cuda")) is None


def test_eos_token_ids_come_from_the_generation_configuration_first() -> None:
    tokenizer = SimpleNamespace(eos_token_id=9)

    def model(generation: Any, config: Any) -> Any:
        return SimpleNamespace(
            generation_config=SimpleNamespace(eos_token_id=generation),
            config=SimpleNamespace(eos_token_id=config),
        )

    assert loading.eos_token_ids(model([1, 2], 3), tokenizer) == {1, 2}
    assert loading.eos_token_ids(model(None, 3), tokenizer) == {3}
    assert loading.eos_token_ids(model(None, None), tokenizer) == {9}
    nothing = SimpleNamespace(eos_token_id=None)
    assert loading.eos_token_ids(model(None, None), nothing) == frozenset()


def test_context_length_falls_back_to_2048() -> None:
    for config, length in (
        (SimpleNamespace(max_position_embeddings=77), 77),
        (SimpleNamespace(n_positions=5), 5),
        (SimpleNamespace(), 2048),
        (SimpleNamespace(get_text_config=lambda: SimpleNamespace(n_positions=6)), 6),
    ):
        assert loading.context_length(SimpleNamespace(config=config)) == length


def test_last_token_values_ignore_padding_on_either_side() -> None:
    values = torch.arange(8.0).reshape(2, 4)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    assert ScalarModel.last_token_values(values, mask).tolist() == [1.0, 7.0]


def test_scalar_model_round_trips_and_ignores_left_padding(tmp_path: Path) -> None:
    from tests.models.local.conftest import SIZES, tokenizer
    from transformers import LlamaConfig, LlamaModel, set_seed

    set_seed(0)
    words = tokenizer()
    model = ScalarModel(LlamaModel(LlamaConfig(vocab_size=len(words), **SIZES))).eval()
    model.save(tmp_path / "reward", words)
    loaded, _ = loading.load_scalar_model(tmp_path / "reward", dtype="float32", device="cpu")
    scores = []
    with torch.inference_mode():
        for side in ("left", "right"):
            ids, mask = loading.pad_rows([[3, 4, 5], [6]], 0, side=side)  # type: ignore[arg-type]
            scores += [m.last_token_values(m(ids, mask), mask) for m in (model, loaded)]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"no head\.safetensors"):
        loading.load_scalar_model(tmp_path)
