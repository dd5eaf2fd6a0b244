"""Tiny random bases, and one classifier that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.train.moderation.builders import VOCABULARY, make_settings, make_training_set

from truing.train.moderation.run import train_moderation


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT of two layers with random weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *VOCABULARY]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_tiny_llama(tiny_bert: Path) -> Callable[[Path, int], Path]:
    """Writes a random llama with so many layers and the tokenizer of the tiny BERT."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def write(folder: Path, layers: int) -> Path:
        PreTrainedTokenizerFast.from_pretrained(str(tiny_bert)).save_pretrained(folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            pad_token_id=0,
            max_position_embeddings=256,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a classifier trained on 180 rows with two folds."""
    out = tmp_path_factory.mktemp("trained") / "model"
    train_moderation(make_settings(tiny_bert, out), [make_training_set()])
    return out
