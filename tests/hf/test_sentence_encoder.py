"""The sentence encoder: mean pooling over real tokens, normalisation, batching."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from truing.hf import loading
from truing.hf.sentence_encoder import SentenceEncoder


class EmbeddingModel(torch.nn.Module):  # type: ignore[name-defined,misc]
    """Hidden states that only depend on the token: its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=2)
        vectors = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
        self.embedding = torch.nn.Embedding.from_pretrained(vectors)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids))


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> SentenceEncoder:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"[PAD]": 0, "east": 1, "north": 2, "far": 3}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = SimpleNamespace(backend_tokenizer=backend, pad_token_id=0)
    loaded = SimpleNamespace(model=EmbeddingModel(), tokenizer=tokenizer, weights=None)
    monkeypatch.setattr(loading, "load_encoder", lambda *args, **kwargs: loaded)
    return SentenceEncoder(max_tokens=3)


def test_vectors_are_normalised_means_without_padding(encoder: SentenceEncoder) -> None:
    vectors = encoder.encode(["east", "east north", "far", "east east north"])
    root2, root5 = 2**-0.5, 5**-0.5
    expected = [[1, 0], [root2, root2], [0.6, 0.8], [2 * root5, root5]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert (encoder.dim, encoder.dtype) == (2, "float32")


def test_batches_do_not_change_vectors(encoder: SentenceEncoder) -> None:
    rows = [[1], [1, 2, 3], [2, 2], [3], [1, 1, 2]]
    together = encoder.encode_ids(rows)
    np.testing.assert_allclose(encoder.encode_ids(rows, batch_tokens=1), together, atol=1e-6)
    assert encoder.encode([]).shape == (0, 2)


def test_long_texts_are_truncated(encoder: SentenceEncoder) -> None:
    np.testing.assert_allclose(encoder.encode(["north north north east"]), [[0, 1]], atol=1e-6)
