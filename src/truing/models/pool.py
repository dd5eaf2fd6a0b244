"""Copies of a model in processes of their own, on this machine or over a Ray cluster:
`pool:4,of=(local:smollm2)`.

Arguments: `of` (the model, a spec), `cpus` and `gpus` of each copy (1 and 0), `address` (of a Ray
cluster: `auto`, `host:port`; without it `RAY_ADDRESS`, else this machine), `restarts` (how often a
copy that dies is started again, 3).

A request goes to the copy with the fewest in flight; concurrent requests are gathered inside each
copy. Name and lineage are those of the model itself: a pool changes how fast the answers come, not
what they are, so a run begun without it goes on with it. A budget in the inner spec counts for each
copy.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import BudgetExceeded, MissingExtra, SpecError, UserError, did_you_mean
from truing.core.protocols import LogprobModel, StreamingModel
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import Args, list_kinds, resolve

_STORE = 80 << 20  # bytes of Ray's object store: requests and answers are small
_GATHERED = 1000  # requests that a copy holds at the same time


class Size(Struct, frozen=True, kw_only=True):
    """How many copies, what each may use, and where."""

    copies: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    restarts: int = 3
    address: str | None = None


class _Face(Struct, frozen=True):
    """What a copy says of itself, or the faults of its spec."""

    name: str = ""
    lineage: Lineage = Lineage()
    faults: tuple[str, ...] = ()


_encode = msgspec.msgpack.encode


class Copy:
    """What runs in each process: the model, asked with bytes, so that both sides may be of
    different versions.
    """

    def __init__(self, spec: str) -> None:
        self._faults: tuple[str, ...] = ()
        self._model: Any = None
        try:
            self._model = resolve(spec, "model")
        except UserError as error:
            self._faults = tuple(error.faults)

    async def face(self) -> bytes:
        """Name, lineage, faults."""
        if self._model is None:
            return _encode(_Face(faults=self._faults))
        return _encode(_Face(self._model.name, self._model.lineage))

    async def generate(self, conversation: bytes, sampling: bytes) -> bytes:
        """Answers, encoded; an exception of the model becomes failures, so that none has to be
        sent.
        """
        asked = msgspec.msgpack.decode(conversation, type=Conversation)
        how = msgspec.msgpack.decode(sampling, type=Sampling)
        try:
            made = await self._model.generate(asked, how)
        except BudgetExceeded:
            raise
        except Exception as error:
            made = (
                Answer.failed(
                    "exception", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                ),
            ) * how.n
        return _encode(made)

    async def logprobs(self, prefix: bytes, continuations: list[str]) -> list[list[float]]:
        """See `Scored`; UserError where the model has none."""
        if not isinstance(self._model, LogprobModel):
            raise UserError(f"{self._model.name}: gives no log-probabilities")
        asked: Conversation | str = msgspec.msgpack.decode(prefix, type=Conversation | str)
        return await self._model.logprobs(asked, continuations)

    async def stream(self, conversation: bytes, sampling: bytes) -> AsyncIterator[str]:
        """Pieces of text, or the whole answer where the model gives no pieces."""
        asked = msgspec.msgpack.decode(conversation, type=Conversation)
        how = msgspec.msgpack.decode(sampling, type=Sampling)
        if isinstance(self._model, StreamingModel):
            async for piece in self._model.stream(asked, how):
                yield piece
        else:
            yield (await self._model.generate(asked, how))[0].text


class _Seat:
    """A copy as the pool sees it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.busy = 0


