"""The OpenAI-compatible server as an ASGI app: routes, limits, errors in the OpenAI form, a
graceful drain.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.middleware import AbstractMiddleware
from litestar.openapi import OpenAPIConfig

from truing.core.protocols import Judge
from truing.core.version import __version__
from truing.http.limits import close_connections
from truing.serve.openai import (
    approvals,
    dialogue_routes,
    guardrail_routes,
    responses_routes,
    schemas,
)
from truing.serve.openai.admission import AdmissionControl, RequestRefused, ServerLimits
from truing.serve.openai.approvals import Approvals
from truing.serve.openai.audit import HarmAudit
from truing.serve.openai.chat_page.pages import STATIC_PATHS, ChatPage
from truing.serve.openai.chat_service import ChatService
from truing.serve.openai.model_router import ModelRouter
from truing.serve.openai.pipeline import (
    RequestPipeline,
    internal_error,
    refusal_response,
)
from truing.serve.openai.request_log import flush_log, record_of
from truing.serve.openai.routes import HANDLERS
from truing.serve.openai.shared_state import SharedState
from truing.serve.openai.stored_threads import ThreadStore
from truing.serve.openai.tracing import TurnTracer

LOGGER = logging.getLogger("truing.serve")
_JSON_PATH = re.compile(r"`\$\.?([^`]*)`$")


def _on_refused(request: Request[Any, Any, Any], error: RequestRefused) -> Response[bytes]:
    record_of(request.scope).error = error.kind
    status, headers, body = refusal_response(error)
    return Response(
        body,
        status_code=status,
        headers={name.decode(): value.decode() for name, value in headers},
        media_type=MediaType.JSON,
    )


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    message, param = error.detail, None
    # A body that does not fit its schema: Litestar lists the faults of each key.
    faults = error.extra
    if isinstance(faults, list) and faults and isinstance(faults[0], dict):
        param = faults[0].get("key")
        message = "; ".join(
            f"{fault.get('key', 'body')}: {fault.get('message')}"
            for fault in faults[:5]
            if isinstance(fault, dict)
        )
    path = _JSON_PATH.search(message)
    if param is None and path:
        param = path[1] or None
    kind = "invalid_request_error"
    if error.status_code >= 500:
        # A fault of ours keeps its status and says nothing of its cause.
        kind, message, param = "server_error", "internal error", None
    record_of(request.scope).error = kind
    return Response(
        schemas.error_body(message, kind, param=param),
        status_code=error.status_code,
        media_type=MediaType.JSON,
        headers=error.headers,
    )


def _on_recursion(request: Request[Any, Any, Any], error: RecursionError) -> Response[bytes]:
    return _on_refused(request, RequestRefused(400, "the body is nested too deeply"))


def _on_internal_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return _on_refused(request, internal_error(error, record_of(request.scope)))


def _cors(origins: Sequence[str]) -> CORSConfig:
    return CORSConfig(allow_origins=list(origins), expose_headers=["x-request-id", "retry-after"])


def _add_pipeline(app: Litestar, service: ChatService, *, metrics_open: bool) -> None:
    """Puts the pipeline before the routes, and behind CORS: browsers show a page only the refusals
    that have its headers.
    """
    routes = frozenset(route.path.rstrip("/") or "/" for route in app.routes)

    def wrap(handler: Any) -> RequestPipeline:
        return RequestPipeline(
            handler,
            service.admission,
            service.metrics,
            routes=routes,
            metrics_open=metrics_open,
            open_paths=STATIC_PATHS,
        )

    if isinstance(app.asgi_handler, AbstractMiddleware):
        app.asgi_handler.app = wrap(app.asgi_handler.app)
    else:
        app.asgi_handler = wrap(app.asgi_handler)


def chat_app(
    router: ModelRouter,
    *,
    limits: ServerLimits | None = None,
    keys: Sequence[str] = (),
    judge: Judge | None = None,
    audit: HarmAudit | None = None,
    origins: Sequence[str] = (),
    tracer: TurnTracer | None = None,
    metrics_open: bool = False,
) -> Litestar:
    """Returns the server as an ASGI app.

    `judge` answers /v1/moderations; with no `keys` the API is open, with `metrics_open` /metrics
    is; `origins` are those of browsers' pages that may call it (CORS); `tracer` writes
    OpenTelemetry spans.
    """
    limits = limits or ServerLimits()
    admission = AdmissionControl(limits, keys)
    service = ChatService(router, admission, judge=judge, audit=audit, tracer=tracer)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        admission.draining = admission.leaving = False
        if service.shared is not None:
            service.memory.secret = await service.shared.secret()
        for guarded in router.guarded.values():
            await guarded.warm_up()
        yield
        await admission.drain(limits.seconds)
        if audit is not None:
            await audit.finish()
        if tracer is not None:
            tracer.close()
        await router.close()
        if service.shared is not None:
            await service.shared.close()
        await close_connections()
        # uvicorn ends the process by the signal that it got: nothing of ours runs after this.
        await asyncio.to_thread(flush_log)

    app = Litestar(
        [
            *HANDLERS,
            *guardrail_routes.HANDLERS,
            *responses_routes.HANDLERS,
            *approvals.HANDLERS,
            *dialogue_routes.HANDLERS,
        ],
        state=State({"chat": service}),
        lifespan=[lifespan],
        request_max_body_size=limits.body,
        logging_config=None,
        exception_handlers={
            RequestRefused: _on_refused,
            HTTPException: _on_http_error,
            RecursionError: _on_recursion,
            Exception: _on_internal_error,
        },
        cors_config=_cors(origins) if origins else None,
        openapi_config=OpenAPIConfig(
            title="truing", version=__version__, description="An OpenAI-compatible model."
        ),
    )
    _add_pipeline(app, service, metrics_open=metrics_open)
    return app


def show_chat_page(app: Litestar, *, needs_key: bool) -> None:
    """Serves the chat page at `/` to browsers: on a loopback address, or behind keys."""
    service: ChatService = app.state.chat
    service.page = ChatPage(needs_key=needs_key)


def ask_people(app: Litestar, approvals: Approvals) -> None:
    """Lets people answer the rail `ask a person` of a server; `approvals.ask` is its callback."""
    app.state.chat.approvals = approvals


def keep_threads(app: Litestar, store: ThreadStore, cleanup_seconds: float = 60.0) -> None:
    """Lets the requests of a server continue the conversations in a store (`thread_id`).

    What has expired is deleted every `cleanup_seconds`, whether requests come or not.
    """
    app.state.chat.memory.store = store
    cleanup: list[asyncio.Task[None]] = []

    async def delete_expired() -> None:
        while True:
            await asyncio.sleep(cleanup_seconds)
            try:
                await store.delete_expired()
            except RequestRefused:
                pass  # The store does not answer, as /ready says; the next time it may.
            except Exception:
                LOGGER.exception("threads that have expired were not deleted")

    async def start() -> None:
        cleanup.append(asyncio.create_task(delete_expired()))

    async def stop() -> None:
        cleanup.pop().cancel()
        await store.close()

    app.on_startup.append(start)
    app.on_shutdown.append(stop)


def share_state(app: Litestar, shared: SharedState) -> None:
    """Lets a server count rates, lock threads and sign states together with others."""
    service: ChatService = app.state.chat
    service.shared = service.admission.rates = shared
    # Longer than a request waits for a slot and for its answer.
    seconds = 3 * service.admission.limits.seconds
    service.memory.shared_lock = lambda key: shared.lock(key, seconds)
