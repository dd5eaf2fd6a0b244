"""The app: all handlers, errors as pages or JSON, and the headers that keep foreign content out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from truing.annotation.store import Refused, Unavailable
from truing.serve.annotation import (
    routes_account,
    routes_admin,
    routes_auth,
    routes_dialogue,
    routes_results,
    routes_review,
)
from truing.serve.annotation.app_state import STATIC_TYPES, House
from truing.serve.annotation.session import Asked

_log = logging.getLogger(__name__)
STATUS = {
    "sign-in": 401,
    "forbidden": 403,
    "form": 403,
    "consent": 403,
    "budget": 403,
    "break": 403,
    "missing": 404,
    "late": 409,
    "order": 409,
    "closed": 409,
    "gone": 410,
    "used": 410,
    "long": 413,
    "invalid": 422,
    "slow": 429,
}
_ELSEWHERE = {"sign-in": "/sign-in", "consent": "/consent", "budget": "/rest", "break": "/rest"}
HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


@get("/static/{name:str}")
async def static(request: Asked, name: str) -> Response[bytes]:
    """Style and script, from the package; named by their content, so that browsers may keep them."""
    house: House = request.app.state.house
    found = house.static.get(name)
    if found is None:
        raise Refused("missing", "There is no such file.")
    kind = STATIC_TYPES[name[name.rindex(".") :]]
    return Response(
        found, media_type=kind, headers={"cache-control": "public, max-age=31536000, immutable"}
    )


@get("/healthz", media_type=MediaType.TEXT)
async def health(request: Asked) -> str:
    """`ok` where the database answers."""
    house: House = request.app.state.house
    await house.read(lambda tx: tx.now)
    return "ok"


def _said(request: Request[Any, Any, State], status: int, kind: str, message: str) -> Response[Any]:
    """An error as the asker can read it: JSON for a script, a page for a person."""
    if (
        request.headers.get("x-fetch") == "1"
        or request.headers.get("accept") == "text/event-stream"
    ):
        body = {"error": message, "kind": kind}
        if kind in _ELSEWHERE:
            body["go"] = _ELSEWHERE[kind]
        return Response(body, status_code=status)
    if kind in _ELSEWHERE:
        return Response(b"", status_code=303, headers={"location": _ELSEWHERE[kind]})
    house: House = request.app.state.house
    html = house.render(
        "error.html", me=None, csrf="", key="", path="", serving=False, kind=kind, message=message
    )
    return Response(html, media_type=MediaType.HTML, status_code=status)


def _refused(request: Request[Any, Any, State], error: Refused) -> Response[Any]:
    return _said(request, STATUS.get(error.kind, 400), error.kind, str(error))


def _unavailable(request: Request[Any, Any, State], error: Unavailable) -> Response[Any]:
    said = _said(request, 503, "unavailable", str(error))
    said.headers["retry-after"] = "2"
    return said


def _http(request: Request[Any, Any, State], error: HTTPException) -> Response[Any]:
    words = {
        404: "There is no such page.",
        405: "There is no such page.",
        413: "That is too large.",
    }
    return _said(
        request,
        error.status_code,
        "http",
        words.get(error.status_code, "The request could not be read."),
    )


def _broken(request: Request[Any, Any, State], error: Exception) -> Response[Any]:
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _said(
        request, 500, "broken", "Something broke here. Nothing that was sent before is lost."
    )


async def _dress(message: Message, scope: Scope) -> None:
    if message["type"] != "http.response.start":
        return
    headers = list(message.get("headers", []))
    known = {name.lower() for name, _ in headers}
    more = HEADERS if b"cache-control" in known else HEADERS | {b"cache-control": b"no-store"}
    message["headers"] = headers + [
        (name, value) for name, value in more.items() if name not in known
    ]


def redteam_app(house: House) -> Litestar:
    """The pages as an ASGI app."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        yield
        await house.close()

    handlers = [static, health]
    for room in (
        routes_auth,
        routes_account,
        routes_dialogue,
        routes_review,
        routes_results,
        routes_admin,
    ):
        handlers += room.HANDLERS
    return Litestar(
        handlers,
        state=State({"house": house, "board": routes_results.Board()}),
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=house.rules.body,
        before_send=[_dress],
        exception_handlers={
            Refused: _refused,
            Unavailable: _unavailable,
            HTTPException: _http,
            Exception: _broken,
        },
    )
