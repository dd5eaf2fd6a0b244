"""Protection against DNS rebinding, for a server without keys.

A web page can point its own host name at 127.0.0.1. To the browser its script then has the same
origin as the server, so that CORS does not stop it from reading the answers. But the `Host` header
of its requests is still the name of the page's host, so only loopback names are accepted.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.pipeline import refusal_response
from truing.specs.keys import is_loopback


class LocalHostOnly:
    """ASGI middleware that answers 421 to a request whose `Host` is not a name of this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or names_this_machine(_host_header(scope)):
            await self._app(scope, receive, send)
            return
        refusal = RequestRefused(
            421,
            "the Host header does not name this machine: a server without keys (--keys-env) "
            "answers only to localhost and loopback addresses",
        )
        status, headers, body = refusal_response(refusal)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _host_header(scope: Scope) -> str:
    """Returns the `Host` header; "" if there is none or more than one, which is refused."""
    values = [value for name, value in scope["headers"] if name.lower() == b"host"]
    return values[0].decode("latin-1") if len(values) == 1 else ""


@lru_cache(maxsize=256)
def names_this_machine(host: str) -> bool:
    """Returns whether a `Host` header is localhost or a loopback address, whatever its port."""
    try:
        parts = urlsplit(f"//{host}")
        is_plain = parts.netloc == host and parts.username is None and parts.port != 0
        return is_plain and is_loopback(parts.hostname)
    except ValueError:
        return False
