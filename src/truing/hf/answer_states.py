"""Answers as the states of a language model: what linear probes read.

A state is the mean, over the tokens of an answer, of what the model holds after one of its layers
(the residual stream; no norm has touched it). The model reads the conversation and the answer
again; whatever a wrapper put around them when the answer was drawn, such as a system prompt, is not
there.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import nn
from transformers import DynamicCache

from truing.core.errors import PlanError, UserError
from truing.core.types import Conversation, Message
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.hf.loading import (
    batch_by_length,
    cache_argument,
    context_length,
    load_causal_lm,
    pad_rows,
    select_device,
    select_dtype,
    truncate_layers,
)
from truing.hf.weights import Weights

States = npt.NDArray[np.float32]


class AnswerTokens(Struct, frozen=True):
    """The token ids of a prompt and its answer, and where the answer starts."""

    ids: tuple[int, ...]
    start: int


class AnswerStateEncoder:
    """A decoder up to its layer `layer`, counted from 1, that turns answers into states.

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
        n_layers, context = len(decoder_layers(body, name)), context_length(body)
        if not 1 <= layer <= n_layers:
            raise PlanError(f"layer = {layer}: {name} has layers 1 to {n_layers}")
        if not 1 <= window <= context:
            raise PlanError(f"max_length = {window}: {name} reads 1 to {context} tokens")
        body.norm = nn.Identity()  # the state between layers, which no norm has touched
        self.body = truncate_layers(body, layer)
        self._cache_argument = cache_argument(body)
        self.turns = ChatTokenizer(tokenizer, name=name)
        self.layer, self.window, self.tokens, self.name = layer, window, tokens, name
        self.width = int(body.config.get_text_config().hidden_size)
        # Judges of several questions share an encoder; torch releases the GIL.
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
    ) -> AnswerStateEncoder:
        """Loads a model; without `layer` it is read after two thirds of its layers.

        All of it is loaded, and the upper layers and the head are freed afterwards. Raises
        UserError for a model that is no decoder with a list of layers, and PlanError for a layer or
        a window that it does not have.
        """
        chosen = select_dtype(dtype, select_device(device))
        # In float16 the residual stream of some models overflows.
        dtype = "float32" if chosen is torch.float16 else str(chosen).removeprefix("torch.")
        loaded = load_causal_lm(weights, dtype=dtype, device=device)
        body = loaded.model.base_model
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

    @property
    def dtype(self) -> str:
        """The type that it computes in, such as float32."""
        return str(next(self.body.parameters()).dtype).removeprefix("torch.")

    def encode(self, conversation: Conversation, text: str, *, is_cut: bool) -> AnswerTokens:
        """Returns the tokens of an answer to a conversation; one that was cut has no end token.

        Nothing is read in part: raises AnswerTooLong if both do not fit into the window, and
        UserError for a text that the chat template leaves out parts of, or that holds a token of
        the template, such as the one that ends an answer.
        """
        self._check_readable(conversation, text)
        prompt = self.turns.encode_prompt(conversation.messages)
        if is_cut:
            answer = self.turns.encode_text(text, first=False)
        else:
            answer = self.turns.encode_answer(conversation.messages, text)
        if len(prompt) + len(answer) > self.window:
            raise AnswerTooLong
        return AnswerTokens((*prompt, *answer), len(prompt))

    def _check_readable(self, conversation: Conversation, text: str) -> None:
        special = [token for token in self.turns.tokenizer.all_special_tokens if token in text]
        if special:
            raise UserError(
                f"{self.name}: the answer holds {special[0]!r}, a token of the model's own, and "
                "would be read in part"
            )
        rendered = self.turns.render([*conversation.messages, Message("assistant", text)])
        if text.strip() not in rendered:
            raise UserError(f"{self.name}: the chat template leaves out parts of the answer")

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
        """Returns the states of rows that all have one prompt, or each its own."""
        start, cache = 0, None
        if len(rows) > 1 and rows[0].ids[: rows[0].start] == rows[1].ids[: rows[1].start]:
            start, cache = rows[0].start, self._read_prompt(rows[0], len(rows))
        # A decoder's states of an answer do not depend on the padding to its right.
        ids, mask = pad_rows([row.ids[start:] for row in rows], 0)
        whole_mask = torch.cat([mask.new_ones(len(rows), start), mask], 1)
        hidden = self.body(
            input_ids=ids.to(self.body.device),
            attention_mask=whole_mask.to(self.body.device),
            use_cache=cache is not None,
            **{self._cache_argument: cache},
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
        self.body(input_ids=prompt, use_cache=True, **{self._cache_argument: cache})
        cache.batch_repeat_interleave(n_answers)
        return cache


_SHARED: WeakValueDictionary[tuple[object, ...], AnswerStateEncoder] = WeakValueDictionary()


def shared_answer_encoder(weights: Weights, **options: Any) -> AnswerStateEncoder:
    """Returns this process's one encoder of some weights and options, loaded if it is not there."""
    key = (weights.sha256, *sorted(options.items()))
    encoder = _SHARED.get(key)
    if encoder is None:
        encoder = _SHARED[key] = AnswerStateEncoder.load(weights, **options)
    return encoder


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
