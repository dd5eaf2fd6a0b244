"""Copies of a model in processes of their own, on this machine or over a Ray cluster:
`pool:4,of=(local:smollm2)`.

Arguments: `of` (the model, a spec), `cpus` and `gpus` of each copy (1 and 0), `address` (of a Ray
cluster: `auto`, `host:port`; without it `RAY_ADDRESS`, else this machine), `restarts` (how often a
copy that dies is started again, 3).

A request goes to the copy with the fewest in flight; concurrent requests are gathered inside each
copy. Name and lineage are those of the model itself: a pool changes how fast the answers come, not
what they are, so a run begun without a pool can be resumed with one. A budget in the inner spec
counts for each copy.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import (
    BudgetExceeded,
    MissingExtra,
    PlanError,
    SpecError,
    UserError,
    did_you_mean,
)
from truing.core.protocols import LogprobModel, Model, StreamingModel
from truing.core.secret import Secret
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.distributed.ray_address import check_reachable
from truing.http.limits import RATE_LIMITS, RESERVE_REQUEST
from truing.models.endpoint_pool import EndpointPool
from truing.models.endpoint_pool import build as build_endpoint_pool
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import Args, list_kinds, resolve

_OBJECT_STORE = 80 << 20  # bytes of Ray's object store: requests and answers are small
_WORKER_CONCURRENCY = 1000  # requests that a copy holds at the same time


class PoolOptions(Struct, frozen=True, kw_only=True):
    """How many copies, what each may use, and where."""

    copies: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    restarts: int = 3
    address: str | None = None


class _WorkerInfo(Struct, frozen=True):
    """Name and lineage of a worker's model, or the faults of its spec."""

    name: str = ""
    lineage: Lineage = Lineage()
    faults: tuple[str, ...] = ()


_encode = msgspec.msgpack.encode


class ModelWorker:
    """Runs in each process: the model behind methods that take and return encoded bytes.

    Bytes, not pickled objects: the two sides may run different versions of the package.
    """

    def __init__(self, spec: str) -> None:
        self._faults: tuple[str, ...] = ()
        self._model: Any = None
        try:
            self._model = resolve(spec, "model")
        except UserError as error:
            self._faults = tuple(error.faults)

    async def info(self) -> bytes:
        """Returns the encoded name and lineage, or the faults."""
        if self._model is None:
            return _encode(_WorkerInfo(faults=self._faults))
        return _encode(_WorkerInfo(self._model.name, self._model.lineage))

    async def generate(self, conversation: bytes, sampling: bytes, rates: bytes = b"") -> bytes:
        """Returns encoded answers; an exception of the model becomes failed answers.

        `rates` are the most requests a second of this copy to endpoints, by scope.
        """
        if rates:
            RATE_LIMITS.set(msgspec.msgpack.decode(rates, type=dict[str, float]))
        options = msgspec.msgpack.decode(sampling, type=Sampling)
        try:
            answers = await self._model.generate(
                msgspec.msgpack.decode(conversation, type=Conversation), options
            )
        except BudgetExceeded:
            raise
        except Exception as error:
            answers = (
                Answer.failed(
                    "exception", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                ),
            ) * options.n
        return _encode(answers)

    async def logprobs(self, prefix: bytes, continuations: list[str]) -> list[list[float]]:
        """See `LogprobModel`. Raises UserError if the model has no log-probabilities."""
        if not isinstance(self._model, LogprobModel):
            raise UserError(f"{self._model.name}: gives no log-probabilities")
        decoded: Conversation | str = msgspec.msgpack.decode(prefix, type=Conversation | str)
        return await self._model.logprobs(decoded, continuations)

    async def stream(self, conversation: bytes, sampling: bytes) -> AsyncIterator[str]:
        """Yields chunks of text, or the whole answer of a model that does not stream."""
        decoded = msgspec.msgpack.decode(conversation, type=Conversation)
        options = msgspec.msgpack.decode(sampling, type=Sampling)
        if isinstance(self._model, StreamingModel):
            async for text in self._model.stream(decoded, options):
                yield text
        else:
            yield (await self._model.generate(decoded, options))[0].text


