"""Replaces the default embedding model of NeMo Guardrails by a hashed bag of words, as in truing.

Imported in the environment of the peer.
"""

from __future__ import annotations

import zlib
from typing import Any

from nemoguardrails.embeddings.providers import fastembed

DIM = 512


def _encode(self: Any, documents: list[str]) -> list[list[float]]:
    rows = []
    for document in documents:
        row = [0.0] * DIM
        for word in document.lower().split():
            row[zlib.crc32(word.strip("?!.,\"'").encode()) % DIM] += 1.0
        rows.append(row)
    return rows


async def _encode_async(self: Any, documents: list[str]) -> list[list[float]]:
    return _encode(self, documents)


def _init(self: Any, embedding_model: str, **_: Any) -> None:
    self.model, self.embedding_size = None, DIM


fastembed.FastEmbedEmbeddingModel.__init__ = _init
fastembed.FastEmbedEmbeddingModel.encode = _encode
fastembed.FastEmbedEmbeddingModel.encode_async = _encode_async
