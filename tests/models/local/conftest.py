"""Tiny random models in the Hugging Face layout, each with a byte-level tokenizer of its own; and the real small one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from truing.hf.weights import find_weights
from truing.models.local import LocalModel

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "the cat sat on the mat and looked at the rain in the garden",
    "how do I repair a bicycle wheel that is out of true?",
    "You are a patient helper who answers in one short sentence.",
    "user assistant system tools numbers 0123456789",
)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
    "head_dim": 16,
}


def tokenizer(*, template: bool = True, bos: bool = False) -> Any:
    """A byte-level BPE of a few hundred tokens; pad is eos, as with many published models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A",
            special_tokens=[("<|im_start|>", made.token_to_id("<|im_start|>"))],
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    if template:
        fast.chat_template = TEMPLATE
    return fast


def write(
    folder: Path, kind: str, *, template: bool = True, bos: bool = False, **more: Any
) -> Path:
    """A model folder of random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    words = tokenizer(template=template, bos=bos)
    torch.manual_seed(7)
    ends = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": len(words), **ends, **more})
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make("llama", sliding_window=8, ...)`: the folder of a tiny model, written once."""
    known: dict[str, Path] = {}

    def one(kind: str, **more: Any) -> Path:
        key = f"{kind} {sorted(more.items())}"
        if key not in known:
            known[key] = write(tmp_path_factory.mktemp(kind.replace("_", "")), kind, **more)
        return known[key]

    return one


@pytest.fixture(scope="session")
def tiny(make: Callable[..., Path]) -> LocalModel:
    """A tiny random llama in float32."""
    return LocalModel.load(str(make("llama")), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def smollm2() -> LocalModel:
    """The embedded default model in float32."""
    find_weights("smollm2")
    return LocalModel.load("smollm2", dtype="float32", device="cpu")
