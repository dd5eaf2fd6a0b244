"""vLLM in this process, or behind its own server.

    vllm:NAME                               the engine in this process (extra `vllm`)
    vllm:NAME,base_url=http://host:8000/v1  `vllm serve NAME` (no extra): as `openai:`, and
                                            log-probabilities too

NAME is a folder, a name that truing knows, or a hub id. Arguments of the first form: `dtype`,
`gpu_memory` (the share of the card, 0.9), `max_length` (tokens of prompt and answer),
`tensor_parallel`; of the second: those of `openai:`.

Each answer is a request of its own with a seed of its own, so that the k-th answer is the same
whatever n is; what they have in common is read once (vLLM's prefix cache). The engine lives in an
event loop of its own: a run, a server and a notebook can use one model.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from truing.core.errors import MissingExtra, UserError
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Lineage,
    Message,
    Sampling,
    TokenLogprob,
    Usage,
)
from truing.hf.weights import Weights, find_weights
from truing.models.vllm_server import VllmServer
from truing.models.vllm_server import build as build_server
from truing.specs.resolve import Args

T = TypeVar("T")


class EventLoopThread:
    """An event loop in its own thread; coroutines are sent there from any other loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="truing-vllm", daemon=True
        )
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns the result of a coroutine; cancelling the caller cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def stop(self) -> None:
        """Stops the thread and closes the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self.loop.close()


class VllmModel:
    """A model on vLLM's asynchronous engine, which starts with the first call."""

    def __init__(self, weights: Weights, settings: dict[str, Any] | None = None) -> None:
        from truing.hf.loading import load_tokenizer
        from truing.models.local.template import ChatTemplate

        self._vllm = _vllm()
        self.weights = weights
        self.name = f"vllm:{weights.name}"
        self._settings = settings or {}
        self._template = ChatTemplate(load_tokenizer(weights.path))
        self._loop_thread: EventLoopThread | None = None
        self._engine: Any = None
        # A thread lock, not an asyncio one: callers may come from several event loops.
        self._starting = threading.Lock()
        dtype = str(self._settings.get("dtype", "auto"))
        self.lineage = Lineage(
            name=self.name,
            hash=digest("vllm", weights.sha256, dtype),
            licence=weights.licence,
            base=weights.title or weights.name,
            base_sha256=weights.sha256,
        )

    def _start_engine(self) -> tuple[EventLoopThread, Any]:
        with self._starting:
            if self._loop_thread is None:
                loop_thread = EventLoopThread()
                # The engine binds to the loop that runs when it is created, so it is created on
                # the thread.
                output = asyncio.run_coroutine_threadsafe(self._create_engine(), loop_thread.loop)
                try:
                    self._engine = output.result()
                except Exception as error:
                    loop_thread.stop()
                    raise UserError(
                        f"{self.name}: vLLM does not start: {_error_text(error)}"
                    ) from error
                self._loop_thread = loop_thread
            return self._loop_thread, self._engine

    async def _create_engine(self) -> Any:
        output = self._vllm.AsyncEngineArgs(
            model=str(self.weights.path),
            disable_log_stats=True,
            enable_prefix_caching=True,
            **self._settings,
        )
        return self._vllm.AsyncLLMEngine.from_engine_args(output)

    def _sampling_params(self, sampling: Sampling, index: int, **overrides: Any) -> Any:
        params: dict[str, Any] = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop) or None,
            "logprobs": sampling.logprobs,
            # Greedy decoding needs no seed.
            "seed": stream_seed(sampling.seed, index) if sampling.temperature > 0 else None,
            "output_kind": self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        }
        return self._vllm.SamplingParams(**{**params, **overrides})

    async def _run_request(self, engine: Any, ids: Sequence[int], params: Any) -> Any:
        prompt = self._vllm.TokensPrompt(prompt_token_ids=list(ids))
        last = None
        async for result in engine.generate(prompt, params, uuid.uuid4().hex):
            last = result
        return last

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers; the engine batches concurrent calls."""
        try:
            ids = self._template.prompt(conversation, sampling.tools).ids
        except (UserError, ValueError) as error:
            return (Answer.failed("template", str(error)),) * sampling.n
        loop_thread, engine = await asyncio.to_thread(self._start_engine)
        return tuple(
            await asyncio.gather(
                *(
                    self._generate_one(loop_thread, engine, ids, sampling, index)
                    for index in range(sampling.n)
                )
            )
        )

    async def _generate_one(
        self,
        loop_thread: EventLoopThread,
        engine: Any,
        ids: Sequence[int],
        sampling: Sampling,
        index: int,
    ) -> Answer:
        try:
            output = await loop_thread.run(
                self._run_request(engine, ids, self._sampling_params(sampling, index))
            )
        except (
            ValueError
        ) as error:  # vLLM refuses the request: too long for the model, a parameter out of range
            return Answer.failed("refused", _error_text(error))
        except Exception as error:
            return Answer.failed("engine", f"{type(error).__name__}: {_error_text(error)}")
        return _read_output(output)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the text of one answer. Raises ConnectionError when the engine breaks off."""
        ids = self._template.prompt(conversation, sampling.tools).ids
        loop_thread, engine = await asyncio.to_thread(self._start_engine)
        kind = self._vllm.sampling_params.RequestOutputKind.DELTA
        prompt = self._vllm.TokensPrompt(prompt_token_ids=list(ids))
        chunks = engine.generate(
            prompt, self._sampling_params(sampling, 0, output_kind=kind), uuid.uuid4().hex
        )
        try:
            while True:
                try:
                    request_output = await loop_thread.run(_next(chunks))
                except Exception as error:
                    raise ConnectionError(
                        f"{type(error).__name__}: {_error_text(error)}"
                    ) from error
                if request_output is None:
                    return
                if request_output.outputs and request_output.outputs[0].text:
                    yield request_output.outputs[0].text
        finally:
            # Runs when the consumer stops early too: an abandoned generator would leave the
            # request running in the engine.
            await loop_thread.run(_close(chunks))

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `LogprobModel`; by vLLM's log-probabilities of the prompt, without generation."""
        loop_thread, engine = await asyncio.to_thread(self._start_engine)
        text = prefix if isinstance(prefix, str) else self._template.render(prefix)
        # A rendered chat template already holds its BOS token: a second one would change the
        # scores.
        special = isinstance(prefix, str) or self._template.plain

        def encode(part: str) -> list[int]:
            return list(self._template.tokenizer(part, add_special_tokens=special).input_ids)

        start = len(encode(text))

        async def one(continuation: str) -> list[float]:
            ids = encode(text + continuation)
            params = self._sampling_params(Sampling(max_tokens=1), 0, prompt_logprobs=0)
            prompt_logprobs = (
                await loop_thread.run(self._run_request(engine, ids, params))
            ).prompt_logprobs
            return [
                # Position 0 has no log-probability: nothing precedes it.
                float(prompt_logprobs[k][ids[k]].logprob)
                for k in range(max(start, 1), len(ids))
            ]

        return list(await asyncio.gather(*map(one, continuations)))

    async def close(self) -> None:
        """Shuts the engine and its processes down; may be called twice."""
        loop_thread, engine, self._loop_thread, self._engine = (
            self._loop_thread,
            self._engine,
            None,
            None,
        )
        if loop_thread is not None:
            await asyncio.to_thread(engine.shutdown)
            await asyncio.to_thread(loop_thread.stop)


