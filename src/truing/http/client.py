"""The HTTP client for JSON endpoints, with retries, a request budget and adaptive concurrency.

All endpoints of an event loop share one session; endpoints with the same origin and key share one
limiter. An endpoint's error is returned as a `Failure`, never raised: ``timeout``, ``connect``,
``dropped``, ``tls``, ``auth``, ``rate_limited``, ``http``, ``unparsable``, ``too_large``. A message
never contains the API key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar
from weakref import WeakKeyDictionary

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from truing.core.errors import SpecError
from truing.core.lineage import digest
from truing.core.types import Failure
from truing.http.limits import (
    BACKOFF_CALLBACK,
    INITIAL_CONCURRENCY,
    RATE_LIMITS,
    AdaptiveLimiter,
    RequestBudget,
    register_close_callback,
)
from truing.http.retry import (
    RETRYABLE_STATUSES,
    THROTTLED_STATUSES,
    RequestError,
    RetryPolicy,
    backoff_delay,
    parse_duration,
    parse_retry_after,
)
from truing.specs.resolve import Args

T = TypeVar("T")

# An endpoint that has failed for so many seconds counts as down: requests are sent once, without
# retry.
_OUTAGE_SECONDS = 60.0
_OUTAGE_SECONDS_BEFORE_FIRST_SUCCESS = 10.0

_UNPARSABLE_RETRIES = 2
_TIMEOUT_RETRIES = 2
_MAX_MESSAGE_CHARS = 400
_MAX_OPEN_FILES = 65536
_MAX_SEARCHED_ITEMS = 1000


def read_budget(args: Args) -> RequestBudget:
    """Reads `budget_requests=` and `budget_tokens=` of a spec."""
    return RequestBudget(args.integer("budget_requests"), args.integer("budget_tokens"))


def validate_url(args: Args, text: str) -> str:
    """Returns the text if it is an http or https URL without a password; else raises SpecError."""
    try:
        url = URL(text)
    except ValueError as error:
        raise args.fault(f"{text!r} is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise args.fault(f"{text!r} is no http or https URL")
    if url.user or url.password:
        # Not args.fault(): its message would show the spec, and with it the password.
        raise SpecError(
            f"spec of kind {args.spec.kind!r}: a URL must not contain secrets; use api_key_env=NAME"
        )
    return text


class _Connections:
    """What all endpoints of one event loop share: the session and the limiters."""

    def __init__(self) -> None:
        proxy_variables = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        self.limiters: dict[str, AdaptiveLimiter] = {}
        self.session = aiohttp.ClientSession(
            # No limit on connections: the limiters bound the requests in flight.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            # trust_env reads ~/.netrc for each request, so it is only set if a proxy is.
            trust_env=any(os.environ.get(name) for name in proxy_variables),
        )


_CONNECTIONS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections] = WeakKeyDictionary()


def _get_connections() -> _Connections:
    """Returns the connections of the running event loop; opens them at the first call."""
    loop = asyncio.get_running_loop()
    connections = _CONNECTIONS.get(loop)
    if connections is None or connections.session.closed:
        connections = _CONNECTIONS[loop] = _Connections()
        register_close_callback(connections.session.close)
        _raise_file_limit()
    return connections


def _raise_file_limit() -> None:
    """Raises the soft limit on open files.

    A thousand requests in flight need a thousand sockets; many systems start with 1,024 open files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(target, _MAX_OPEN_FILES), hard))
        except (ValueError, OSError):
            return


