"""HTTP to endpoints that answer JSON: one session, retries that listen, one window of requests per endpoint and key.

What an endpoint does wrong comes back as a `Failure`, never as an exception: ``timeout``, ``connect``, ``dropped``,
``tls``, ``auth``, ``rate_limited``, ``http``, ``unparsable``, ``too_large``. A 429 or a 5xx is asked again after its
Retry-After (plus a little jitter), others after an exponential time with full jitter (Brooker 2015). A secret never
stands in a message.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import os
import random
import re
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
from truing.specs.resolve import Args

T = TypeVar("T")

_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_BUSY = frozenset({429, 529})
_OUTAGE = 60.0  # seconds without any success after which a request is tried once only
_NEVER = 10.0  # the same where nothing ever succeeded
_UNPARSABLE_TRIES = 2
_TIMEOUT_TRIES = 2
_PARTS = 1000
_SPAN = re.compile(
    r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?$"
)


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How long to wait, how often to ask again, how much to read."""

    timeout: float = 120.0
    retries: int = 5
    max_wait: float = 120.0
    max_bytes: int = 8 << 20

    @classmethod
    def from_args(cls, args: Args) -> RetryPolicy:
        """From a spec's `timeout=`, `retries=`, `max_wait=`."""
        made = cls(
            timeout=args.number("timeout", 120.0),
            retries=args.integer("retries", 5),
            max_wait=args.number("max_wait", 120.0),
        )
        if made.timeout <= 0 or made.retries < 0 or made.max_wait < 0:
            raise args.fault("timeout must be above 0, retries and max_wait not below 0")
        return made


def read_budget(args: Args) -> RequestBudget:
    """From a spec's `budget_requests=` and `budget_tokens=`."""
    return RequestBudget(args.integer("budget_requests"), args.integer("budget_tokens"))


def validate_url(args: Args, text: str) -> str:
    """An http or https URL without a password; SpecError otherwise."""
    try:
        url = URL(text)
    except ValueError as error:
        raise args.fault(f"{text!r} is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise args.fault(f"{text!r} is no http or https URL")
    if url.user or url.password:
        raise SpecError(
            f"spec of kind {args.spec.kind!r}: secrets never stand in a URL; use api_key_env=NAME"
        )
    return text


class _Shared:
    """What all endpoints of one event loop share: the session, and a limiter for each origin and key."""

    def __init__(self) -> None:
        proxied = any(
            os.environ.get(k) for k in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        )
        self.limiters: dict[str, AdaptiveLimiter] = {}
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=proxied,
        )


_SHARED: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


def _shared() -> _Shared:
    loop = asyncio.get_running_loop()
    found = _SHARED.get(loop)
    if found is None or found.session.closed:
        found = _SHARED[loop] = _Shared()
        register_close_callback(found.session.close)
        _raise_file_limit()
    return found


def _raise_file_limit() -> None:
    """A thousand requests in flight need a thousand sockets; many systems start with 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, 65536), hard))
        except (ValueError, OSError):
            return


class _Trouble(Exception):
    """One try that did not work: why, whether another may, and how long the endpoint asks to wait."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        tries: int | None = None,
        wait: float | None = None,
        busy: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.tries, self.wait, self.busy = kind, message, tries, wait, busy