async def _next(chunks: Any) -> Any:
    return await anext(chunks, None)


async def _close(chunks: Any) -> None:
    await chunks.aclose()


def _read_output(output: Any) -> Answer:
    completion = output.outputs[0]
    usage = Usage(
        len(output.prompt_token_ids or ()), len(completion.token_ids), output.num_cached_tokens or 0
    )
    # The other reasons ("abort" among them) leave a text that is incomplete.
    if completion.finish_reason not in ("stop", "length"):
        failure = Failure("model", "engine", f"the request ended by {completion.finish_reason!r}")
        return Answer(
            message=Message("assistant"), finish_reason="error", usage=usage, failure=failure
        )
    return Answer(
        message=Message("assistant", completion.text),
        finish_reason=completion.finish_reason,
        usage=usage,
        logprobs=_logprobs(completion),
    )


def _logprobs(result: Any) -> tuple[TokenLogprob, ...] | None:
    if result.logprobs is None:
        return None
    output = []
    for token, prompt_logprobs in zip(result.token_ids, result.logprobs):
        top = tuple((str(p.decoded_token), float(p.logprob)) for p in prompt_logprobs.values())
        output.append(
            TokenLogprob(
                str(prompt_logprobs[token].decoded_token),
                float(prompt_logprobs[token].logprob),
                top,
            )
        )
    return tuple(output)


def _error_text(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _vllm() -> Any:
    try:
        import vllm
        import vllm.sampling_params
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "vllm", "an engine in this process (vllm:NAME without base_url)"
        ) from error
    return vllm


def build(args: Args) -> VllmModel | VllmServer:
    """The model of a `vllm:` spec."""
    if not args.name:
        raise args.fault("give the model: vllm:NAME")
    if "base_url" in args.spec.args:
        return build_server(args)
    settings = {
        "dtype": args.text("dtype", "auto"),
        "gpu_memory_utilization": args.number("gpu_memory", 0.9),
        "max_model_len": args.integer("max_length"),
        "tensor_parallel_size": args.integer("tensor_parallel", 1),
    }
    args.reject_unknown()  # report a wrong argument before anything is loaded
    if not 0 < settings["gpu_memory_utilization"] <= 1:  # type: ignore[operator]
        raise args.fault("gpu_memory is a share of the card, above 0 and at most 1")
    _vllm()
    return VllmModel(find_weights(args.name), {k: v for k, v in settings.items() if v is not None})