class Endpoint:
    """One URL with its API key, retry policy and budget."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_policy: RetryPolicy | None = None,
        budget: RequestBudget | None = None,
    ) -> None:
        self.url = URL(url)
        self.retry_policy = retry_policy or RetryPolicy()
        self.budget = budget or RequestBudget()
        self._key = key or ""
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            **(headers or {}),
        }
        # Names origin and account: endpoints with the same scope share a limiter and a rate limit.
        self.scope = digest(str(self.url.origin()), self._key)
        timeout = self.retry_policy.timeout
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(10.0, timeout))
        self._has_succeeded = False
        self._failing_since: float | None = None

    def with_url(self, url: str) -> Endpoint:
        """Returns an endpoint for another URL with the same key, retry policy and budget."""
        return Endpoint(
            url,
            key=self._key,
            headers=self._headers,
            retry_policy=self.retry_policy,
            budget=self.budget,
        )

    @property
    def limiter(self) -> AdaptiveLimiter:
        """The limiter of this origin and key in the running event loop."""
        limiters = _get_connections().limiters
        if self.scope not in limiters:
            rate = RATE_LIMITS.get().get(self.scope)
            limiters[self.scope] = AdaptiveLimiter(INITIAL_CONCURRENCY.get(), rate=rate)
        return limiters[self.scope]

    @property
    def remote(self) -> bool:
        """Whether the host is another machine than this one."""
        host = (self.url.host or "").rstrip(".").lower()
        if host == "localhost" or host.endswith(".localhost"):
            return False
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            # A host name; names are not resolved.
            return True

    async def send_request(
        self, body: bytes, parse: Callable[[bytes], T], method: str = "POST"
    ) -> T | Failure:
        """Sends a request, with retries, and returns the parsed reply or a `Failure`.

        `parse` turns the bytes of a reply with status 200 into the result; it raises ValueError if
        it cannot.
        """
        attempt = 0
        while True:
            try:
                return await self._send_once(body, parse, method)
            except RequestError as error:
                attempt += 1
                delay = backoff_delay(attempt, error.retry_after)
                too_long = delay > self.retry_policy.max_wait
                if attempt > self._allowed_retries(error) or too_long:
                    attempts = f" (asked {attempt} times)" if attempt > 1 else ""
                    return Failure("model", error.kind, self._clean(error.message + attempts))
                await _wait_before_retry(delay)

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

    def _clean(self, message: str) -> str:
        """Returns the message on one line, shortened, without the API key."""
        line = " ".join(message.split())
        if self._key:
            # Before the cut, which could leave a part of the key.
            line = line.replace(self._key, "***")
        return line[:_MAX_MESSAGE_CHARS]

    async def _send_once(self, body: bytes, parse: Callable[[bytes], T], method: str) -> T:
        """Sends one request; raises RequestError if it fails."""
        connections, limiter = _get_connections(), self.limiter
        await limiter.acquire()
        try:
            # After the wait for a slot: a request that never left must not count.
            self.budget.spend_request()
            started = time.monotonic()
            try:
                async with connections.session.request(
                    method,
                    self.url,
                    data=body,
                    headers=self._headers,
                    timeout=self._timeout,
                    # A redirect could send the prompt and the key to another host.
                    allow_redirects=False,
                ) as reply:
                    data = await self._read_body(reply)
                    _update_limiter(limiter, reply, time.monotonic() - started)
                    result = _parse_reply(reply, data, parse)
            except TimeoutError as error:
                limiter.record_response(time.monotonic() - started)
                message = f"no answer within {self.retry_policy.timeout:g} s"
                raise RequestError("timeout", message, max_retries=_TIMEOUT_RETRIES) from error
            except (aiohttp.ClientError, OSError) as error:
                raise self._connection_error(error) from error
        finally:
            limiter.release()
        self._has_succeeded, self._failing_since = True, None
        return result

    async def _read_body(self, reply: aiohttp.ClientResponse) -> bytes:
        """Reads the body, up to `max_bytes`; stops in the middle of a larger one."""
        max_bytes = self.retry_policy.max_bytes
        length = reply.content_length
        if length is not None and length <= max_bytes:
            return await reply.read()
        if length is None:
            # A chunked reply: its length is only known at the end.
            chunks: list[bytes] = []
            size = 0
            async for chunk in reply.content.iter_any():
                chunks.append(chunk)
                size += len(chunk)
                if size > max_bytes:
                    break
            else:
                return b"".join(chunks)
        reply.close()
        raise RequestError("too_large", f"an answer of more than {max_bytes} bytes", max_retries=0)

    def _connection_error(self, error: Exception) -> RequestError:
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            return RequestError("tls", f"{self.url.host}: {error}", max_retries=0)
        if isinstance(error, aiohttp.ClientConnectorError):
            place = f"{self.url.host}:{self.url.port}"
            return RequestError("connect", f"no connection to {place}: {error.strerror or error}")
        return RequestError("dropped", f"the connection broke: {type(error).__name__} {error}")

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        """Yields the data of each server-sent event; raises ConnectionError if it fails."""
        limiter = self.limiter
        await limiter.acquire()
        try:
            self.budget.spend_request()
            async with _get_connections().session.post(
                self.url,
                data=body,
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as reply:
                if reply.status != 200:
                    error_reply = _status_error(reply, await reply.read())
                    raise ConnectionError(self._clean(error_reply.message))
                async for line in reply.content:
                    if line.startswith(b"data:"):
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            return
                        yield data
        except TimeoutError as error:
            raise ConnectionError(f"no answer within {self.retry_policy.timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise ConnectionError(self._connection_error(error).message) from error
        finally:
            limiter.release()


async def _wait_before_retry(delay: float) -> None:
    """Sleeps, and tells the scheduler so that it starts another request meanwhile."""
    on_backoff = BACKOFF_CALLBACK.get()
    on_backoff(True)
    try:
        await asyncio.sleep(delay)
    finally:
        on_backoff(False)


def _update_limiter(
    limiter: AdaptiveLimiter, reply: aiohttp.ClientResponse, seconds: float
) -> None:
    """Passes the round trip and the endpoint's quota headers to the limiter."""
    limiter.record_response(seconds, throttled=reply.status in THROTTLED_STATUSES)
    for quota in ("requests", "tokens"):
        if reply.headers.get(f"x-ratelimit-remaining-{quota}") == "0":
            reset = parse_duration(reply.headers.get(f"x-ratelimit-reset-{quota}", ""))
            if reset is not None:
                limiter.pause_for_quota(reset)


