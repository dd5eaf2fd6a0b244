"""A task with a known optimum: answers of at most 8 words, with a reward and a cost per word.

Each `gold` has reward 1, each `risk` reward 2 and cost 1. Without a constraint the best answer is
eight times `risk`: reward 16, cost 8. With at most d `risk` per answer it is d of them and 8 - d
`gold`: reward 8 + d. A fixed price ν (reward shaping) makes `risk` the better word everywhere
(ν < 1) or nowhere (ν > 1).
"""

from __future__ import annotations

import random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from truing.core.types import Conversation, Sample
from truing.train.rl.rollout import Rollout, TokenizedPrompt

LENGTH = 8
WORDS = [
    "<pad>",
    "<eos>",
    "gold",
    "risk",
    "ash",
    "bay",
    "cob",
    "dew",
    "elm",
    "fog",
    "gum",
    "hay",
    "ivy",
    "jam",
    "kit",
    "log",
]
GOLD, RISK = WORDS.index("gold"), WORDS.index("risk")


def tokenizer() -> Any:
    """A tokenizer with one id per word."""
    raw = Tokenizer(models.WordLevel({w: k for k, w in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


def model(seed: int, *, layers: int = 2, size: int = 32, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny Llama with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=size,
        intermediate_size=2 * size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def prompts(count: int = 16, seed: int = 0) -> list[TokenizedPrompt]:
    """Prompts of one to four words in two harm categories."""
    rng = random.Random(seed)
    result = []
    for k in range(count):
        ids = tuple(rng.randrange(4, len(WORDS)) for _ in range(rng.randint(1, 4)))
        text = " ".join(WORDS[i] for i in ids)
        harms = ("odd",) if k % 2 else ("even",)
        result.append(
            TokenizedPrompt(
                Sample(conversation=Conversation.of(text), id=f"p{k}", harms=harms), ids
            )
        )
    return result


def count(rollout: Rollout, word: int) -> Tensor:
    """The number of occurrences of a word in each answer."""
    return ((rollout.answer_ids == word) * rollout.answer_mask).sum(-1).double()


def reward(rollout: Rollout) -> Tensor:
    """1 per `gold`, 2 per `risk`."""
    return count(rollout, GOLD) + 2 * count(rollout, RISK)


def cost(rollout: Rollout) -> Tensor:
    """1 per `risk`."""
    return count(rollout, RISK)
