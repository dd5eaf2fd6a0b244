"""Many endpoints of one model behind one spec:
`pool:NAME,urls="http://a:8000/v1 http://b:8000/v1*2"`.

`urls` are base URLs with spaces between them; `*2` behind one gives it twice the share. Further
arguments: `per_second` (requests of all endpoints together), `hedge` (seconds after which a request
that has no answer yet is sent to a second endpoint as well; 0, the default, never), and those of
`openai:`, which hold for each endpoint; `retries` and a budget are those of all together.

A request goes to the healthy endpoint with the fewest requests in flight for its weight. One that
answers 429 gets no new request for as long as it asks for, one that fails none for a time that
doubles; the request itself goes to another endpoint at once. Name and lineage are those of the
model: a run that was begun with one endpoint can go on with more.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from msgspec import Struct

from truing.core.errors import UserError
from truing.core.lineage import digest
from truing.core.redaction import redact_json
from truing.core.types import Answer, Conversation, Failure, Lineage, Sampling
from truing.http.client import StreamError, read_budget
from truing.http.retry import RetryPolicy, backoff_delay
from truing.models.openai import OpenAIModel
from truing.models.openai import build as build_openai
from truing.specs.parser import Spec
from truing.specs.resolve import Args

T = TypeVar("T")

MAX_ENDPOINTS = 256
_OWN_ARGUMENTS = frozenset({"urls", "per_second", "hedge", "retries", "max_wait"})
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 1.0, 60.0
_THROTTLED_PAUSE_SECONDS = 1.0  # where a 429 asks for no time of its own


class EndpointPoolOptions(Struct, frozen=True, kw_only=True):
    """Options of a pool: requests per second of all endpoints together (0 is no limit), seconds
    until a request is sent to a second endpoint (0 is never), rounds through all endpoints.
    """

    per_second: float = 0.0
    hedge: float = 0.0
    retries: int = 5
    max_wait: float = 120.0


class _Member:
    """An endpoint: its model, its weight, and what its last requests say of its health."""

    def __init__(self, model: OpenAIModel, weight: float) -> None:
        self.model, self.weight = model, weight
        self.in_flight = 0
        self.failures = 0  # since the last answer
        self.paused_until = 0.0

    def is_open(self, now: float) -> bool:
        """Whether it takes a request now; after failures one at a time, until one succeeds."""
        return now >= self.paused_until and not (self.failures and self.in_flight)

    @property
    def load(self) -> float:
        """Requests in flight for each unit of weight, with the one to come."""
        return (self.in_flight + 1) / self.weight

    def finish_request(self) -> None:
        """Counts the end of a request."""
        self.in_flight -= 1

    def record(self, failure: Failure | None) -> None:
        """Notes how a request ended: pauses the endpoint after a failure of its own."""
        if failure is None or not failure.transient:
            self.failures = 0
            return
        now = time.monotonic()
        if failure.kind == "rate_limited":
            # It works: it is left alone for as long as it asks for.
            retry_after = self.model.endpoint.retry_after
            pause = _THROTTLED_PAUSE_SECONDS if retry_after is None else retry_after
        else:
            self.failures += 1
            pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** (self.failures - 1), _LAST_PAUSE_SECONDS)
        self.paused_until = max(self.paused_until, now + pause)


class _Rate:
    """Spaces the requests of all endpoints evenly."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Waits until the next request may be sent."""
        if not self._interval:
            return
        now = time.monotonic()
        send_at = max(now, self._next)
        self._next = send_at + self._interval
        await asyncio.sleep(send_at - now)