class Pool:
    """A `Model`, `Streams` and `Scored` over copies of the model that a spec names; starts Ray at
    its first use.
    """

    def __init__(self, spec: Spec, size: Size | None = None) -> None:
        self.spec = str(spec)
        self.size = size or Size()
        self._seats: list[_Seat] = []
        self._face: _Face | None = None
        self._mine = False

    @property
    def name(self) -> str:
        """The model's own; asks the first copy."""
        return self._known().name

    @property
    def lineage(self) -> Lineage:
        """The model's own; asks the first copy."""
        return self._known().lineage

    @property
    def endpoints(self) -> tuple[Any, ...]:
        """What the copies will ask over the network (`truing.http.client.find_endpoints`)."""
        from truing.http.client import find_endpoints

        return tuple(
            e
            for spec in _over_http(parse_spec(self.spec))
            for e in find_endpoints(resolve(spec, "model"))
        )

    def _known(self) -> _Face:
        if self._face is None:
            ray = _ray()
            face = msgspec.msgpack.decode(ray.get(self._start()[0].actor.face.remote()), type=_Face)
            if face.faults:
                self._stop()
                raise SpecError(*face.faults)
            self._face = face
        return self._face

    def _start(self) -> list[_Seat]:
        if self._seats:
            return self._seats
        ray, size = _ray(), self.size
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(ray, size)
        _check(ray.cluster_resources(), size)
        made = ray.remote(Copy).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            max_restarts=size.restarts,
            max_task_retries=size.restarts,
            max_concurrency=_GATHERED,
        )
        self._seats = [_Seat(made.remote(self.spec)) for _ in range(size.copies)]
        return self._seats

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Asks the copy with the fewest requests in flight; where one is lost for good, another."""
        asked, how = _encode(conversation), _encode(sampling)
        lost = "no copy is left"
        while seats := self._start():
            seat = min(seats, key=lambda s: s.busy)
            seat.busy += 1
            try:
                return msgspec.msgpack.decode(
                    await seat.actor.generate.remote(asked, how), type=tuple[Answer, ...]
                )
            except BudgetExceeded as error:
                raise BudgetExceeded(_last_line(error)) from None
            except _ray().exceptions.RayActorError as error:
                lost = _last_line(error)
                if seat in self._seats:
                    self._seats.remove(seat)
                if not self._seats:
                    break
            finally:
                seat.busy -= 1
        return (Answer.failed("worker", f"all copies of the model died: {lost}"),) * sampling.n

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """The text as one copy writes it."""
        seat = min(self._start(), key=lambda s: s.busy)
        seat.busy += 1
        try:
            pieces = seat.actor.stream.options(num_returns="streaming").remote(
                _encode(conversation), _encode(sampling)
            )
            async for piece in pieces:
                yield await piece
        finally:
            seat.busy -= 1

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `Scored`."""
        seat = min(self._start(), key=lambda s: s.busy)
        seat.busy += 1
        try:
            found: list[list[float]] = await seat.actor.logprobs.remote(
                _encode(prefix), list(continuations)
            )
            return found
        except UserError as error:
            raise UserError(_last_line(error)) from None
        finally:
            seat.busy -= 1

    async def close(self) -> None:
        """Ends the copies, and Ray if this pool started it; may be called twice, and used again."""
        self._stop()

    def _stop(self) -> None:
        if not self._seats and not self._mine:
            return
        ray = _ray()
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats = []
        if self._mine:
            ray.shutdown()
            self._mine = False


def _over_http(spec: Spec) -> list[Spec]:
    if spec.kind in ("openai", "http") or "base_url" in spec.args:
        return [spec]
    return [
        found
        for inner in spec.args.values()
        if isinstance(inner, Spec)
        for found in _over_http(inner)
    ]


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "a pool of models") from error
    return ray


def _connect(ray: Any, size: Size) -> None:
    address = size.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address:
            _reach(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                num_cpus=max(os.cpu_count() or 1, -int(-size.copies * size.cpus // 1)),
                include_dashboard=False,
                object_store_memory=_STORE,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"pool: no Ray at {address or 'this machine'}: {error}") from error


def _reach(address: str) -> None:
    """Ray waits minutes for a cluster that is not there; a connection tells at once."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()


def _check(have: dict[str, float], size: Size) -> None:
    """A copy that finds no room would wait for ever: say so instead."""
    for what, each in (("CPU", size.cpus), ("GPU", size.gpus)):
        if have.get(what, 0.0) < size.copies * each:
            raise UserError(
                f"pool: {size.copies} copies need {size.copies * each:g} {what}s, and Ray has "
                f"{have.get(what, 0.0):g}; use fewer copies, or {what.lower()}s=... for each"
            )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).removeprefix(f"{type(error).__name__}: ")[
        :300
    ]


def build(args: Args) -> Pool:
    """The model of a `pool:` spec; the model itself is built in each process, and nowhere else."""
    size = Size(
        copies=_copies(args),
        cpus=args.number("cpus", 1.0),
        gpus=args.number("gpus", 0.0),
        restarts=args.integer("restarts", 3),
        address=args.text("address"),
    )
    if size.copies < 1 or size.cpus < 0 or size.gpus < 0 or size.restarts < 0:
        raise args.fault("copies must be 1 or more; cpus, gpus and restarts not below 0")
    given = args.take_remaining().pop("of", None)
    unknown = [k for k in args.spec.args if k not in ("of", "cpus", "gpus", "restarts", "address")]
    if unknown:
        raise args.fault("; ".join(f"unknown argument {k!r}" for k in unknown))
    if given is None:
        raise args.fault("of=(...) is missing: the model to copy")
    inner = given if isinstance(given, Spec) else parse_spec(given)
    if inner.kind not in list_kinds("model"):
        raise args.fault(
            "there is no model of kind "
            f"{inner.kind!r}{did_you_mean(inner.kind, list_kinds('model'))}"
        )
    _ray()
    return Pool(inner, size)


def _copies(args: Args) -> int:
    try:
        return int(args.name or 2)
    except ValueError:
        raise args.fault(f"{args.name!r} is no number of copies: pool:4,of=(...)") from None
