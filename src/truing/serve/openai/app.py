"""The chat server as an app: doors, limits, errors in the OpenAI form, graceful drain."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from truing.core.protocols import Judge
from truing.core.version import __version__
from truing.serve.openai import schemas
from truing.serve.openai.admission import Gate, Refused
from truing.serve.openai.audit import Audit
from truing.serve.openai.model_router import Desk, Limits
from truing.serve.openai.routes import HANDLERS, Doors
from truing.serve.openai.tracing import Traces


def _refused(request: Request[Any, Any, Any], error: Refused) -> Response[bytes]:
    headers = (
        {"retry-after": str(max(1, round(error.retry_after)))}
        if error.retry_after is not None
        else {}
    )
    return Response(
        schemas.error_body(error.message, error.kind),
        status_code=error.status,
        headers=headers,
        media_type=MediaType.JSON,
    )


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    said = error.detail
    extra = error.extra
    if isinstance(extra, list) and extra and isinstance(extra[0], dict):
        said = "; ".join(
            f"{e.get('key', 'body')}: {e.get('message')}" for e in extra[:5] if isinstance(e, dict)
        )
    return Response(
        schemas.error_body(said),
        status_code=error.status_code,
        media_type=MediaType.JSON,
        headers=error.headers,
    )


def _deep(request: Request[Any, Any, Any], error: RecursionError) -> Response[bytes]:
    return Response(
        schemas.error_body("the body is nested too deeply"),
        status_code=400,
        media_type=MediaType.JSON,
    )


def _broken(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    body = schemas.error_body(f"internal error: {type(error).__name__}", "server_error")
    return Response(body, status_code=500, media_type=MediaType.JSON)


def _timed(app: ASGIApp) -> ASGIApp:
    """Counts and times what passes; sits outside the error handlers, so that it sees every status."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        if not str(scope.get("path", "")).startswith("/v1/"):
            await app(scope, receive, send)
            return
        doors: Doors = scope["litestar_app"].state.doors
        began, status, path = time.perf_counter(), ["500"], str(scope["path"])

        async def heard(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = str(message["status"])
            await send(message)

        try:
            await app(scope, receive, heard)
        finally:
            known = path if status[0] != "404" else "other"
            doors.metrics.requests.labels(known, status[0]).inc()
            doors.metrics.seconds.labels(known).observe(time.perf_counter() - began)

    return inner


def chat_app(
    desk: Desk,
    *,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    judge: Judge | None = None,
    audit: Audit | None = None,
    origins: Sequence[str] = (),
    traces: Traces | None = None,
) -> Litestar:
    """The server; `judge` answers /v1/moderations, `keys` empty = open, `traces` go to OpenTelemetry."""
    given = limits or Limits()
    gate = Gate(given, keys)
    doors = Doors(desk, gate, judge=judge, audit=audit, traces=traces)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        gate.draining = False
        for one in desk.guarded.values():
            await one.warm()
        yield
        await gate.drain(given.seconds)
        if audit is not None:
            await audit.finish()
        if traces is not None:
            traces.close()
        await desk.close()

    return Litestar(
        list(HANDLERS),
        state=State({"doors": doors}),
        lifespan=[lifespan],
        middleware=[_timed],
        request_max_body_size=given.body,
        logging_config=None,
        exception_handlers={
            Refused: _refused,
            HTTPException: _http,
            RecursionError: _deep,
            Exception: _broken,
        },
        cors_config=CORSConfig(allow_origins=list(origins)) if origins else None,
        openapi_config=OpenAPIConfig(
            title="truing", version=__version__, description="An OpenAI-compatible model."
        ),
    )