class _Worker:
    """A Ray actor and the number of its requests in flight."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.in_flight = 0


class ModelPool:
    """A `Model` over copies of the model that a spec names; it streams and scores too.

    Ray is started at the first use.
    """

    def __init__(self, spec: Spec, options: PoolOptions | None = None) -> None:
        self.spec = Secret.of(spec.reveal(), str(spec))
        self.options = options or PoolOptions()
        self._workers: list[_Worker] = []
        self._first_worker: _WorkerInfo | None = None
        self._owns_ray = False

    @property
    def name(self) -> str:
        """That of the copied model, from the first copy."""
        return self._worker_info().name

    @property
    def lineage(self) -> Lineage:
        """That of the copied model, from the first copy."""
        return self._worker_info().lineage

    @property
    def parts(self) -> tuple[object, ...]:
        """What is inside of the copies: models that send requests, and agents."""
        spec = parse_spec(self.spec.reveal())
        models = [resolve(http_spec, "model") for http_spec in _find_http_specs(spec)]
        return (*models, *_find_agents(spec))

    def _worker_info(self) -> _WorkerInfo:
        if self._first_worker is None:
            ray = _ray()
            worker_info = msgspec.msgpack.decode(
                ray.get(self._start_workers()[0].actor.info.remote()), type=_WorkerInfo
            )
            if worker_info.faults:
                self._stop()
                raise SpecError(*worker_info.faults)
            self._first_worker = worker_info
        return self._first_worker

    def _start_workers(self) -> list[_Worker]:
        if self._workers:
            return self._workers
        ray, options = _ray(), self.options
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            _connect(ray, options)
        _check_resources(ray.cluster_resources(), options)
        actor_class = ray.remote(ModelWorker).options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            max_restarts=options.restarts,
            # Without it a request that was running when its copy died would fail although Ray
            # starts the copy again.
            max_task_retries=options.restarts,
            max_concurrency=_WORKER_CONCURRENCY,
        )
        self._workers = [
            _Worker(actor_class.remote(self.spec.reveal())) for _ in range(options.copies)
        ]
        return self._workers

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Sends the request to the copy with the fewest in flight; to another one if it dies for
        good.

        Each copy gets its share of a rate limit. Raises UserError for a limit that several
        processes share, which does not reach the copies.
        """
        if RESERVE_REQUEST.get() is not None:
            raise UserError(
                f"{self.name}: a rate limit of all workers does not reach the copies of a pool; "
                "leave the pool or the limit (--rate, --worker-rate) out"
            )
        n_copies = self.options.copies
        rates = _encode({scope: rate / n_copies for scope, rate in RATE_LIMITS.get().items()})
        encoded, options = _encode(conversation), _encode(sampling)
        reason = "no copy is left"
        while workers := self._start_workers():
            worker = min(workers, key=lambda w: w.in_flight)
            worker.in_flight += 1
            try:
                return msgspec.msgpack.decode(
                    await worker.actor.generate.remote(encoded, options, rates),
                    type=tuple[Answer, ...],
                )
            except BudgetExceeded as error:
                # Ray wraps an exception of the actor in one whose message holds the remote
                # traceback; the last line is the original message.
                raise BudgetExceeded(_last_line(error)) from None
            except _ray().exceptions.RayActorError as error:
                reason = _last_line(error)
                if worker in self._workers:
                    # Restarts are used up: later requests go to the copies that are left.
                    self._workers.remove(worker)
                if not self._workers:
                    break
            finally:
                worker.in_flight -= 1
        return (Answer.failed("worker", f"all copies of the model died: {reason}"),) * sampling.n

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the text as one copy generates it."""
        worker = min(self._start_workers(), key=lambda w: w.in_flight)
        worker.in_flight += 1
        try:
            chunks = worker.actor.stream.options(num_returns="streaming").remote(
                _encode(conversation), _encode(sampling)
            )
            async for chunk in chunks:
                yield await chunk
        finally:
            worker.in_flight -= 1

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `LogprobModel`."""
        worker = min(self._start_workers(), key=lambda w: w.in_flight)
        worker.in_flight += 1
        try:
            logprobs: list[list[float]] = await worker.actor.logprobs.remote(
                _encode(prefix), list(continuations)
            )
            return logprobs
        except UserError as error:
            raise UserError(_last_line(error)) from None
        finally:
            worker.in_flight -= 1

    async def close(self) -> None:
        """Stops the copies, and Ray if this pool started it. The pool may be closed twice and used
        again.
        """
        self._stop()

    def _stop(self) -> None:
        if not self._workers and not self._owns_ray:
            return
        ray = _ray()
        for worker in self._workers:
            ray.kill(worker.actor)
        self._workers = []
        if self._owns_ray:
            ray.shutdown()
            self._owns_ray = False


