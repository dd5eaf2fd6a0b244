"""vLLM in this process, or behind its own server.

    vllm:NAME                                       the engine in this process (the `vllm` extra; a GPU, or vLLM for CPUs)
    vllm:NAME,base_url=http://host:8000/v1          `vllm serve NAME` (no extra): as `openai:`, and log-probabilities too

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


class Home:
    """An event loop in a thread of its own; work is sent there from any other loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="truing-vllm", daemon=True
        )
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result; cancelling the caller cancels the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def stop(self) -> None:
        """Ends the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)


class VllmModel:
    """A `Model`, `Streams` and `Scored` on vLLM's asynchronous engine; the engine starts with the
    first call.
    """

    def __init__(self, weights: Weights, settings: dict[str, Any] | None = None) -> None:
        from truing.hf.loading import load_tokenizer
        from truing.models.local.template import Template

        self._vllm = _vllm()
        self.weights = weights
        self.name = f"vllm:{weights.name}"
        self._settings = settings or {}
        self._template = Template(load_tokenizer(weights.path))
        self._home: Home | None = None
        self._engine: Any = None
        self._starting = threading.Lock()
        dtype = str(self._settings.get("dtype", "auto"))
        self.lineage = Lineage(
            name=self.name,
            hash=digest("vllm", weights.sha256, dtype),
            licence=weights.licence,
            base=weights.title or weights.name,
            base_sha256=weights.sha256,
        )

    def _start(self) -> tuple[Home, Any]:
        with self._starting:
            if self._home is None:
                home = Home()
                made = asyncio.run_coroutine_threadsafe(self._make(), home.loop)
                try:
                    self._engine = made.result()
                except Exception as error:
                    home.stop()
                    raise UserError(f"{self.name}: vLLM does not start: {_said(error)}") from error
                self._home = home
            return self._home, self._engine

    async def _make(self) -> Any:
        made = self._vllm.AsyncEngineArgs(
            model=str(self.weights.path),
            disable_log_stats=True,
            enable_prefix_caching=True,
            **self._settings,
        )
        return self._vllm.AsyncLLMEngine.from_engine_args(made)

    def _params(self, sampling: Sampling, at: int, **more: Any) -> Any:
        given: dict[str, Any] = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop) or None,
            "logprobs": sampling.logprobs,
            "seed": stream_seed(sampling.seed, at) if sampling.temperature > 0 else None,
            "output_kind": self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        }
        return self._vllm.SamplingParams(**{**given, **more})

    async def _last(self, engine: Any, ids: Sequence[int], params: Any) -> Any:
        prompt = self._vllm.TokensPrompt(prompt_token_ids=list(ids))
        last = None
        async for out in engine.generate(prompt, params, uuid.uuid4().hex):
            last = out
        return last

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """`sampling.n` answers; concurrent calls are batched by the engine."""
        try:
            ids = self._template.prompt(conversation, sampling.tools).ids
        except (UserError, ValueError) as error:
            return (Answer.failed("template", str(error)),) * sampling.n
        home, engine = await asyncio.to_thread(self._start)
        return tuple(
            await asyncio.gather(
                *(self._one(home, engine, ids, sampling, at) for at in range(sampling.n))
            )
        )

    async def _one(
        self, home: Home, engine: Any, ids: Sequence[int], sampling: Sampling, at: int
    ) -> Answer:
        try:
            made = await home.run(self._last(engine, ids, self._params(sampling, at)))
        except (
            ValueError
        ) as error:  # vLLM refuses the request: too long for the model, a parameter out of range
            return Answer.failed("refused", _said(error))
        except Exception as error:
            return Answer.failed("engine", f"{type(error).__name__}: {_said(error)}")
        return _answer(made)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """The text of one answer as it is written; raises ConnectionError when the engine breaks
        off.
        """
        ids = self._template.prompt(conversation, sampling.tools).ids
        home, engine = await asyncio.to_thread(self._start)
        kind = self._vllm.sampling_params.RequestOutputKind.DELTA
        prompt = self._vllm.TokensPrompt(prompt_token_ids=list(ids))
        pieces = engine.generate(
            prompt, self._params(sampling, 0, output_kind=kind), uuid.uuid4().hex
        )
        try:
            while True:
                try:
                    out = await home.run(_next(pieces))
                except Exception as error:
                    raise ConnectionError(f"{type(error).__name__}: {_said(error)}") from error
                if out is None:
                    return
                if out.outputs and out.outputs[0].text:
                    yield out.outputs[0].text
        finally:
            await home.run(_close(pieces))

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `Scored`; by vLLM's prompt log-probabilities, so that the continuation is read and
        not written.
        """
        home, engine = await asyncio.to_thread(self._start)
        text = prefix if isinstance(prefix, str) else self._template.render(prefix)
        special = isinstance(prefix, str) or self._template.plain

        def encode(part: str) -> list[int]:
            return list(self._template.tokenizer(part, add_special_tokens=special).input_ids)

        start = len(encode(text))

        async def one(continuation: str) -> list[float]:
            ids = encode(text + continuation)
            params = self._params(Sampling(max_tokens=1), 0, prompt_logprobs=0)
            found = (await home.run(self._last(engine, ids, params))).prompt_logprobs
            return [float(found[k][ids[k]].logprob) for k in range(max(start, 1), len(ids))]

        return list(await asyncio.gather(*map(one, continuations)))

    async def close(self) -> None:
        """Ends the engine and its processes; may be called twice."""
        home, engine, self._home, self._engine = self._home, self._engine, None, None
        if home is not None:
            await asyncio.to_thread(engine.shutdown)
            await asyncio.to_thread(home.stop)


async def _next(pieces: Any) -> Any:
    return await anext(pieces, None)


async def _close(pieces: Any) -> None:
    await pieces.aclose()


def _answer(made: Any) -> Answer:
    out = made.outputs[0]
    usage = Usage(len(made.prompt_token_ids or ()), len(out.token_ids), made.num_cached_tokens or 0)
    if out.finish_reason not in ("stop", "length"):
        failure = Failure("model", "engine", f"the request ended by {out.finish_reason!r}")
        return Answer(
            message=Message("assistant"), finish_reason="error", usage=usage, failure=failure
        )
    return Answer(
        message=Message("assistant", out.text),
        finish_reason=out.finish_reason,
        usage=usage,
        logprobs=_logprobs(out),
    )


def _logprobs(out: Any) -> tuple[TokenLogprob, ...] | None:
    if out.logprobs is None:
        return None
    made = []
    for token, found in zip(out.token_ids, out.logprobs):
        top = tuple((str(p.decoded_token), float(p.logprob)) for p in found.values())
        made.append(TokenLogprob(str(found[token].decoded_token), float(found[token].logprob), top))
    return tuple(made)


def _said(error: BaseException) -> str:
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
    args.reject_unknown()  # a wrong argument is told before anything is loaded
    if not 0 < settings["gpu_memory_utilization"] <= 1:  # type: ignore[operator]
        raise args.fault("gpu_memory is a share of the card, above 0 and at most 1")
    _vllm()
    return VllmModel(find_weights(args.name), {k: v for k, v in settings.items() if v is not None})
