"""Text encoders, and a cache of embeddings that encodes concurrent requests in one batch.

An encoder is anything with ``encode(list of texts) -> matrix`` (one row per text). numpy is
imported when it is first needed, so that rails without embeddings start quickly.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from truing.rails.config.embedding_models import Place, find_embedding_model
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.endpoint_encoder import EndpointEncoder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

MAX_CACHED_EMBEDDINGS = 4096
_WORD = re.compile(r"\w+")


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: list[str]) -> Any:
        """Returns a matrix with one row per text."""
        ...


class LexicalEncoder:
    """A hashed bag of words, for machines without a sentence encoder.

    Equal texts have cosine 1; texts without a common word have cosine 0, up to hash collisions.
    """

    def __init__(self, dim: int = 512) -> None:
        self.dim = dim

    def encode(self, texts: list[str]) -> Floats:
        """Returns the word counts, `[len(texts), dim]`; words are hashed to columns by CRC-32."""
        import numpy as np

        counts = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text.lower()):
                counts[row, zlib.crc32(word.encode("utf-8", "replace")) % self.dim] += 1
        return counts


class SharedSentenceEncoder:
    """The sentence encoder (all-MiniLM-L6-v2) that a process shares; loaded at first use."""

    def encode(self, texts: list[str]) -> Any:
        """Returns the sentence embeddings."""
        from truing.hf.sentence_encoder import shared_fused_encoder

        return shared_fused_encoder().encode(texts)


def choose_encoder(config: RailsConfig, place: Place = "core") -> TextEncoder:
    """Returns the encoder of a configuration for examples, or for the knowledge base.

    That is the model behind an endpoint, if the configuration names one. Otherwise, where
    embeddings decide (intents, the knowledge base) that is the sentence encoder. Where they
    only choose the examples of a prompt, the sentence encoder if its weights are on this
    machine, else the lexical one. ``truing: {encoder: minilm}`` or ``{encoder: words}`` sets
    it.
    """
    setting = config.truing.get("encoder")
    if setting == "words":
        return LexicalEncoder()
    model = find_embedding_model(config, place)
    if model is not None and setting is None:
        return EndpointEncoder(model)
    embeddings_decide = (
        config.embeddings_only
        or config.truing.get("intent_margin") is not None
        or bool(config.docs)
    )
    if setting == "minilm" or embeddings_decide:
        return SharedSentenceEncoder()
    if not config.user_messages or find_spec("torch") is None:
        return LexicalEncoder()
    from truing.hf.weights import find_cached_weights

    return (
        SharedSentenceEncoder() if find_cached_weights("minilm") is not None else LexicalEncoder()
    )


class EmbeddingCache:
    """An encoder with an LRU cache of unit vectors.

    Texts that are requested in the same iteration of the event loop are encoded in one batch, in a
    thread.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._vectors: OrderedDict[str, Any] = OrderedDict()
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._batch_task: asyncio.Task[None] | None = None
        # A single thread: torch starts a pool of spinning worker threads for each thread that calls
        # it.
        self._executor = ThreadPoolExecutor(1, "truing-embeddings")

    def replace_encoder(self, encoder: TextEncoder) -> None:
        """Encodes with another encoder; the vectors of the one before are of no use to it."""
        self.encoder = encoder
        self._vectors.clear()

    def encode(self, texts: Sequence[str]) -> Floats:
        """Returns the unit vectors of texts, `[len(texts), dim]`, without the cache."""
        return _as_unit_vectors(self.encoder.encode(list(texts)) if texts else [])

    async def encode_in_thread(self, texts: list[str]) -> Floats:
        """Runs `encode` without blocking the event loop; a coroutine `encode_async` comes first."""
        encode_async = getattr(self.encoder, "encode_async", None)
        if encode_async is not None:
            return _as_unit_vectors(await encode_async(texts) if texts else [])
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self.encode, texts)

    async def embed(self, text: str) -> Any:
        """Returns the unit vector of one text, `[dim]`, from the cache or from the next batch."""
        vector = self._vectors.get(text)
        if vector is not None:
            self._vectors.move_to_end(text)
            return vector
        future = self._pending.get(text)
        if future is None:
            future = self._pending[text] = asyncio.get_running_loop().create_future()
            if self._batch_task is None or self._batch_task.done():
                self._batch_task = asyncio.create_task(self._encode_pending())
        # Shielded: one caller that is cancelled must not cancel the others that wait for the same
        # text.
        return await asyncio.shield(future)

    async def _encode_pending(self) -> None:
        await asyncio.sleep(0)  # lets the other requests of this loop iteration join the batch
        while self._pending:
            batch, self._pending = self._pending, {}
            try:
                vectors = await self.encode_in_thread(list(batch))
            except Exception as error:
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error)
                continue
            for (text, future), vector in zip(batch.items(), vectors, strict=True):
                self._vectors[text] = vector
                if not future.done():
                    future.set_result(vector)
            while len(self._vectors) > MAX_CACHED_EMBEDDINGS:
                self._vectors.popitem(last=False)


def _as_unit_vectors(rows: Any) -> Floats:
    """Returns the rows divided by their Euclidean norms, `[n, dim]`; rows of zeros stay."""
    import numpy as np

    if not len(rows):
        return np.zeros((0, 1), dtype=np.float32)
    vectors = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    unit_vectors: Floats = vectors / norms
    return unit_vectors
