"""The HTTP client for JSON endpoints, with retries, a request budget and adaptive concurrency.

All endpoints of an event loop share one session; endpoints with the same origin and key share one
limiter. An endpoint's error is returned as a `Failure`, never raised: ``timeout``, ``connect``,
``dropped``, ``tls``, ``auth``, ``rate_limited``, ``http``, ``unparsable``, ``too_large``. A message
never contains a secret, whatever the endpoint sends back; what is read of a reply is bounded
(`truing.http.bounds`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from truing.core.errors import PlanError, SpecError
from truing.core.lineage import digest
from truing.core.model_parts import iterate_parts
from truing.core.redaction import find_url_secrets, is_secret_header, redact_url
from truing.core.remote_calls import RemoteCalls
from truing.core.secret import Scrubber, Secret
from truing.core.text import escape_controls
from truing.core.types import Failure
from truing.http.bounds import BoundExceeded, ReplyBounds
from truing.http.limits import (
    BACKOFF_CALLBACK,
    INITIAL_CONCURRENCY,
    RATE_LIMITS,
    RESERVE_REQUEST,
    AdaptiveLimiter,
    RequestBudget,
)
from truing.http.replies import (
    parse_body,
    read_body,
    read_error_body,
    read_events,
    status_error,
)
from truing.http.retry import (
    THROTTLED_STATUSES,
    RequestError,
    RetryPolicy,
    backoff_delay,
    parse_duration,
)
from truing.http.session import get_connections
from truing.specs.keys import describe_unsent_key, is_loopback
from truing.specs.resolve import Args

T = TypeVar("T")

# An endpoint that has failed for so many seconds counts as down: requests are sent once, without
# retry.
_OUTAGE_SECONDS = 60.0
_OUTAGE_SECONDS_BEFORE_FIRST_SUCCESS = 10.0

_STREAM_RETRIES = 2
_TIMEOUT_RETRIES = 2
_MAX_MESSAGE_CHARS = 400
_MAX_CLEANED_CHARS = 1 << 16
_JSON_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


def read_budget(args: Args) -> RequestBudget:
    """Reads `budget_requests=` and `budget_tokens=` of a spec."""
    return RequestBudget(args.integer("budget_requests"), args.integer("budget_tokens"))


def validate_url(args: Args, text: str) -> str:
    """Returns the text if it is an http or https URL without a password; else raises SpecError."""
    redacted = redact_url(text)
    try:
        url = URL(text)
    except ValueError as error:
        raise args.fault(f"{redacted!r} is no URL") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise args.fault(f"{redacted!r} is no http or https URL")
    if url.user or url.password:
        # Not args.fault(): its message would show the spec, and with it the password.
        raise SpecError(
            f"spec of kind {args.spec.kind!r}: a URL must not contain secrets; use api_key_env=NAME"
        )
    return text


def join_url(base: str, path: str) -> str:
    """Returns the URL of a path below a base URL, whose query is kept."""
    address, mark, query = base.partition("?")
    return f"{address.rstrip('/')}/{path}{mark}{query}"


def bearer_headers(key: Secret | None) -> dict[str, Secret]:
    """Returns the header that carries an API key; none without one."""
    return {"Authorization": Secret.of(f"Bearer {key.reveal()}")} if key else {}


class StreamError(ConnectionError):
    """A stream failed; `failure` says how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Endpoint:
    """One URL with its API key, retry policy and budget.

    `url` is the address as it may be shown: secret parameters of the query are redacted. `key` is
    the API key that the headers carry; `secrets` are others that the requests carry (in the body).
    """

    def __init__(
        self,
        url: str,
        *,
        key: Secret | str | None = None,
        headers: Mapping[str, Secret | str] | None = None,
        secrets: Iterable[Secret] = (),
        retry_policy: RetryPolicy | None = None,
        budget: RequestBudget | None = None,
    ) -> None:
        self.url = URL(redact_url(url))
        # For hashes: without secrets, and independent of the environment.
        self.identity = str(URL(redact_url(url, environment={})))
        self.retry_policy = retry_policy or RetryPolicy()
        self.budget = budget or RequestBudget()
        self._url = Secret.of(url, str(self.url))
        self._key = Secret.of(key) if isinstance(key, str) else key
        self._headers = {
            name: value if isinstance(value, Secret) else Secret.of(value)
            for name, value in {**_JSON_HEADERS, **(headers or {})}.items()
        }
        self._secrets = tuple(secrets)
        self._scrubber = Scrubber(
            [
                *([self._key] if self._key else []),
                *(value for name, value in self._headers.items() if is_secret_header(name)),
                *find_url_secrets(url),
                *self._secrets,
            ]
        )
        self._bounds = ReplyBounds.of(self.retry_policy.max_bytes)
        # Names origin and account: endpoints with the same scope share a limiter and a rate limit.
        self.scope = digest(str(self.url.origin()), self._key.reveal() if self._key else "")
        timeout = self.retry_policy.timeout
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(10.0, timeout))
        self._has_succeeded = False
        self._failing_since: float | None = None
        # Seconds that the last 429 asked for; None if it named none.
        self.retry_after: float | None = None

    def with_url(self, url: str) -> Endpoint:
        """Returns an endpoint for another URL of the same server, with the same key, retry policy
        and budget. Raises ValueError for another server: the key was not given for that one.
        """
        if URL(url).origin() != self.url.origin():
            raise ValueError(f"{redact_url(url)} is not on {self.url.origin()}")
        return Endpoint(
            url,
            key=self._key,
            headers=self._headers,
            secrets=self._secrets,
            retry_policy=self.retry_policy,
            budget=self.budget,
        )

    @property
    def limiter(self) -> AdaptiveLimiter:
        """The limiter of this origin and key in the running event loop."""
        limiters = get_connections().limiters
        if self.scope not in limiters:
            rate, reserve = RATE_LIMITS.get().get(self.scope), RESERVE_REQUEST.get()
            limiters[self.scope] = AdaptiveLimiter(
                INITIAL_CONCURRENCY.get(),
                rate=rate,
                reserve=partial(reserve, self.scope) if reserve is not None else None,
            )
        return limiters[self.scope]

    @property
    def remote(self) -> bool:
        """Whether the host is another machine than this one."""
        return not is_loopback(self.url.host)

    async def send_request(
        self, body: bytes, parse: Callable[[bytes], T], method: str = "POST"
    ) -> T | Failure:
        """Sends a request, with retries, and returns the parsed reply or a `Failure`.

        `parse` turns the bytes of a reply with status 200 into the result; it raises ValueError if
        it cannot.
        """

        async def read(reply: aiohttp.ClientResponse) -> T:
            data = self._scrubber.scrub_reply(await read_body(reply, self._bounds))
            return parse_body(reply, data, parse, self._bounds)

        return await self._send_with_retries(body, read, method)

    async def send_streaming_request(
        self, body: bytes, collect: Callable[[AsyncIterator[bytes]], Awaitable[T]]
    ) -> T | Failure:
        """Sends a request, with retries, whose reply is a stream of server-sent events.

        `collect` makes the result of the data of all events; it raises ValueError if it cannot, and
        is called again for each attempt.
        """

        async def read(reply: aiohttp.ClientResponse) -> T:
            try:
                async with aclosing(self._read_events(reply)) as events:
                    return await collect(events)
            except BoundExceeded as error:
                raise RequestError("too_large", str(error), max_retries=0) from error
            except (ValueError, msgspec.MsgspecError, RecursionError) as error:
                raise RequestError(
                    "unparsable", _describe_error(error), max_retries=_STREAM_RETRIES
                ) from error

        return await self._send_with_retries(body, read, "POST")

    async def stream(self, body: bytes) -> AsyncGenerator[bytes, None]:
        """Yields the data of each server-sent event; raises StreamError if it fails."""
        try:
            async with (
                self._open(body, "POST") as reply,
                aclosing(self._read_events(reply)) as events,
            ):
                async for data in events:
                    yield data
        except RequestError as error:
            raise StreamError(self._failure(error)) from error

    async def _read_events(self, reply: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        async with aclosing(read_events(reply, self._bounds)) as events:
            async for data in events:
                yield self._scrubber.scrub_reply(data)

    async def _send_with_retries(
        self, body: bytes, read: Callable[[aiohttp.ClientResponse], Awaitable[T]], method: str
    ) -> T | Failure:
        attempt = 0
        while True:
            try:
                async with self._open(body, method) as reply:
                    return await read(reply)
            except RequestError as error:
                if error.throttled:
                    self.retry_after = error.retry_after
                attempt += 1
                delay = backoff_delay(attempt, error.retry_after)
                too_long = delay > self.retry_policy.max_wait
                if attempt > self._allowed_retries(error) or too_long:
                    return self._failure(error, attempt)
                await _wait_before_retry(delay)

    def _failure(self, error: RequestError, attempts: int = 1) -> Failure:
        message = error.message + (f" (asked {attempts} times)" if attempts > 1 else "")
        if error.kind == "auth" and self._key is None:
            message += f" ({describe_unsent_key(self.url)})"
        return Failure("model", error.kind, self.clean(message))

    def _allowed_retries(self, error: RequestError) -> int:
        # While an endpoint is down, each sample would otherwise wait through all of its retries.
        if not error.throttled and self._is_down():
            return 0
        if error.max_retries is None:
            return self.retry_policy.retries
        return min(error.max_retries, self.retry_policy.retries)

    def _is_down(self) -> bool:
        """Whether the endpoint has failed for so long that a retry is pointless."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        longest = _OUTAGE_SECONDS if self._has_succeeded else _OUTAGE_SECONDS_BEFORE_FIRST_SUCCESS
        return now - self._failing_since > longest

    def clean(self, message: str, *, cut_off: bool = False) -> str:
        """Returns what the endpoint wrote on one line, shortened, without secrets and without
        control characters. A message that was `cut_off` may end in the middle of a secret.
        """
        # Scrubbed before the last cut, which could leave a part of a secret.
        line = " ".join(message[:_MAX_CLEANED_CHARS].split())
        line = self._scrubber.scrub(line, cut_off=cut_off or len(message) > _MAX_CLEANED_CHARS)
        return escape_controls(line)[:_MAX_MESSAGE_CHARS]

    @asynccontextmanager
    async def _open(self, body: bytes, method: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends one request; yields its reply if the status is 200.

        Raises RequestError for another status, and for what goes wrong while the reply is read in
        the context.
        """
        limiter = self.limiter
        await limiter.acquire()
        try:
            # After the wait for a slot: a request that never left must not count.
            await self.budget.spend_request()
            started, has_replied = time.monotonic(), False
            try:
                async with get_connections().session.request(
                    method,
                    URL(self._url.reveal()),
                    data=body,
                    headers={name: value.reveal() for name, value in self._headers.items()},
                    timeout=self._timeout,
                    # A redirect could send the prompt and the key to another host.
                    allow_redirects=False,
                ) as reply:
                    has_replied = True
                    try:
                        if reply.status != 200:
                            body_start = await read_error_body(reply, self._bounds)
                            cut_off = len(body_start) >= self._bounds.error_bytes
                            clean = partial(self.clean, cut_off=cut_off)
                            raise status_error(reply, body_start, clean)
                        yield reply
                    finally:
                        self._update_limiter(reply, time.monotonic() - started)
            except TimeoutError as error:
                message = f"no answer within {self.retry_policy.timeout:g} s (timeout=)"
                if not has_replied:  # else it is counted already
                    limiter.record_response(time.monotonic() - started)
                raise RequestError("timeout", message, max_retries=_TIMEOUT_RETRIES) from error
            except (aiohttp.ClientError, OSError) as error:
                raise self._connection_error(error) from error
        finally:
            limiter.release()
        self._has_succeeded, self._failing_since = True, None

    def _connection_error(self, error: Exception) -> RequestError:
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            return RequestError("tls", f"{self.url.host}: {error}", max_retries=0)
        if isinstance(error, aiohttp.ClientConnectorError):
            place = f"{self.url.host}:{self.url.port}"
            return RequestError("connect", f"no connection to {place}: {error.strerror or error}")
        if isinstance(error, aiohttp.ClientResponseError):
            return RequestError("dropped", f"the reply is no valid HTTP: {error.message}")
        return RequestError("dropped", f"the connection broke: {type(error).__name__} {error}")

    def _update_limiter(self, reply: aiohttp.ClientResponse, seconds: float) -> None:
        """Passes the round trip and the endpoint's quota headers to the limiter."""
        limiter = self.limiter
        limiter.record_response(seconds, throttled=reply.status in THROTTLED_STATUSES)
        for quota in ("requests", "tokens"):
            if reply.headers.get(f"x-ratelimit-remaining-{quota}") == "0":
                reset = parse_duration(reply.headers.get(f"x-ratelimit-reset-{quota}", ""))
                if reset is not None:
                    # As long as a request would wait for its retry, and not as the endpoint likes.
                    limiter.pause_for_quota(min(reset, self.retry_policy.max_wait))


def _describe_error(error: Exception) -> str:
    return "JSON nested too deep" if isinstance(error, RecursionError) else str(error)


async def _wait_before_retry(delay: float) -> None:
    """Sleeps, and tells the scheduler so that it starts another request meanwhile."""
    on_backoff = BACKOFF_CALLBACK.get()
    on_backoff(True)
    try:
        await asyncio.sleep(delay)
    finally:
        on_backoff(False)


def find_endpoints(model: object) -> tuple[Endpoint, ...]:
    """Returns every endpoint that a model sends requests to, also through the models that it wraps.

    What a `python:` function sends cannot be seen.
    """
    return tuple(part for part in iterate_parts(model) if isinstance(part, Endpoint))


def share_budgets(calls: RemoteCalls | None, *wholes: object) -> None:
    """Counts the budgets in the specs of models and judges for all processes with the same ones.

    Raises PlanError for a budget that nothing counts: each process would spend all of it.
    """
    shared: set[int] = set()
    for number, endpoint in enumerate(find_endpoints(wholes)):
        budget = endpoint.budget
        if not budget.is_limited or id(budget) in shared:
            continue
        if calls is None:
            raise PlanError(
                f"{endpoint.url}: a budget of requests or tokens that no spec states cannot be "
                "counted for several workers; state budget_requests= or budget_tokens= in the spec"
            )
        shared.add(id(budget))  # the endpoints of a pool have one budget together
        budget.share(f"{number} {endpoint.identity}", calls)
