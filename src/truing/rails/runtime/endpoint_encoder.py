"""An encoder behind an OpenAI-compatible ``/embeddings``."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import msgspec

from truing.core.types import Failure
from truing.http.client import Endpoint, bearer_headers
from truing.http.limits import close_connections
from truing.rails.config.embedding_models import EmbeddingModel
from truing.specs.keys import resolve_api_key

BATCH_SIZE = 256  # texts of one request
Vectors = list[list[float]]


class EndpointEncoder:
    """Encodes texts by requests; raises ConnectionError where the endpoint does not answer."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.model = model.model
        key = resolve_api_key(model.variable, model.url, default=model.vendor_variable)
        self._endpoint = Endpoint(model.url, key=key, headers=bearer_headers(key))

    async def encode_async(self, texts: list[str]) -> Vectors:
        """Returns the vectors of the texts, `[len(texts), dim]`."""
        vectors: Vectors = []
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            body = msgspec.json.encode({"model": self.model, "input": batch})
            read = partial(_read_vectors, count=len(batch))
            reply = await self._endpoint.send_request(body, read)
            if isinstance(reply, Failure):
                raise ConnectionError(f"embeddings of {self.model}: {reply.message}")
            vectors += reply
        if len({len(vector) for vector in vectors}) > 1:
            raise ConnectionError(f"embeddings of {self.model}: vectors of different lengths")
        return vectors

    def encode(self, texts: list[str]) -> Vectors:
        """As `encode_async`, for threads without an event loop."""

        async def run() -> Vectors:
            try:
                return await self.encode_async(texts)
            finally:
                await close_connections()

        return asyncio.run(run())


def _read_vectors(data: bytes, count: int) -> Vectors:
    """Returns the vectors of a reply in the order of the texts; ValueError for another form."""
    reply: Any = msgspec.json.decode(data)
    rows = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(rows, list) or len(rows) != count:
        raise ValueError(f"expected {count} embeddings")
    vectors: dict[int, list[float]] = {}
    for position, row in enumerate(rows):
        values = row.get("embedding") if isinstance(row, dict) else None
        if not isinstance(values, list) or not values:
            raise ValueError("an embedding is no list of numbers")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise ValueError("an embedding is no list of numbers")
        index = row.get("index")
        vectors[index if isinstance(index, int) else position] = [float(v) for v in values]
    if sorted(vectors) != list(range(count)):
        raise ValueError("the embeddings are not those of the texts")
    return [vectors[index] for index in range(count)]
