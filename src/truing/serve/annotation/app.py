"""The ASGI app: routes, error responses as HTML or JSON, security headers."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from truing.annotation.store import DatabaseUnavailable, RequestRejected
from truing.serve.annotation import (
    routes_account,
    routes_admin,
    routes_auth,
    routes_dialogue,
    routes_results,
    routes_review,
)
from truing.serve.annotation.app_state import AppState
from truing.serve.annotation.session import AppRequest, PathParam
from truing.serve.page_files import static_response
from truing.serve.page_headers import SECURITY_HEADERS, STATUS_BY_KIND, add_headers

_log = logging.getLogger(__name__)
# Rejections that lead to a page instead of an error message.
_REDIRECTS = {"sign-in": "/sign-in", "consent": "/consent", "budget": "/rest", "break": "/rest"}
_HTTP_MESSAGES = {
    404: "There is no such page.",
    405: "There is no such page.",
    413: "That is too large.",
}


@get("/static/{name:str}")
async def static_file(request: AppRequest, name: PathParam) -> Response[bytes]:
    """Serves static files."""
    state: AppState = request.app.state.annotation
    return static_response(state.static, name)


@get("/healthz", media_type=MediaType.TEXT)
async def health(request: AppRequest) -> str:
    """Returns `ok` if the database answers."""
    state: AppState = request.app.state.annotation
    await state.read(lambda tx: tx.now)
    return "ok"


def _error_response(
    request: Request[Any, Any, State], status: int, kind: str, message: str
) -> Response[Any]:
    """Returns an error as JSON for a script, as a redirect or a page for a browser."""
    if (
        request.headers.get("x-fetch") == "1"
        or request.headers.get("accept") == "text/event-stream"
    ):
        body = {"error": message, "kind": kind}
        if kind in _REDIRECTS:
            body["go"] = _REDIRECTS[kind]
        return Response(body, status_code=status)
    if kind in _REDIRECTS:
        return Response(b"", status_code=303, headers={"location": _REDIRECTS[kind]})
    state: AppState = request.app.state.annotation
    html = state.render(
        "error.html",
        user=None,
        csrf="",
        key="",
        path="",
        has_models=False,
        kind=kind,
        message=message,
    )
    return Response(html, media_type=MediaType.HTML, status_code=status)


def _handle_rejection(request: Request[Any, Any, State], error: RequestRejected) -> Response[Any]:
    status = STATUS_BY_KIND.get(error.kind, 400)
    response = _error_response(request, status, error.kind, str(error))
    if error.retry_after > 0:
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
    return response


def _handle_unavailable(
    request: Request[Any, Any, State], error: DatabaseUnavailable
) -> Response[Any]:
    response = _error_response(request, 503, "unavailable", str(error))
    response.headers["retry-after"] = "2"
    return response


def _handle_http_error(request: Request[Any, Any, State], error: HTTPException) -> Response[Any]:
    message = _HTTP_MESSAGES.get(error.status_code, "The request could not be read.")
    return _error_response(request, error.status_code, "http", message)


def _handle_unexpected(request: Request[Any, Any, State], error: Exception) -> Response[Any]:
    # The details go to the log only: a traceback may hold texts, tokens or names of models.
    # The path may hold the token of a link, so the log gets the route.
    route = request.scope.get("path_template", "")
    _log.error("%s %s", request.method, route, exc_info=error)
    message = "Something went wrong on the server. Nothing that was sent before is lost."
    return _error_response(request, 500, "broken", message)


def _check_host(request: AppRequest) -> None:
    """Rejects a request for another host.

    A page of a stranger's domain whose name is made to resolve to this server (DNS rebinding)
    would otherwise count as this site.
    """
    hosts = request.app.state.annotation.limits.hosts
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        host = None
    if hosts and host not in hosts:
        message = "This server does not answer under that name (behind a proxy it needs --https)."
        raise RequestRejected("host", message)


async def _add_security_headers(message: Message, scope: Scope) -> None:
    defaults = SECURITY_HEADERS | {b"cache-control": b"no-store"}
    if scope["litestar_app"].state.annotation.limits.https:
        defaults |= {b"strict-transport-security": b"max-age=31536000"}
    add_headers(message, defaults)


def create_app(state: AppState) -> Litestar:
    """Returns the pages as an ASGI app; it closes `state` at shutdown."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        yield
        await state.close()

    handlers = [
        static_file,
        health,
        *routes_auth.HANDLERS,
        *routes_account.HANDLERS,
        *routes_dialogue.HANDLERS,
        *routes_review.HANDLERS,
        *routes_results.HANDLERS,
        *routes_admin.HANDLERS,
    ]
    return Litestar(
        handlers,
        state=State({"annotation": state, "agreement": routes_results.AgreementCache()}),
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=state.limits.max_body_bytes,
        before_request=_check_host,
        before_send=[_add_security_headers],
        exception_handlers={
            RequestRejected: _handle_rejection,
            DatabaseUnavailable: _handle_unavailable,
            HTTPException: _handle_http_error,
            Exception: _handle_unexpected,
        },
    )
