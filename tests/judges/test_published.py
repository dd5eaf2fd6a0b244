"""Published reward models: which folders are read, and where their score comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.local.conftest import SIZES, tokenizer

from truing.core.errors import UserError
from truing.hf.weights import find_weights
from truing.judges.published import load_published_model


def write_classifier(folder: Path, *, outputs: int = 1) -> Any:
    """Writes a tiny random sequence classifier and returns it."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    words = tokenizer()
    torch.manual_seed(3)
    config = LlamaConfig(
        **{**SIZES, "num_hidden_layers": 1, "vocab_size": len(words)},
        num_labels=outputs,
        pad_token_id=words.pad_token_id,
    )
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model


def load(folder: Path) -> tuple[Any, Any]:
    return load_published_model(find_weights(str(folder)), dtype="float32", device="cpu")


def test_the_score_is_transformers_own(tmp_path: Path) -> None:
    published = write_classifier(tmp_path)
    model, words = load(tmp_path)
    assert not any(p.requires_grad for p in model.parameters())
    ids = torch.tensor([words("the cat sat on the mat").input_ids])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        expected = published(input_ids=ids, attention_mask=mask).logits[0, 0]
        hidden = model.body(input_ids=ids, attention_mask=mask).last_hidden_state
        score = model.head(hidden)[0, -1, 0]
    assert float(score) == pytest.approx(float(expected), abs=1e-5)


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path, outputs=3)
    with pytest.raises(UserError, match="gives 3 numbers; a reward or cost model gives one"):
        load(tmp_path)


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["LlamaForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"config\.json names LlamaForCausalLM, no sequence"):
        load(tmp_path)