class EndpointPool:
    """A `Model` over several endpoints that serve the same one; it streams and scores too.

    `models` are the endpoints, each of which sends a request once: the pool does the retries.
    """

    def __init__(
        self,
        models: Sequence[OpenAIModel],
        weights: Sequence[float] | None = None,
        options: EndpointPoolOptions | None = None,
    ) -> None:
        first = models[0]
        self.options = options or EndpointPoolOptions()
        self.name = first.name
        # Not of the addresses: which endpoint answers does not change what the model is.
        body = json.dumps(redact_json(first._body, environment={}), sort_keys=True)
        self.lineage = Lineage(name=self.name, hash=digest("pool", self.name, body))
        self._members = [_Member(m, w) for m, w in zip(models, weights or [1.0] * len(models))]
        self._rate = _Rate(self.options.per_second)

    @property
    def parts(self) -> tuple[object, ...]:
        """The models of the endpoints."""
        return tuple(member.model for member in self._members)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns `sampling.n` answers of one endpoint, or failed ones where none has any."""

        async def ask(model: OpenAIModel) -> tuple[tuple[Answer, ...], Failure | None]:
            answers = await model.generate(conversation, sampling)
            return answers, next((a.failure for a in answers if a.failure), None)

        rounds, tried = 0, set[int]()
        member = self._choose(tried)
        while True:
            answers, failure, asked_members = await self._ask_hedged(member, tried, ask)
            if failure is None or not failure.transient:
                return answers
            tried |= asked_members
            following = self._next(tried)
            if following is None:
                rounds += 1
                if not await self._wait_for_round(rounds):
                    return answers
                tried.clear()
                following = self._choose(tried)
            member = following

    def _next(self, excluded: set[int]) -> _Member | None:
        """Returns the open endpoint with the least load; None if there is none to ask now."""
        now = time.monotonic()
        members = [m for m in self._members if id(m) not in excluded and m.is_open(now)]
        return min(members, key=lambda m: m.load, default=None)

    def _choose(self, excluded: set[int]) -> _Member:
        """Returns the next endpoint, or the one that opens first where none is open.

        So a request always has an answer, or the failure of an endpoint.
        """
        return self._next(excluded) or min(self._members, key=lambda m: (m.paused_until, m.load))

    async def _wait_for_round(self, rounds: int) -> bool:
        """Waits until an endpoint is open again; returns False where the retries are used up."""
        if rounds > self.options.retries:
            return False
        opens_in = min(m.paused_until for m in self._members) - time.monotonic()
        delay = backoff_delay(rounds, max(opens_in, 0.05))
        if delay > self.options.max_wait:
            return False
        await asyncio.sleep(delay)
        return True

    async def _ask_hedged(
        self,
        member: _Member,
        tried: set[int],
        ask: Callable[[OpenAIModel], Awaitable[tuple[T, Failure | None]]],
    ) -> tuple[T, Failure | None, set[int]]:
        """Asks an endpoint, and after `hedge` seconds a second one; the first answer counts.

        Returns the result, its failure, and which endpoints failed.
        """
        tasks = {self._start(member, ask)}
        asked_members = {id(member)}
        timeout = self.options.hedge or None
        try:
            while True:
                done, _ = await asyncio.wait(
                    tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                timeout = None
                if not done:
                    second = self._next(tried | asked_members)
                    if second is not None:
                        asked_members.add(id(second))
                        tasks.add(self._start(second, ask))
                    continue
                for task in done:
                    tasks.remove(task)
                    result, failure = task.result()
                    if failure is None or not failure.transient or not tasks:
                        return result, failure, asked_members
        finally:
            # The slower request is given up: its connection closes, and the endpoint may stop.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self,
        member: _Member,
        ask: Callable[[OpenAIModel], Awaitable[tuple[T, Failure | None]]],
    ) -> asyncio.Task[tuple[T, Failure | None]]:
        async def send() -> tuple[T, Failure | None]:
            await self._rate.wait()
            result, failure = await ask(member.model)
            member.record(failure)
            return result, failure

        # Counted here and not in the task: the next request is sent before it runs.
        member.in_flight += 1
        task = asyncio.ensure_future(send())
        task.add_done_callback(lambda _: member.finish_request())
        return task

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        """Yields the text as an endpoint generates it; another one is asked until the first chunk.

        Raises StreamError where a stream breaks off, or where no endpoint begins one.
        """
        tried = set[int]()
        member: _Member | None = self._choose(tried)
        while member is not None:
            tried.add(id(member))
            has_begun = False
            member.in_flight += 1
            try:
                await self._rate.wait()
                async with aclosing(member.model.stream(conversation, sampling)) as chunks:
                    async for text in chunks:
                        has_begun = True
                        yield text
                member.record(None)
                return
            except StreamError as error:
                member.record(error.failure)
                following = self._next(tried)
                if has_begun or not error.failure.transient or following is None:
                    raise
            finally:
                member.in_flight -= 1
            member = following

    async def logprobs(
        self, prefix: Conversation | str, continuations: Sequence[str]
    ) -> list[list[float]]:
        """See `LogprobModel`: of one endpoint; of another one if it fails."""
        tried = set[int]()
        member = self._choose(tried)
        while True:
            tried.add(id(member))
            member.in_flight += 1
            try:
                await self._rate.wait()
                return await member.model.logprobs(prefix, continuations)
            except UserError:
                following = self._next(tried)
                if following is None:
                    raise
            finally:
                member.in_flight -= 1
            member = following


def build(args: Args) -> EndpointPool:
    """Returns the model of a `pool:` spec with `urls=`."""
    if not args.name:
        raise args.fault("give the model's name: pool:NAME,urls=...")
    endpoints = _read_urls(args)
    options = EndpointPoolOptions(
        per_second=args.number("per_second", 0.0),
        hedge=args.number("hedge", 0.0),
        retries=RetryPolicy.from_args(args).retries,
        max_wait=RetryPolicy.from_args(args).max_wait,
    )
    for name in ("per_second", "hedge"):
        value = getattr(options, name)
        if not (value >= 0 and math.isfinite(value)):
            raise args.fault(f"{name} must be 0 or more")
    budget = read_budget(args)
    args.take_remaining()  # known to `openai:`, which refuses the others
    shared_arguments = {
        key: value
        for key, value in args.spec.args.items()
        if key not in _OWN_ARGUMENTS and not key.startswith("budget_")
    }
    models = []
    for url, _ in endpoints:
        inner = Args(
            Spec("openai", args.name, {**shared_arguments, "base_url": url, "retries": "0"})
        )
        model: OpenAIModel = build_openai(inner)
        inner.reject_unknown()
        model.endpoint.budget = budget  # one for all
        models.append(model)
    return EndpointPool(models, [weight for _, weight in endpoints], options)


def _read_urls(args: Args) -> list[tuple[str, float]]:
    """Returns base URLs and weights; raises SpecError for what is none, or twice the same."""
    endpoints = []
    for word in args.text("urls", "").split():
        url, star, number = word.rpartition("*")
        try:
            weight = float(number) if star else 1.0
        except ValueError:
            raise args.fault(f"urls: *{number} is no weight") from None
        if not (weight > 0 and math.isfinite(weight)):
            raise args.fault(f"urls: the weight {number} is not above 0")
        endpoints.append((url if star else word, weight))
    urls = [url for url, _ in endpoints]
    if not 1 <= len(urls) <= MAX_ENDPOINTS:
        raise args.fault(f"urls: 1 to {MAX_ENDPOINTS} base URLs with spaces between them")
    if len(set(urls)) < len(urls):
        raise args.fault("urls: one address stands there twice; give it a weight: URL*2")
    return endpoints
