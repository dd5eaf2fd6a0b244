"""The OpenAI-compatible server as an ASGI app: routes, limits, errors in the OpenAI form, a
graceful drain.
"""

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
from truing.serve.openai.admission import AdmissionControl, RequestRefused, ServerLimits
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.routes import HANDLERS, ChatService
from truing.serve.openai.tracing import TurnTracer


def _on_refused(request: Request[Any, Any, Any], error: RequestRefused) -> Response[bytes]:
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    return Response(
        schemas.error_body(error.message, error.kind),
        status_code=error.status,
        headers=headers,
        media_type=MediaType.JSON,
    )


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    message = error.detail
    # A body that does not fit its schema: Litestar lists the faults of each key.
    faults = error.extra
    if isinstance(faults, list) and faults and isinstance(faults[0], dict):
        message = "; ".join(
            f"{fault.get('key', 'body')}: {fault.get('message')}"
            for fault in faults[:5]
            if isinstance(fault, dict)
        )
    return Response(
        schemas.error_body(message),
        status_code=error.status_code,
        media_type=MediaType.JSON,
        headers=error.headers,
    )


def _on_recursion(request: Request[Any, Any, Any], error: RecursionError) -> Response[bytes]:
    body = schemas.error_body("the body is nested too deeply")
    return Response(body, status_code=400, media_type=MediaType.JSON)


def _on_internal_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    body = schemas.error_body(f"internal error: {type(error).__name__}", "server_error")
    return Response(body, status_code=500, media_type=MediaType.JSON)


def _measure_requests(app: ASGIApp) -> ASGIApp:
    """Middleware that counts and times API requests; outside the error handlers, so that it sees
    every status.
    """

    async def measured(scope: Scope, receive: Receive, send: Send) -> None:
        if not str(scope.get("path", "")).startswith("/v1/"):
            await app(scope, receive, send)
            return
        service: ChatService = scope["litestar_app"].state.chat
        path, started = str(scope["path"]), time.perf_counter()
        status = "500"  # for an error that no handler turned into a response

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await app(scope, receive, send_and_note_status)
        finally:
            # Unknown paths share one label: clients must not be able to make new ones.
            label = path if status != "404" else "other"
            service.metrics.requests.labels(label, status).inc()
            service.metrics.seconds.labels(label).observe(time.perf_counter() - started)

    return measured


def chat_app(
    router: ModelRouter,
    *,
    limits: ServerLimits | None = None,
    keys: Sequence[str] = (),
    judge: Judge | None = None,
    audit: HarmAudit | None = None,
    origins: Sequence[str] = (),
    tracer: TurnTracer | None = None,
) -> Litestar:
    """Returns the server as an ASGI app.

    `judge` answers /v1/moderations; with no `keys` the API is open; `origins` are those of
    browsers' pages that may call it (CORS); `tracer` writes OpenTelemetry spans.
    """
    limits = limits or ServerLimits()
    admission = AdmissionControl(limits, keys)
    service = ChatService(router, admission, judge=judge, audit=audit, tracer=tracer)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        admission.draining = False
        for guarded in router.guarded.values():
            await guarded.warm_up()
        yield
        await admission.drain(limits.seconds)
        if audit is not None:
            await audit.finish()
        if tracer is not None:
            tracer.close()
        await router.close()

    return Litestar(
        list(HANDLERS),
        state=State({"chat": service}),
        lifespan=[lifespan],
        middleware=[_measure_requests],
        request_max_body_size=limits.body,
        logging_config=None,
        exception_handlers={
            RequestRefused: _on_refused,
            HTTPException: _on_http_error,
            RecursionError: _on_recursion,
            Exception: _on_internal_error,
        },
        cors_config=CORSConfig(allow_origins=list(origins)) if origins else None,
        openapi_config=OpenAPIConfig(
            title="truing", version=__version__, description="An OpenAI-compatible model."
        ),
    )
