"""Tiny random classifiers of the shapes of published guards, with a tokenizer of single letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NAMES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz "]


def write_tokenizer(folder: Path) -> int:
    """Writes a tokenizer of single letters that joins pairs by a separator; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({n: i for i, n in enumerate(NAMES)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return len(NAMES)


def write_encoder(
    folder: Path, labels: int, *, tokens: int = len(NAMES), nan_letter: str = "", **config: Any
) -> Path:
    """Writes a BERT with a head of `labels` outputs, which are NaN for texts with `nan_letter`.

    It has embeddings of the first `tokens` tokens alone.
    """
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    write_tokenizer(folder)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=tokens,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            initializer_range=0.5,
            num_labels=labels,
            **config,
        )
    )
    if nan_letter:
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight[NAMES.index(nan_letter)] = float("nan")
    model.save_pretrained(folder)
    return folder


def write_decoder(folder: Path, labels: int) -> Path:
    """Writes a Qwen2 with a head of `labels` outputs."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    torch.manual_seed(0)
    size = write_tokenizer(folder)
    Qwen2ForSequenceClassification(
        Qwen2Config(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_labels=labels,
            initializer_range=0.5,
            pad_token_id=0,
        )
    ).save_pretrained(folder)
    return folder
