"""`local:PATH_OR_NAME`: a transformers model on this machine that generates, streams and scores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from truing.core.errors import UserError
from truing.core.input_files import read_input_bytes
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
from truing.hf.packed_linear import pack_linear_layers
from truing.hf.weights import Weights
from truing.models.local.decoding import Decoder, GenerationRequest
from truing.models.local.forward import PackedForward
from truing.models.local.kept_prefix import KeptPrefix, KeptPrefixes
from truing.models.local.likelihood import LikelihoodScorer, ScoreQuery
from truing.models.local.sampling import make_generator
from truing.models.local.template import ChatTemplate, EncodedPrompt
from truing.models.local.turn_reader import TurnReader
from truing.models.local.worker import ModelThread, call_in_loop


class LocalModel:
    """Generates by continuous batching and scores by shared prefixes; made for many concurrent
    calls.

    Each answer has its own random generator (seed, conversation, index): other calls do not change
    it.
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
        self.forward = PackedForward(loaded)
        self.template = ChatTemplate(loaded.tokenizer)
        self.likelihood = LikelihoodScorer(self.forward, self.template)
        self._name = name or f"local:{loaded.weights.name}"
        self._lineage = lineage or _lineage(loaded.weights, self._name, self.dtype)
        self._worker = ModelThread(
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
        """Finds the weights (fetching them at the first use) and loads the model.

        Its weights are packed where that is faster (`hf.packed_linear`), so they cannot be changed.
        """
        loaded = load_causal_lm(name, dtype=dtype, device=device)
        pack_linear_layers(loaded.model)
        return cls(loaded, batch=batch)

    @property
    def name(self) -> str:
        """The spec-like name."""
        return self._name

    @property
    def title(self) -> str:
        """The name in reports."""
        return self.loaded.weights.title or self._name

    @property
    def lineage(self) -> Lineage:
        """The lineage in the folder's `truing.json` if there is one, with the hash of its files."""
        return self._lineage

    @property
    def dtype(self) -> str:
        """float32, bfloat16, ..."""
        return str(self.forward.dtype).removeprefix("torch.")

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers; concurrent calls share batches."""
        try:
            prompt = self.template.prompt(conversation, sampling.tools)
        except (UserError, ValueError) as error:
            return tuple(Answer.failed("template", str(error)) for _ in range(sampling.n))
        return await self._generate(prompt, conversation, sampling)

    def turn_reader(self, *, keep_prefix: bool = False) -> TurnReader:
        """Returns a model that closes a last assistant turn and replies (`TurnReadingModel`)."""
        return TurnReader(self.name, self.lineage, self._generate_closed, keep_prefix=keep_prefix)

    async def _generate_closed(
        self, conversation: Conversation, sampling: Sampling, prefixes: KeptPrefixes | None
    ) -> tuple[Answer, ...]:
        """Generates after a closed last turn; with `prefixes` it runs only the new tokens."""
        try:
            prompt = self.template.prompt(conversation, sampling.tools, closed=True)
        except (UserError, ValueError) as error:
            return tuple(Answer.failed("template", str(error)) for _ in range(sampling.n))
        if prefixes is None:
            return await self._generate(prompt, conversation, sampling)
        prefix = prefixes.take(prompt.ids)
        # Not given back after a failure, nor if this call is cancelled: the model's thread may
        # still be writing to it.
        answers = await self._generate(prompt, conversation, sampling, prefix)
        if all(answer.failure is None for answer in answers):
            prefixes.give_back(prefix)
        return answers

    async def _generate(
        self,
        prompt: EncodedPrompt,
        conversation: Conversation,
        sampling: Sampling,
        prefix: KeptPrefix | None = None,
    ) -> tuple[Answer, ...]:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[GenerationRequest]] = [
            loop.create_future() for _ in range(sampling.n)
        ]

        def set_result(
            future: asyncio.Future[GenerationRequest], request: GenerationRequest
        ) -> None:
            # Called by the model's thread: futures may be touched in their loop only.
            call_in_loop(loop, lambda: None if future.done() else future.set_result(request))

        requests = [
            GenerationRequest(
                prompt,
                sampling,
                make_generator(sampling.seed, conversation, index)
                if sampling.temperature > 0
                else None,
                lambda request, future=future: set_result(future, request),  # type: ignore[misc]
                kept_prefix=prefix,
            )
            for index, future in enumerate(futures)
        ]
        self._worker.submit(requests)
        try:
            return tuple(_answer(r) for r in await asyncio.gather(*futures))
        finally:
            # If this call is cancelled, the decoder drops its rows at the next step.
            for request in requests:
                request.cancelled = True

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the text of one answer as it is generated. Raises RuntimeError for a failure."""
        loop = asyncio.get_running_loop()
        prompt = self.template.prompt(conversation, sampling.tools)
        queue: asyncio.Queue[str | GenerationRequest] = asyncio.Queue()
        request = GenerationRequest(
            prompt,
            sampling,
            make_generator(sampling.seed, conversation, 0) if sampling.temperature > 0 else None,
            lambda scores: call_in_loop(loop, queue.put_nowait, scores),
            on_text=lambda text: call_in_loop(loop, queue.put_nowait, text),
        )
        self._worker.submit([request])
        sent = 0
        try:
            while True:
                event = await queue.get()
                if isinstance(event, GenerationRequest):
                    if event.failure is not None:
                        raise RuntimeError(": ".join(event.failure))
                    if event.text[sent:]:
                        yield event.text[sent:]
                    return
                # What has been sent cannot be taken back, so a possible start of a stop string
                # waits.
                safe = _stable_length(event, sampling.stop)
                if safe > sent:
                    yield event[sent:safe]
                    sent = safe
        finally:
            request.cancelled = True

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `LogprobModel`. Raises UserError if a continuation cannot be scored."""
        scores = await self.score(prefix, continuations)
        for continuation in scores:
            if continuation.failure is not None:
                raise UserError(f"{self.name}: {continuation.failure.message}")
        return [list(s.logprobs) for s in scores]

    async def score(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[ContinuationScores]:
        """As `logprobs`, with what was cut or merged, and failures as data; concurrent calls share
        one prefix tree.
        """
        return await self._worker.score(ScoreQuery(prefix, tuple(continuations)))

    async def close(self) -> None:
        """Stops the model's thread once nothing is left to do."""
        self._worker.close()


def _answer(request: GenerationRequest) -> Answer:
    usage = Usage(len(request.prompt.ids), len(request.output_ids), request.shared_length)
    if request.failure is not None:
        return msgspec.structs.replace(Answer.failed(*request.failure), usage=usage)
    return Answer(
        message=Message("assistant", request.text),
        finish_reason=request.finish_reason,
        usage=usage,
        logprobs=tuple(request.logprobs) if request.sampling.logprobs is not None else None,
    )


def _stable_length(text: str, stop: Sequence[str]) -> int:
    """Returns how much of a growing text can be shown: no incomplete characters, no start of a stop
    string.
    """
    safe = len(text)
    # The tokenizer decodes an incomplete UTF-8 sequence as U+FFFD; the next token completes it.
    while safe and text[safe - 1] == "\ufffd":
        safe -= 1
    for word in stop:
        for size in range(min(len(word) - 1, safe), 0, -1):
            if text[:safe].endswith(word[:size]):
                safe = min(safe, len(text[:safe]) - size)
                break
    return safe


class _ModelCard(msgspec.Struct):
    """The fields of a trained folder's `truing.json` that are needed."""

    kind: str = ""
    lineage: Lineage | None = None


def _lineage(weights: Weights, name: str, dtype: str) -> Lineage:
    card = Path(weights.path) / "truing.json"
    if card.is_file():
        try:
            claims = msgspec.json.decode(read_input_bytes(card), type=_ModelCard)
        except msgspec.DecodeError as error:
            raise UserError(f"{card}: {error}") from error
        if claims.lineage is not None:
            # A card may claim the hash of another model or judge. What training writes follows
            # from the files, so it can be checked; any other claim is replaced.
            written = {digest(kind, weights.sha256) for kind in (claims.kind, "merged")}
            if claims.lineage.hash in written:
                return claims.lineage
            return msgspec.structs.replace(claims.lineage, hash=digest(weights.sha256, dtype))
    return Lineage(
        name=name,
        hash=digest(weights.sha256, dtype),
        base=weights.title or weights.name,
        base_sha256=weights.sha256,
        licence=weights.licence,
    )
