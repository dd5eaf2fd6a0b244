"""The folder of a tiny classifier with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

CATEGORIES = ("violence,aiding_and_abetting,incitement", "self_harm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A full folder around a tiny BERT, with the two categories of `CATEGORIES`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from truing.judges.moderation.network_files import build_network, write_head
    from truing.judges.moderation.settings import (
        ClassifierSettings,
        ClassifierThresholds,
        write_json,
    )

    path = tmp_path / "folder"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bad", "good", "word"]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    network = build_network(BertModel(config), len(CATEGORIES))
    network.body.save_pretrained(path)
    write_head(network, path, {})
    settings = ClassifierSettings(
        kind="moderation", base="tiny", base_sha256="0", categories=CATEGORIES
    )
    write_json(path / "truing.json", settings)
    write_json(path / "thresholds.json", ClassifierThresholds())
    return path