def _find_http_specs(spec: Spec) -> list[Spec]:
    if spec.kind in ("openai", "http") or "base_url" in spec.args:
        return [spec]
    return [
        http_spec
        for inner in spec.args.values()
        if isinstance(inner, Spec)
        for http_spec in _find_http_specs(inner)
    ]


class _PooledAgent:
    """An agent in the copies: a `LoopModel` that nothing can be put inside of, and the name of its
    tools if these act outside of a simulated world.
    """

    def __init__(self, real_tools: str) -> None:
        self.real_tools = real_tools

    def around_model(self, wrap: Callable[[Model], Model]) -> Model:
        """Raises PlanError: the agent's model is in other processes."""
        raise PlanError("the model of an agent in a pool cannot be wrapped")


def _find_agents(spec: Spec) -> list[_PooledAgent]:
    inner = [agent for v in spec.args.values() if isinstance(v, Spec) for agent in _find_agents(v)]
    if spec.kind == "agent":
        tools = str(spec.args.get("tools", ""))
        # Only the first word: the command of a server may hold secrets.
        is_real = tools.startswith(("python:", "mcp:"))
        inner.append(_PooledAgent(tools.split()[0] if is_real else ""))
    return inner


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "a pool of models") from error
    return ray


def _connect(ray: Any, options: PoolOptions) -> None:
    address = options.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address:
            check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                # Ray's CPUs are a count for scheduling: on a machine with fewer cores than copies
                # ask for, they would otherwise never be placed. (-int(-x // 1) rounds up.)
                num_cpus=max(os.cpu_count() or 1, -int(-options.copies * options.cpus // 1)),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"pool: no Ray at {address or 'this machine'}: {error}") from error


def _check_resources(available: dict[str, float], options: PoolOptions) -> None:
    """Raises UserError where a copy would wait for ever for its CPUs or GPUs."""
    for resource, each in (("CPU", options.cpus), ("GPU", options.gpus)):
        if available.get(resource, 0.0) < options.copies * each:
            raise UserError(
                f"pool: {options.copies} copies need {options.copies * each:g} {resource}s, and "
                f"Ray has {available.get(resource, 0.0):g}; use fewer copies, or "
                f"{resource.lower()}s=... for each"
            )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).removeprefix(f"{type(error).__name__}: ")[
        :300
    ]


def build(args: Args) -> ModelPool | EndpointPool:
    """Returns the model of a `pool:` spec; the copied model is built in the processes alone.

    With `urls=` it is a pool of endpoints (`truing.models.endpoint_pool`).
    """
    if "urls" in args.spec.args:
        return build_endpoint_pool(args)
    options = PoolOptions(
        copies=_read_copies(args),
        cpus=args.number("cpus", 1.0),
        gpus=args.number("gpus", 0.0),
        restarts=args.integer("restarts", 3),
        address=args.text("address"),
    )
    if options.copies < 1 or options.cpus < 0 or options.gpus < 0 or options.restarts < 0:
        raise args.fault("copies must be 1 or more; cpus, gpus and restarts not below 0")
    of = args.take_remaining().pop("of", None)
    unknown = [k for k in args.spec.args if k not in ("of", "cpus", "gpus", "restarts", "address")]
    if unknown:
        raise args.fault("; ".join(f"unknown argument {k!r}" for k in unknown))
    if of is None:
        raise args.fault("of=(...) is missing: the model to copy")
    inner = of if isinstance(of, Spec) else parse_spec(of)
    if inner.kind not in list_kinds("model"):
        raise args.fault(
            "there is no model of kind "
            f"{inner.kind!r}{did_you_mean(inner.kind, list_kinds('model'))}"
        )
    _ray()
    return ModelPool(inner, options)


def _read_copies(args: Args) -> int:
    try:
        return int(args.name or 2)
    except ValueError:
        raise args.fault(f"{args.name!r} is no number of copies: pool:4,of=(...)") from None
