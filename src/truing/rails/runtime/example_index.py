"""Nearest texts by embedding: canonical forms, flows, bot messages, and the chunks of the knowledge base.

The encoder is anything with ``encode(list of texts) -> matrix``. Exact cosine over a matrix; an embedding is computed once
for each text that is asked for, and concurrent questions are encoded together.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from truing.rails.yaml_lines import safe_load

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from truing.rails.config.loader import RailsConfig

    Floats = npt.NDArray[np.float32]

T = TypeVar("T")
REMEMBERED = 4096
_WORD = re.compile(r"\w+")


class Encodes(Protocol):
    """Turns texts into vectors."""

    def encode(self, texts: list[str]) -> Any:
        """One row for each text."""
        ...


class Lexical:
    """A hashed bag of words: equal texts are alike, texts without a common word are not. For when there is no encoder."""

    def __init__(self, dim: int = 512) -> None:
        self.dim = dim

    def encode(self, texts: list[str]) -> Floats:
        """Counts of words, hashed."""
        import numpy as np

        made = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text.lower()):
                made[row, zlib.crc32(word.encode("utf-8", "replace")) % self.dim] += 1
        return made


class Shared:
    """The shared sentence encoder of truing, loaded at the first question."""

    def encode(self, texts: list[str]) -> Any:
        """Its vectors."""
        from truing.hf.sentence_encoder import shared_encoder

        return shared_encoder().encode(texts)


def default_encoder(config: RailsConfig) -> Encodes:
    """The shared encoder where embeddings decide (canonical forms, the knowledge base). Where they only choose the examples of
    a prompt: the same if this machine has it, else words alone; ``truing: {encoder: words}`` asks for words alone."""
    asked = config.truing.get("encoder")
    if asked == "words":
        return Lexical()
    decides = (
        config.embeddings_only
        or config.truing.get("intent_margin") is not None
        or bool(config.docs)
    )
    if asked == "minilm" or decides:
        return Shared()
    if not config.user_messages or find_spec("torch") is None:
        return Lexical()
    from truing.hf.weights import find_cached_weights

    return Shared() if find_cached_weights("minilm") is not None else Lexical()


class Vectors:
    """An encoder with a memory; questions that come in the same moment are encoded in one batch, outside the event loop."""

    def __init__(self, encoder: Encodes) -> None:
        self.encoder = encoder
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._task: asyncio.Task[None] | None = None
        # one thread: each thread that calls torch gets a team of spinning helpers of its own
        self._thread = ThreadPoolExecutor(1, "truing-vectors")

    async def beside(self, texts: list[str]) -> Floats:
        """`many`, outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.many, texts)

    def many(self, texts: Sequence[str]) -> Floats:
        """Normalised rows for texts."""
        import numpy as np

        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        made = np.asarray(self.encoder.encode(list(texts)), dtype=np.float32)
        norms = np.linalg.norm(made, axis=1, keepdims=True)
        norms[norms == 0] = 1.0
        result: Floats = made / norms
        return result

    async def one(self, text: str) -> Any:
        """The normalised vector of a text."""
        found = self._known.get(text)
        if found is not None:
            self._known.move_to_end(text)
            return found
        future = self._waiting.get(text)
        if future is None:
            future = self._waiting[text] = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._batch())
        return await asyncio.shield(future)

    async def _batch(self) -> None:
        await asyncio.sleep(0)  # let the others of this moment come in
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                rows = await self.beside(list(batch))
            except Exception as error:
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error)
                continue
            for (text, future), row in zip(batch.items(), rows, strict=True):
                self._known[text] = row
                if not future.done():
                    future.set_result(row)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


class Index(Generic[T]):
    """Texts with what they stand for, searched by similarity."""

    def __init__(self, vectors: Vectors, items: Sequence[tuple[str, T]]) -> None:
        self.vectors = vectors
        self.items = list(items)
        self._matrix: Any = None

    async def search(self, text: str, k: int) -> list[tuple[float, str, T]]:
        """The k nearest: cosine, text, what it stands for; best first, equal ones in order of definition."""
        if not self.items:
            return []
        import numpy as np

        if self._matrix is None:
            self._matrix = await self.vectors.beside([t for t, _ in self.items])
        # einsum and not @: a product with one vector is too small for the threads that BLAS would wake for it
        cosine = np.einsum("ij,j->i", self._matrix, await self.vectors.one(text))
        order = np.argsort(-cosine, kind="stable")[:k]
        return [(float(cosine[i]), *self.items[i]) for i in order]


def nemo_score(cosine: float) -> float:
    """The similarity in which NeMo's thresholds are given: 1 - half the angular distance."""
    distance: float = max(2.0 - 2.0 * cosine, 0.0) ** 0.5
    return 1.0 - distance / 2.0


def chunks(document: str, longest: int = 400) -> list[tuple[str, str]]:
    """A Markdown document as (title, body): split at headings and, past a size, at blank lines."""
    rows = document.strip().split("\n")
    if rows and rows[0].startswith("```"):
        end = next((i for i, r in enumerate(rows[1:], 1) if r.startswith("```")), 0)
        if end:
            safe_load("\n".join(rows[1:end]))
            rows = rows[end + 1 :]
    made: list[tuple[str, str]] = []
    title: list[str] = []
    body: list[str] = []
    size = 0

    def close() -> None:
        nonlocal size
        text = "\n".join(body).strip()
        if text:
            made.append((" - ".join(title), text))
        body.clear()
        size = 0

    for row in rows:
        if row.startswith("#"):
            close()
            level = len(row) - len(row.lstrip("#"))
            title[level - 1 :] = []
            title.append(row.lstrip("#").strip())
        elif not row.strip():
            body.append("")
            if size > longest:
                close()
        else:
            body.append(row)
            size += len(row)
    close()
    return made


class KnowledgeBase:
    """The documents of ``kb/``; actions know it as `kb`."""

    def __init__(self, documents: Sequence[str], vectors: Vectors) -> None:
        pieces = [c for d in documents for c in chunks(d)]
        self._index = Index(
            vectors, [(f"# {t}\n\n{b}", {"title": t, "body": b}) for t, b in pieces]
        )

    async def search_relevant_chunks(self, text: str, max_results: int = 3) -> list[dict[str, str]]:
        """The nearest chunks, best first."""
        return [chunk for _, _, chunk in await self._index.search(text, max_results)]
