"""The text encoder that judges, rails and attacks share: all-MiniLM-L6-v2.

Sentence embeddings by mean pooling, normalised (Reimers and Gurevych 2019, Sentence-BERT,
arXiv:1908.10084). Needs the extra `local`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from truing.hf.weights import Weights, find_weights

Floats = npt.NDArray[np.float32]


class SentenceEncoder:
    """Turns texts into unit vectors; an instance may be shared between threads."""

    def __init__(
        self,
        weights: Weights | str = "minilm",
        *,
        dtype: str = "auto",
        max_tokens: int = 256,
        device: str = "auto",
    ) -> None:
        from truing.hf.loading import limit_torch_threads, load_encoder

        loaded = load_encoder(weights, dtype=dtype, device=device)
        self.weights = loaded.weights
        self.max_tokens = max_tokens
        self._model = loaded.model
        # The Rust tokenizer itself: the Python wrapper costs more than the encoding of a short
        # text.
        self._tokenizer = loaded.tokenizer.backend_tokenizer
        self._tokenizer.enable_truncation(max_tokens)
        # Rows are padded in batches of similar length below; the tokenizer would pad all to the
        # longest.
        self._tokenizer.no_padding()
        self._pad_token_id = loaded.tokenizer.pad_token_id or 0
        self._lock = threading.Lock()
        self._fused: Any = None
        limit_torch_threads()

    def with_fused_layers(self) -> SentenceEncoder:
        """Returns an encoder of the same weights that takes less time for short texts.

        Its vectors differ by the rounding of the dtype (in bfloat16 by about 0.001), so judges,
        whose thresholds were measured, keep the layers of transformers.
        """
        from truing.hf.fused_bert import FusedBert

        encoder = copy.copy(self)
        if FusedBert.fits(self._model):
            encoder._fused = FusedBert(self._model)
        return encoder

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self._model.config.hidden_size)

    @property
    def dtype(self) -> str:
        """The dtype of the computation: float32, bfloat16, ..."""
        return str(next(self._model.parameters()).dtype).removeprefix("torch.")

    def encode(self, texts: Iterable[str], *, batch_tokens: int = 4096) -> Floats:
        """Returns `[len(texts), dim]` float32 vectors of length 1 (dot product = cosine).

        An empty text has a vector too, that of its special tokens.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        return self.encode_ids(rows, batch_tokens=batch_tokens)

    def encode_ids(self, rows: Sequence[Sequence[int]], *, batch_tokens: int = 4096) -> Floats:
        """Like `encode`, for rows of token ids."""
        import torch

        from truing.hf.loading import batch_by_length, pad_rows

        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        device = next(self._model.parameters()).device
        with self._lock, torch.inference_mode():
            for batch in batch_by_length([len(r) for r in rows], tokens=batch_tokens):
                ids, mask = pad_rows([rows[i] for i in batch], self._pad_token_id)
                hidden = self._hidden_states(ids.to(device), mask.to(device))
                weight = mask.to(hidden.device).unsqueeze(-1).float()
                pooled = (hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
                vectors[batch] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors

    def _hidden_states(self, ids: Any, mask: Any) -> Any:
        # Without a mask torch picks the faster attention kernel.
        attention_mask = None if bool(mask.all()) else mask
        if self._fused is not None:
            return self._fused(ids, attention_mask)
        return self._model(input_ids=ids, attention_mask=attention_mask).last_hidden_state


@cache
def shared_encoder(name: str = "minilm", dtype: str = "auto") -> SentenceEncoder:
    """Returns the encoder of this process; loads it at the first call."""
    return SentenceEncoder(find_weights(name), dtype=dtype)


@cache
def shared_fused_encoder(name: str = "minilm") -> SentenceEncoder:
    """Returns `shared_encoder` with fused layers, for texts that somebody waits for."""
    return shared_encoder(name).with_fused_layers()
