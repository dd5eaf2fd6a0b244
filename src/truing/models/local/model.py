"""`local:PATH_OR_NAME`: a transformers model on this machine as a `Model`, `Streams` and `Scored`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from truing.core.errors import UserError
from truing.core.lineage import digest
from truing.core.types import (
    Answer,
    ContinuationScores,
    Conversation,
    Lineage,
    Message,
    Sampling,
    Usage,
)
from truing.hf.loading import LoadedModel, load_causal_lm
from truing.hf.weights import Weights
from truing.models.local.decoding import Decoder, Request
from truing.models.local.forward import Forward
from truing.models.local.likelihood import Likelihood, Query
from truing.models.local.sampling import stream
from truing.models.local.template import Template
from truing.models.local.worker import Worker, _tell


class LocalModel:
    """Answers by continuous batching and scores by shared prefixes; safe under many concurrent calls.

    Each answer draws from its own random stream (seed, conversation, index): what is asked beside it changes nothing.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        name: str = "",
        batch: int = 64,
        lineage: Lineage | None = None,
    ) -> None:
        self.loaded = loaded
        self.forward = Forward(loaded)
        self.template = Template(loaded.tokenizer)
        self.likelihood = Likelihood(self.forward, self.template)
        self._name = name or f"local:{loaded.weights.name}"
        self._lineage = lineage or _lineage(loaded.weights, self._name, self.dtype)
        self._worker = Worker(
            self.forward, Decoder(self.forward, slots=batch), self.likelihood.score
        )

    @classmethod
    def load(
        cls,
        name: str | Weights = "smollm2",
        *,
        dtype: str = "auto",
        device: str = "auto",
        batch: int = 64,
    ) -> LocalModel:
        """Finds the weights (fetching them at the first use) and loads them."""
        return cls(load_causal_lm(name, dtype=dtype, device=device), batch=batch)

    @property
    def name(self) -> str:
        """The spec-like name."""
        return self._name

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.loaded.weights.title or self._name

    @property
    def lineage(self) -> Lineage:
        """Of the folder's `truing.json` where training wrote one, else of the bare weights."""
        return self._lineage

    @property
    def dtype(self) -> str:
        """float32, bfloat16, ..."""
        return str(self.forward.dtype).removeprefix("torch.")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Gives `sampling.n` answers; concurrent calls are written together."""
        loop = asyncio.get_running_loop()
        try:
            prompt = self.template.prompt(conversation, sampling.tools)
        except (UserError, ValueError) as error:
            return tuple(Answer.failed("template", str(error)) for _ in range(sampling.n))
        futures: list[asyncio.Future[Request]] = [loop.create_future() for _ in range(sampling.n)]

        def ended(future: asyncio.Future[Request], request: Request) -> None:
            _tell(loop, lambda: None if future.done() else future.set_result(request))

        requests = [
            Request(
                prompt,
                sampling,
                stream(sampling.seed, conversation, at) if sampling.temperature > 0 else None,
                lambda request, future=future: ended(future, request),  # type: ignore[misc]
            )
            for at, future in enumerate(futures)
        ]
        self._worker.submit(requests)
        try:
            return tuple(_answer(r) for r in await asyncio.gather(*futures))
        finally:
            for request in requests:
                request.cancelled = True

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the text of one answer as it is written; a failure ends the stream early with an exception."""
        loop = asyncio.get_running_loop()
        prompt = self.template.prompt(conversation, sampling.tools)
        queue: asyncio.Queue[str | Request] = asyncio.Queue()
        request = Request(
            prompt,
            sampling,
            stream(sampling.seed, conversation, 0) if sampling.temperature > 0 else None,
            lambda made: _tell(loop, queue.put_nowait, made),
            told=lambda text: _tell(loop, queue.put_nowait, text),
        )
        self._worker.submit([request])
        sent = 0
        try:
            while True:
                got = await queue.get()
                if isinstance(got, Request):
                    if got.failure is not None:
                        raise RuntimeError(": ".join(got.failure))
                    if got.text[sent:]:
                        yield got.text[sent:]
                    return
                safe = _settled(got, sampling.stop)
                if safe > sent:
                    yield got[sent:safe]
                    sent = safe
        finally:
            request.cancelled = True

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `Scored`; raises UserError where a continuation cannot be scored."""
        made = await self.score(prefix, continuations)
        for one in made:
            if one.failure is not None:
                raise UserError(f"{self.name}: {one.failure.message}")
        return [list(s.logprobs) for s in made]

    async def score(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[ContinuationScores]:
        """As `logprobs`, with what was cut or merged, and a failure as data; concurrent calls are read as one tree."""
        return await self._worker.score(Query(prefix, tuple(continuations)))

    async def close(self) -> None:
        """Lets the model's thread end."""
        self._worker.close()


def _answer(request: Request) -> Answer:
    usage = Usage(len(request.prompt.ids), len(request.out), request.head)
    if request.failure is not None:
        return msgspec.structs.replace(Answer.failed(*request.failure), usage=usage)
    return Answer(
        message=Message("assistant", request.text),
        finish_reason=request.finish,
        usage=usage,
        logprobs=tuple(request.logprobs) if request.sampling.logprobs is not None else None,
    )


def _settled(text: str, stop: Sequence[str]) -> int:
    """How much of a growing text can be shown: no half characters, nothing that may become a stop string."""
    safe = len(text)
    while safe and text[safe - 1] == "\ufffd":
        safe -= 1
    for word in stop:
        for size in range(min(len(word) - 1, safe), 0, -1):
            if text[:safe].endswith(word[:size]):
                safe = min(safe, len(text[:safe]) - size)
                break
    return safe


class _Card(msgspec.Struct):
    """What of a trained folder's `truing.json` matters here."""

    lineage: Lineage | None = None


def _lineage(weights: Weights, name: str, dtype: str) -> Lineage:
    card = Path(weights.path) / "truing.json"
    if card.is_file():
        try:
            found = msgspec.json.decode(card.read_bytes(), type=_Card).lineage
        except msgspec.DecodeError as error:
            raise UserError(f"{card}: {error}") from error
        if found is not None:
            return msgspec.structs.replace(found, hash=found.hash or digest(weights.sha256, dtype))
    return Lineage(
        name=name,
        hash=digest(weights.sha256, dtype),
        base=weights.title or weights.name,
        base_sha256=weights.sha256,
        licence=weights.licence,
    )
