"""The ASGI app: routes, who is let in, errors as pages, security headers."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from truing.annotation.store import RequestRejected
from truing.core.errors import TruingError
from truing.serve.openai.local_host import names_this_machine
from truing.serve.page_files import static_response
from truing.serve.page_headers import SECURITY_HEADERS, STATUS_BY_KIND, add_headers
from truing.serve.ui import (
    routes_auth,
    routes_compare,
    routes_import,
    routes_jobs,
    routes_labels,
    routes_rows,
    routes_runs,
)
from truing.serve.ui.app_state import UiState
from truing.serve.ui.background import log_error
from truing.serve.ui.routes_rows import NotReady
from truing.serve.ui.session import AppRequest, PathParam

_HTTP_MESSAGES = {
    404: "There is no such page.",
    405: "There is no such page.",
    413: "That is too large.",
}


@get("/static/{name:str}")
async def static_file(request: AppRequest, name: PathParam) -> Response[bytes]:
    """Serves static files."""
    state: UiState = request.app.state.ui
    return static_response(state.static, name)


@get("/healthz", media_type=MediaType.TEXT)
async def health() -> str:
    """Returns `ok`."""
    return "ok"


def _find_page_of(path: str) -> str:
    """Returns the page whose form leads to a path: that of the run, or of imports; else ""."""
    words = path.split("/")
    if words[1] == "runs" and len(words) > 3:
        return "/".join(words[:3])
    return path if path == "/import" else ""


def _error_response(
    request: Request[Any, Any, State], status: int, kind: str, message: str
) -> Response[Any]:
    """Returns an error as JSON for a script, as a page for a browser."""
    if request.headers.get("x-fetch") == "1":
        body = {"error": message, "kind": kind}
        if kind == "sign-in":
            body["go"] = "/sign-in"
        return Response(body, status_code=status)
    if kind == "sign-in":
        return routes_auth.render_sign_in(request, status=status)
    state: UiState = request.app.state.ui
    html = state.render(
        "error.html",
        csrf="",
        path="",
        person="",
        has_password=False,
        kind=kind,
        message=message,
        back="" if kind in ("missing", "gone") else _find_page_of(request.url.path),
    )
    return Response(html, media_type=MediaType.HTML, status_code=status)


def _handle_rejection(request: Request[Any, Any, State], error: RequestRejected) -> Response[Any]:
    status = STATUS_BY_KIND.get(error.kind, 400)
    response = _error_response(request, status, error.kind, str(error))
    if error.retry_after > 0:
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
    return response


def _handle_user_error(request: Request[Any, Any, State], error: TruingError) -> Response[Any]:
    """A run that cannot be read or a wrong entry is no fault of the server."""
    return _error_response(request, 422, "invalid", str(error))


def _handle_not_ready(request: Request[Any, Any, State], error: NotReady) -> Response[Any]:
    message = error.fault or "The rows of this run are being indexed; try again in a moment."
    return _error_response(request, 422 if error.fault else 409, "invalid", message)


def _handle_http_error(request: Request[Any, Any, State], error: HTTPException) -> Response[Any]:
    message = _HTTP_MESSAGES.get(error.status_code, "The request could not be read.")
    return _error_response(request, error.status_code, "http", message)


def _handle_unexpected(request: Request[Any, Any, State], error: Exception) -> Response[Any]:
    log_error(error, f"{request.method} {request.scope.get('path_template', '')}")
    return _error_response(request, 500, "broken", "Something went wrong in the program.")


def _check_host(request: AppRequest) -> None:
    """Rejects a request for another host than this machine, if the app has no password.

    A page of a stranger's domain whose name is made to resolve to this server (DNS rebinding)
    would otherwise count as this site. With a password such a page has no session.
    """
    state: UiState = request.app.state.ui
    if state.options.password_hash is None and not names_this_machine(
        request.headers.get("host", "")
    ):
        raise RequestRejected("host", "This app answers to localhost and loopback addresses only.")


def _check_site(request: AppRequest) -> None:
    """Rejects what a page of another site loads in the background; a link from there is fine."""
    headers = request.headers
    is_foreign = headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
    if is_foreign and headers.get("sec-fetch-mode") != "navigate":
        raise RequestRejected("form", "This request came from another site.")


def _check_request(request: AppRequest) -> None:
    _check_host(request)
    _check_site(request)


async def _add_security_headers(message: Message, scope: Scope) -> None:
    add_headers(message, SECURITY_HEADERS | {b"cache-control": b"no-store"})


def create_app(state: UiState) -> Litestar:
    """Returns the pages as an ASGI app; it closes `state` at shutdown."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        yield
        state.close()

    return Litestar(
        [
            static_file,
            health,
            *routes_auth.HANDLERS,
            *routes_runs.HANDLERS,
            *routes_rows.HANDLERS,
            *routes_labels.HANDLERS,
            *routes_jobs.HANDLERS,
            *routes_compare.HANDLERS,
            *routes_import.HANDLERS,
        ],
        state=State({"ui": state}),
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=state.options.max_body_bytes,
        before_request=_check_request,
        before_send=[_add_security_headers],
        exception_handlers={
            RequestRejected: _handle_rejection,
            TruingError: _handle_user_error,
            NotReady: _handle_not_ready,
            HTTPException: _handle_http_error,
            Exception: _handle_unexpected,
        },
    )
