"""Local models: the greedy tokens of transformers, streaming, specs, and damaged folders."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.local.generation import ASKS, answers, texts

from truing.core.errors import UserError
from truing.core.protocols import LogprobModel, Model, StreamingModel
from truing.core.types import Conversation, Sampling
from truing.hf.loading import load_causal_lm, pad_rows
from truing.models.local import LocalModel
from truing.models.local.model import _stable_length
from truing.models.local.template import ChatTemplate
from truing.specs.resolve import resolve


def reference(path: str, asks: Sequence[Conversation], n: int, *, side: Any = "left") -> list[str]:
    """What transformers' own `generate` writes, one prompt at a time (or left-padded together)."""
    loaded = load_causal_lm(path, dtype="float32", device="cpu")
    template = ChatTemplate(loaded.tokenizer)
    made = []
    for ask in asks:
        ids, mask = pad_rows([template.prompt(ask).ids], loaded.tokenizer.pad_token_id, side=side)
        out = loaded.model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=n, do_sample=False
        )
        made.append(loaded.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return made


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"template": False, "bos": True}),
    ("mistral", {"sliding_window": 24}),
    ("qwen3", {}),
    ("gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}),
    (
        "gemma3_text",
        {"sliding_window": 24, "query_pre_attn_scalar": 16, "tie_word_embeddings": False},
    ),
    ("granite", {"logits_scaling": 4.0}),
    (
        "phi3",
        {
            "rope_parameters": {
                "rope_theta": 1e4,
                "rope_type": "default",
                "partial_rotary_factor": 1.0,
            }
        },
    ),
    ("gpt_neox", {"rotary_pct": 0.5}),
    ("gpt2", {"tie_word_embeddings": False}),
]


@pytest.mark.parametrize(
    ("kind", "more"), KINDS, ids=lambda v: v if isinstance(v, str) else "-".join(v)[:24] or "plain"
)
def test_greedy_is_transformers_own(
    make: Callable[..., Path], kind: str, more: dict[str, Any]
) -> None:
    path = str(make(kind, **more))
    mine = LocalModel.load(path, dtype="float32", device="cpu", batch=5)
    wanted = reference(path, ASKS, 24)
    assert texts(mine, ASKS, Sampling(max_tokens=24)) == wanted
    assert len(set(wanted)) > 3  # the models do say different things


def test_the_real_model_too(smollm2: LocalModel) -> None:
    # Two alone, and three with a shared system message of which one is long.
    wanted = reference("smollm2", ASKS[:5], 8)
    assert texts(smollm2, ASKS[:5], Sampling(max_tokens=8)) == wanted
    made = answers(smollm2, ASKS[2:5], Sampling(max_tokens=2))
    assert all(
        a.usage.cached_tokens >= 16 for (a,) in made
    )  # the shared system message was read once


def test_padding_on_either_side_is_the_same_model(tiny: LocalModel) -> None:
    """Rows carry masks and positions, so that pad = eos is safe and left padding equals right padding."""
    from truing.hf.loading import position_ids

    rows = [list(tiny.template.prompt(ask).ids) for ask in ASKS]
    ends = []
    with torch.inference_mode():
        sides: tuple[Any, ...] = ("left", "right")
        for side in sides:
            ids, mask = pad_rows(rows, tiny.forward.tokenizer.pad_token_id, side=side)
            out = tiny.forward.model(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)
            ).logits
            last = [-1] * len(rows) if side == "left" else [len(r) - 1 for r in rows]
            ends.append(torch.stack([out[i, at] for i, at in enumerate(last)]))
    assert torch.allclose(ends[0], ends[1], atol=1e-4)
    assert any(
        tiny.forward.tokenizer.eos_token_id in row for row in rows
    )  # pad = eos stands inside real prompts


def test_a_stream_is_the_answer_in_pieces(tiny: LocalModel) -> None:
    async def pieces() -> list[str]:
        return [p async for p in tiny.stream(ASKS[0], Sampling(max_tokens=30))]

    made = asyncio.run(pieces())
    assert len(made) > 1
    assert "".join(made) == texts(tiny, ASKS[:1], Sampling(max_tokens=30))[0]


def test_a_folder_cannot_claim_a_hash(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "received"
    shutil.copytree(make("llama"), folder)
    plain = resolve(f"local:{folder},dtype=float32", "model").lineage
    claimed = {"lineage": {"name": "rl", "hash": "0123", "base": "a large model"}}
    (folder / "truing.json").write_text(json.dumps(claimed))
    lineage = resolve(f"local:{folder},dtype=float32", "model").lineage
    assert lineage.base == "a large model"
    assert lineage.hash == plain.hash


def test_specs_and_what_can_be_wrong_with_them(make: Callable[..., Path], tmp_path: Path) -> None:
    path = make("llama")
    model = resolve(f"local:{path},dtype=float32,batch=3", "model")
    assert (
        isinstance(model, Model)
        and isinstance(model, LogprobModel)
        and isinstance(model, StreamingModel)
    )
    assert isinstance(model, LocalModel) and model.dtype == "float32"
    assert model.lineage.base_sha256
    half = resolve(f"local:{path},dtype=bfloat16", "model")
    assert half.lineage.hash != model.lineage.hash
    for spec, word in (
        (f"local:{path},batch=0", "less than 1"),
        (f"local:{path},batsh=3", "unknown argument 'batsh'"),
        (f"local:{path},dtype=float99", "float99"),
        (
            f"local:{path},device=cuda"
            if not torch.cuda.is_available()
            else f"local:{path},device=nope",
            "device",
        ),
        ("local:smollm3", "did you mean 'smollm2'"),
        ("local:./no/such", "no such folder"),
        (f"local:{tmp_path}", "no config.json"),
    ):
        with pytest.raises(UserError, match=word):
            resolve(spec, "model")


def test_a_damaged_folder_is_one_clear_line(make: Callable[..., Path], tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(make("llama"), broken)
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot be loaded"):
        resolve(f"local:{broken}", "model")
    shutil.copytree(make("llama"), tmp_path / "mute")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "mute" / file).unlink()
    with pytest.raises(UserError, match="tokenizer cannot be loaded"):
        resolve(f"local:{tmp_path / 'mute'}", "model")


@pytest.mark.parametrize(
    ("text", "stop", "length"),
    [
        ("abc", (), 3),
        ("abc\ufffd\ufffd", (), 3),  # an incomplete character
        ("abc", ("cd",), 2),  # may become a stop string
        ("abcd", ("x", "cdef"), 2),
        ("abc", ("x",), 3),
    ],
)
def test_text_that_may_change_is_held_back(text: str, stop: tuple[str, ...], length: int) -> None:
    assert _stable_length(text, stop) == length


def test_packed_weights_give_the_same_likelihoods(make: Callable[..., Path]) -> None:
    path = str(make("llama"))
    packed = LocalModel.load(path, dtype="bfloat16", device="cpu")
    plain = LocalModel(load_causal_lm(path, dtype="bfloat16", device="cpu"))
    exact = LocalModel.load(path, dtype="float32", device="cpu")
    choices = [" sat on the mat", " barked"]
    values = [
        np.concatenate(asyncio.run(model.logprobs("the cat", choices)))
        for model in (packed, plain, exact)
    ]
    # Small layers may round elsewhere than a plain product; neither is nearer to float32.
    errors = [float(np.abs(v - values[2]).max()) for v in values[:2]]
    assert errors[0] < 0.2 and errors[0] < 3 * errors[1] + 0.02
    assert np.abs(values[0] - values[1]).max() < 0.1
