"""The torch engine: the same logits whatever the batch, and the caller's network untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from truing.core.errors import UserError
from truing.judges.moderation import engines
from truing.judges.moderation.engines import TorchEngine, make_engine, pad_inputs
from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.network import ModerationNetwork
from truing.judges.moderation.network_files import build_network


@pytest.fixture
def network() -> ModerationNetwork:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return build_network(LlamaModel(config).eval(), 3)


def random_rows() -> list[EncodedInput]:
    rng = torch.Generator().manual_seed(2)
    rows = []
    for n in (4, 30, 9, 17, 2, 30):
        ids = tuple(torch.randint(1, 50, (n,), generator=rng).tolist())
        rows.append(EncodedInput(ids, tuple(int(k > n // 2) for k in range(n))))
    return rows


def test_logits_do_not_depend_on_the_batch(network: ModerationNetwork) -> None:
    rows = random_rows()
    together = TorchEngine(network, pad_id=0, dtype="float32", device="cpu").logits(rows)
    one_by_one = TorchEngine(network, pad_id=0, dtype="float32", device="cpu", tokens=1)
    assert np.abs(together - one_by_one.logits(rows)).max() < 1e-5
    half = TorchEngine(network, pad_id=0, dtype="bfloat16", device="cpu").logits(rows)
    assert np.abs(half - together).max() < 0.05
    # The caller's network keeps its body and dtype.
    assert isinstance(network.body, LlamaModel)
    assert next(network.body.parameters()).dtype is torch.float32


def test_inputs_are_padded_on_the_right() -> None:
    rows = [EncodedInput((1, 2, 3), (0, 0, 1)), EncodedInput((4,), (0,))]
    ids, segments, mask = pad_inputs(rows, 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert segments.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_language_model_runs_in_torch(
    network: ModerationNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "prefers_int8", lambda: True)
    for name in ("auto", "onnx", "torch"):
        engine = make_engine(network, pad_id=0, digest="", engine=name, device="cpu")
        assert isinstance(engine, TorchEngine)


@pytest.mark.parametrize(
    ("prefers_int8", "dtype", "expected"),
    [(True, "auto", "onnx"), (False, "auto", "torch"), (True, "float32", "torch")],
)
def test_auto_takes_onnx_where_int8_is_faster(
    network: ModerationNetwork,
    monkeypatch: pytest.MonkeyPatch,
    prefers_int8: bool,
    dtype: str,
    expected: str,
) -> None:
    monkeypatch.setattr(engines, "prefers_int8", lambda: prefers_int8)
    monkeypatch.setattr(engines, "OnnxEngine", lambda *_, **__: "onnx")
    monkeypatch.setattr(engines, "TorchEngine", lambda *_, **__: "torch")
    network.causal = False
    assert make_engine(network, pad_id=0, digest="", dtype=dtype, device="cpu") == expected


def test_an_unknown_engine_is_named(network: ModerationNetwork) -> None:
    with pytest.raises(UserError, match="engine='onx' is unknown; did you mean 'onnx'"):
        make_engine(network, pad_id=0, digest="", engine="onx")
