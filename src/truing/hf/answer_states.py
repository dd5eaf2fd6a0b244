"""Answers as the states of a language model: what linear probes read.

A state is the mean, over the tokens of an answer, of what the model holds after one of its layers
(the residual stream; no norm has touched it). Only the layers up to that one are loaded.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import nn
from transformers import DynamicCache

from truing.core.errors import UserError
from truing.core.types import Conversation
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import batch_by_length, load_causal_lm, pad_rows, truncate_layers
from truing.hf.weights import Weights

States = npt.NDArray[np.float32]


class AnswerTokens(Struct, frozen=True):
    """The token ids of a prompt and its answer, and where the answer starts."""

    ids: tuple[int, ...]
    start: int


class AnswerReader:
    """A decoder up to its layer `layer`, counted from 1, that reads answers as states.

    `window` is the most tokens of a prompt with its answer, `tokens` the most of one forward pass.
    """

    def __init__(
        self,
        body: Any,
        tokenizer: Any,
        *,
        layer: int,
        window: int = 1024,
        tokens: int = 4096,
        name: str = "the model",
    ) -> None:
        layers = decoder_layers(body, name)
        if not 1 <= layer <= len(layers):
            raise UserError(f"{name}: has {len(layers)} layers, and layer {layer} is none of them")
        body.norm = nn.Identity()  # the state between layers, which no norm has touched
        self.body = truncate_layers(body, layer)
        self.turns = ChatTokenizer(tokenizer, name=name)
        self.layer, self.window, self.tokens = layer, window, tokens
        self.width = int(body.config.get_text_config().hidden_size)
        # Judges of several runs may share the reader; torch releases the GIL.
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        weights: Weights,
        *,
        layer: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        window: int = 1024,
        tokens: int = 4096,
    ) -> AnswerReader:
        """Loads a model; without `layer` it reads after two thirds of the layers.

        Raises UserError for a model that is no decoder with a list of layers.
        """
        loaded = load_causal_lm(weights, dtype=dtype, device=device)
        body = loaded.model.base_model  # without its head, which is freed
        if layer is None:
            layer = max(1, round(2 / 3 * len(decoder_layers(body, weights.name))))
        return cls(
            body,
            loaded.tokenizer,
            layer=layer,
            window=window,
            tokens=tokens,
            name=weights.name,
        )

    def encode(self, conversation: Conversation, text: str, *, is_cut: bool) -> AnswerTokens:
        """Returns the tokens of an answer to a conversation; one that was cut has no end token.

        Raises AnswerTooLong if both do not fit into the window: nothing is read in part.
        """
        prompt = self.turns.encode_prompt(conversation.messages)
        answer = self.turns.encode_answer(conversation.messages, text)
        if is_cut and len(answer) > 1:
            answer = answer[:-1]
        if len(prompt) + len(answer) > self.window:
            raise AnswerTooLong
        return AnswerTokens((*prompt, *answer), len(prompt))

    def states(self, rows: Sequence[AnswerTokens]) -> States:
        """Returns the states of answers in the order of the rows, `[rows, width]`.

        A prompt that several of them share is read once, as in best of n.
        """
        by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            by_prompt[row.ids[: row.start]].append(index)
        shared = [group for group in by_prompt.values() if len(group) > 1]
        single = [group[0] for group in by_prompt.values() if len(group) == 1]
        states = np.zeros((len(rows), self.width), dtype=np.float32)
        with self._lock, torch.inference_mode():
            for group in (single, *shared):
                lengths = [len(rows[k].ids) for k in group]
                for batch in batch_by_length(lengths, tokens=self.tokens):
                    chosen = [group[k] for k in batch]
                    states[chosen] = self._read([rows[k] for k in chosen])
        return states

    def _read(self, rows: Sequence[AnswerTokens]) -> States:
        """Returns the states of rows that have one prompt, or each another."""
        start, cache = 0, None
        if len(rows) > 1 and rows[0].ids[: rows[0].start] == rows[1].ids[: rows[1].start]:
            start, cache = rows[0].start, self._read_prompt(rows[0], len(rows))
        # A decoder's states of an answer do not depend on the padding to its right.
        ids, mask = pad_rows([row.ids[start:] for row in rows], 0)
        whole_mask = torch.cat([mask.new_ones(len(rows), start), mask], 1)
        hidden = self.body(
            input_ids=ids.to(self.body.device),
            attention_mask=whole_mask.to(self.body.device),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state.float()
        starts = torch.tensor([row.start - start for row in rows])
        in_answer = mask * (torch.arange(mask.shape[1]) >= starts[:, None])
        in_answer = in_answer.to(hidden.device)
        means = (hidden * in_answer[..., None]).sum(1) / in_answer.sum(1, keepdim=True)
        return np.asarray(means.cpu().numpy(), dtype=np.float32)

    def _read_prompt(self, row: AnswerTokens, n_answers: int) -> DynamicCache:
        """Returns the keys and values of a row's prompt, once for each of its answers."""
        cache = DynamicCache(config=self.body.config)
        prompt = torch.tensor([row.ids[: row.start]], device=self.body.device)
        self.body(input_ids=prompt, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(n_answers)
        return cache


def decoder_layers(body: Any, name: str) -> nn.ModuleList:
    """Returns the layers of a decoder without its head; raises UserError for another model."""
    layers = getattr(body, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not isinstance(
        getattr(body, "norm", None), nn.Module
    ):
        raise UserError(
            f"{name}: a {type(body).__name__} has no list of decoder layers with a norm after it; "
            "probes read Llama, Qwen, Mistral, Gemma and models of the same layout"
        )
    return layers