class Endpoint:
    """One URL of one account."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        patience: RetryPolicy | None = None,
        budget: RequestBudget | None = None,
    ) -> None:
        self.url = URL(url)
        self.patience = patience or RetryPolicy()
        self.budget = budget or RequestBudget()
        self._key = key or ""
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            **(headers or {}),
        }
        self.scope = digest(str(self.url.origin()), self._key)
        longest = self.patience.timeout
        self._timeout = aiohttp.ClientTimeout(total=longest, sock_connect=min(10.0, longest))
        self._worked = False
        self._failing_since: float | None = None

    def with_url(self, url: str) -> Endpoint:
        """Another path of the same account: with its key, patience and budget."""
        return Endpoint(
            url, key=self._key, headers=self._headers, patience=self.patience, budget=self.budget
        )

    @property
    def limiter(self) -> AdaptiveLimiter:
        """The window of this origin and key in the running event loop."""
        shared = _shared()
        found = shared.limiters.get(self.scope)
        if found is None:
            found = shared.limiters[self.scope] = AdaptiveLimiter(
                INITIAL_CONCURRENCY.get(), rate=RATE_LIMITS.get().get(self.scope)
            )
        return found

    @property
    def remote(self) -> bool:
        """Whether it is another machine than this one."""
        host = (self.url.host or "").rstrip(".").lower()
        if host == "localhost" or host.endswith(".localhost"):
            return False
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return True

    async def send_request(
        self, body: bytes, read: Callable[[bytes], T], method: str = "POST"
    ) -> T | Failure:
        """What `read` makes of the answer's bytes; it raises ValueError for what it cannot read."""
        attempt = 0
        while True:
            try:
                return await self._once(body, read, method)
            except _Trouble as trouble:
                attempt += 1
                allowed = (
                    self.patience.retries
                    if trouble.tries is None
                    else min(trouble.tries, self.patience.retries)
                )
                if not trouble.busy and self._is_down():
                    allowed = 0
                wait = self._pause(attempt, trouble.wait)
                if attempt > allowed or wait > self.patience.max_wait:
                    said = (
                        trouble.message
                        if attempt == 1
                        else f"{trouble.message} (asked {attempt} times)"
                    )
                    return Failure("model", trouble.kind, self._clean(said))
                parked = BACKOFF_CALLBACK.get()
                parked(True)
                try:
                    await asyncio.sleep(wait)
                finally:
                    parked(False)

    @staticmethod
    def _pause(attempt: int, asked: float | None) -> float:
        if asked is not None:
            return asked + random.uniform(0, min(0.05 * asked, 1.0))
        return random.uniform(0, min(30.0, 0.5 * 2**attempt))

    def _clean(self, message: str) -> str:
        said = " ".join(message.split())[:400]
        return said.replace(self._key, "***") if self._key else said

    async def _once(self, body: bytes, read: Callable[[bytes], T], method: str) -> T:
        shared, limiter = _shared(), self.limiter
        await limiter.acquire()
        try:
            self.budget.spend_request()
            started = time.monotonic()
            try:
                async with shared.session.request(
                    method,
                    self.url,
                    data=body,
                    headers=self._headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                ) as reply:
                    data = await self._read(reply)
                    self._note(reply, limiter, started)
                    if reply.status != 200:
                        raise _refused(reply, data)
                    try:
                        made = read(data)
                    except (ValueError, msgspec.MsgspecError) as error:
                        said = _unreadable(reply, data, error)
                        raise _Trouble("unparsable", said, tries=_UNPARSABLE_TRIES) from error
            except TimeoutError as error:
                limiter.record_response(time.monotonic() - started)
                said = f"no answer within {self.patience.timeout:g} s"
                raise _Trouble("timeout", said, tries=_TIMEOUT_TRIES) from error
            except (aiohttp.ClientError, OSError) as error:
                raise self._broken(error) from error
        finally:
            limiter.release()
        self._worked, self._failing_since = True, None
        return made

    def _is_down(self) -> bool:
        """Whether the endpoint has failed for so long that asking again makes no sense."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        return now - self._failing_since > (_OUTAGE if self._worked else _NEVER)

    def _broken(self, error: Exception) -> _Trouble:
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
            return _Trouble("tls", f"{self.url.host}: {error}", tries=0)
        if isinstance(error, aiohttp.ClientConnectorError):
            return _Trouble(
                "connect",
                f"no connection to {self.url.host}:{self.url.port}: {error.strerror or error}",
            )
        return _Trouble("dropped", f"the connection broke: {type(error).__name__} {error}")

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        most = self.patience.max_bytes
        length = reply.content_length
        if length is not None and length <= most:
            return await reply.read()
        parts: list[bytes] = []
        size = 0
        if length is None:
            async for part in reply.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > most:
                    break
            else:
                return b"".join(parts)
        reply.close()
        raise _Trouble("too_large", f"an answer of more than {most} bytes", tries=0)

    @staticmethod
    def _note(reply: aiohttp.ClientResponse, limiter: AdaptiveLimiter, started: float) -> None:
        headers = reply.headers
        limiter.record_response(time.monotonic() - started, throttled=reply.status in _BUSY)
        for what in ("requests", "tokens"):
            if headers.get(f"x-ratelimit-remaining-{what}") == "0":
                reset = parse_duration(headers.get(f"x-ratelimit-reset-{what}", ""))
                if reset is not None:
                    limiter.pause_for_quota(reset)

    async def stream(self, body: bytes) -> AsyncIterator[bytes]:
        """The data of server-sent events, one by one; raises ConnectionError with one line for what goes wrong."""
        limiter = self.limiter
        await limiter.acquire()
        try:
            self.budget.spend_request()
            async with _shared().session.post(
                self.url,
                data=body,
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as reply:
                if reply.status != 200:
                    raise ConnectionError(self._clean(_refused(reply, await reply.read()).message))
                async for line in reply.content:
                    if line.startswith(b"data:"):
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            return
                        yield data
        except TimeoutError as error:
            raise ConnectionError(f"no answer within {self.patience.timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise ConnectionError(self._broken(error).message) from error
        finally:
            limiter.release()


def find_endpoints(model: object) -> tuple[Endpoint, ...]:
    """Every endpoint that a model of this house asks, also through the models that it is made of.

    What a `python:` function asks cannot be seen. A wrapper that holds its model in some attribute needs no word of its
    own; one that does not (a pool of processes) lists them as `endpoints`.
    """
    found: dict[int, Endpoint] = {}
    seen: set[int] = set()
    todo: list[object] = [model]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Endpoint):
            found[id(item)] = item
        elif isinstance(item, list | tuple | dict):
            if len(item) <= _PARTS:  # more are answers that a model remembers
                todo += item.values() if isinstance(item, dict) else item
        elif type(item).__module__.startswith("truing.") and not isinstance(item, Struct):
            todo += [*getattr(item, "__dict__", {}).values(), *getattr(item, "endpoints", ())]
    return tuple(found.values())


class _Error(Struct):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _ErrorBody(Struct):
    error: _Error | str | None = None
    message: str | None = None
    detail: str | None = None


def _refused(reply: aiohttp.ClientResponse, data: bytes) -> _Trouble:
    said, code = "", ""
    try:
        body = msgspec.json.decode(data, type=_ErrorBody)
        inner = body.error
        said = (
            (inner.message if isinstance(inner, _Error) else inner)
            or body.message
            or body.detail
            or ""
        )
        code = f"{inner.code} {inner.type}" if isinstance(inner, _Error) else ""
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = "(HTML)" if data.lstrip()[:1] == b"<" else data[:200].decode("utf-8", "replace")
    message = f"{reply.status} {reply.reason or ''}: {said}".strip(": ")
    status = reply.status
    if status in (401, 403):
        return _Trouble("auth", message, tries=0)
    if status == 429 and "insufficient_quota" in code:
        return _Trouble("rate_limited", message, tries=0)
    if status in _RETRY:
        busy = status in _BUSY
        return _Trouble(
            "rate_limited" if busy else "http",
            message,
            wait=parse_retry_after(reply.headers),
            busy=busy,
        )
    return _Trouble("http", message, tries=0)


def _unreadable(reply: aiohttp.ClientResponse, data: bytes, error: Exception) -> str:
    if not data.strip():
        return "an empty answer with status 200"
    kind = reply.content_type
    if "json" not in kind:
        return f"an answer of type {kind}, not JSON"
    return f"an answer in another form: {error}"


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `Retry-After` (seconds or a date) asks for; none if it says nothing.

    A date is taken against the server's own `Date`, so that a clock of ours that is wrong or jumps changes nothing.
    """
    exact = headers.get("retry-after-ms")
    if exact is not None and exact.strip().isdigit():
        return int(exact) / 1000
    given = headers.get("Retry-After")
    if given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        at = email.utils.parsedate_tz(given)
        now = email.utils.parsedate_tz(headers.get("Date", ""))
        if at is None:
            return None
        return max(
            0.0,
            email.utils.mktime_tz(at)
            - (email.utils.mktime_tz(now) if now is not None else time.time()),
        )


def parse_duration(text: str) -> float | None:
    """Seconds of `20ms`, `1.5s`, `6m0s`, `2h`, or a bare number; none for anything else."""
    try:
        return float(text)
    except ValueError:
        found = _SPAN.match(text.strip())
    if not text.strip() or found is None:
        return None
    hours, minutes, seconds, thousandths = (float(g) if g else 0.0 for g in found.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
