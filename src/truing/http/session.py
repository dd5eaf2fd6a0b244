"""The connections of an event loop: one session and the limiters that all its endpoints share."""

from __future__ import annotations

import asyncio
import os
import resource
from weakref import WeakKeyDictionary

import aiohttp

from truing.http.limits import AdaptiveLimiter, register_close_callback

_MAX_OPEN_FILES = 65536


class Connections:
    """What all endpoints of one event loop share: the session and the limiters."""

    def __init__(self) -> None:
        proxy_variables = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        self.limiters: dict[str, AdaptiveLimiter] = {}
        self.session = aiohttp.ClientSession(
            # No limit on connections: the limiters bound the requests in flight.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp decompresses without a bound (1 MB of gzip can be 1 GB); `replies` has one.
            auto_decompress=False,
            headers={"Accept-Encoding": "gzip, deflate"},
            # trust_env reads ~/.netrc for each request, so it is only set if a proxy is.
            trust_env=any(os.environ.get(name) for name in proxy_variables),
        )


_CONNECTIONS: WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = WeakKeyDictionary()


def get_connections() -> Connections:
    """Returns the connections of the running event loop; opens them at the first call."""
    loop = asyncio.get_running_loop()
    connections = _CONNECTIONS.get(loop)
    if connections is None or connections.session.closed:
        connections = _CONNECTIONS[loop] = Connections()
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