def _parse_reply(reply: aiohttp.ClientResponse, data: bytes, parse: Callable[[bytes], T]) -> T:
    if reply.status != 200:
        raise _status_error(reply, data)
    try:
        return parse(data)
    except (ValueError, msgspec.MsgspecError) as error:
        if not data.strip():
            message = "an empty answer with status 200"
        elif "json" not in reply.content_type:
            message = f"an answer of type {reply.content_type}, not JSON"
        else:
            message = f"an answer in another form: {error}"
        raise RequestError("unparsable", message, max_retries=_UNPARSABLE_RETRIES) from error


class _ErrorDetail(Struct):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _ErrorBody(Struct):
    """An error's body: `error` (object or text; OpenAI), `message`, or `detail` (FastAPI)."""

    error: _ErrorDetail | str | None = None
    message: str | None = None
    detail: str | None = None


def _status_error(reply: aiohttp.ClientResponse, data: bytes) -> RequestError:
    """Returns the error for a status other than 200."""
    status = reply.status
    text, code = _read_error_body(data)
    message = f"{status} {reply.reason or ''}: {text}".strip(": ")
    if status in (401, 403):
        return RequestError("auth", message, max_retries=0)
    if status == 429 and "insufficient_quota" in code:
        # OpenAI also answers 429 when the account has no credit left: no wait helps.
        return RequestError("rate_limited", message, max_retries=0)
    if status not in RETRYABLE_STATUSES:
        return RequestError("http", message, max_retries=0)
    throttled = status in THROTTLED_STATUSES
    return RequestError(
        "rate_limited" if throttled else "http",
        message,
        retry_after=parse_retry_after(reply.headers),
        throttled=throttled,
    )


def _read_error_body(data: bytes) -> tuple[str, str]:
    """Returns the message and the error code of an error's body."""
    try:
        body = msgspec.json.decode(data, type=_ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        is_html = data.lstrip()[:1] == b"<"
        return "(HTML)" if is_html else data[:200].decode("utf-8", "replace"), ""
    if isinstance(body.error, _ErrorDetail):
        text, code = body.error.message, f"{body.error.code} {body.error.type}"
    else:
        text, code = body.error, ""
    return text or body.message or body.detail or "", code


def find_endpoints(model: object) -> tuple[Endpoint, ...]:
    """Returns every endpoint that a model sends requests to, also through the models that it wraps.

    Searches the attributes of truing's own objects, so a wrapper that stores its model in an
    attribute needs no extra code; an object that does not (a pool of processes) lists them as
    `endpoints`. What a `python:` function sends cannot be seen.
    """
    endpoints: dict[int, Endpoint] = {}
    visited: set[int] = set()
    pending: list[object] = [model]
    while pending:
        item = pending.pop()
        if id(item) in visited:
            continue
        visited.add(id(item))
        if isinstance(item, Endpoint):
            endpoints[id(item)] = item
        elif isinstance(item, list | tuple | dict):
            # Larger collections are caches of answers, not parts of a model.
            if len(item) <= _MAX_SEARCHED_ITEMS:
                pending += item.values() if isinstance(item, dict) else item
        elif type(item).__module__.startswith("truing.") and not isinstance(item, Struct):
            pending += [*getattr(item, "__dict__", {}).values(), *getattr(item, "endpoints", ())]
    return tuple(endpoints.values())
