"""Tool calls that wait for a person: the rail `ask a person` asks, somebody answers over HTTP.

A call that nobody allows in `ask_timeout` seconds (a setting of the rail) is denied. Who may answer
has a key of its own: a client must not allow its own calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import Body
from msgspec import Struct

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.request_log import record_of

MAX_WAITING = 200  # calls at a time; more are denied
MAX_SHOWN = 20_000  # characters of arguments: a person cannot allow what is not shown whole


class WaitingCall(Struct):
    """A call that waits: `asked` is the time since when."""

    name: str
    arguments: str
    asked: float
    decision: asyncio.Future[bool]


class Approvals:
    """The calls that wait. `keys` may answer; without any, whoever reaches the server."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._tenants = {hashlib.sha256(key.encode()).hexdigest() for key in keys} or {""}
        self._waiting: dict[str, WaitingCall] = {}

    def may_answer(self, tenant: str) -> bool:
        """Returns whether a key, by its hash, may answer."""
        return tenant in self._tenants

    async def ask(self, name: str, arguments: str) -> bool:
        """Returns whether somebody allowed a call; waits until it is answered or cancelled."""
        if len(self._waiting) >= MAX_WAITING or len(name) + len(arguments) > MAX_SHOWN:
            return False
        call_id = f"ask_{secrets.token_hex(12)}"
        decision = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = WaitingCall(name, arguments, time.monotonic(), decision)
        try:
            return await decision is True
        finally:
            del self._waiting[call_id]

    def rows(self) -> list[dict[str, Any]]:
        """Returns the calls that wait, the oldest first."""
        now = time.monotonic()
        return [
            {
                "id": call_id,
                "name": call.name,
                "arguments": call.arguments,
                "seconds": round(now - call.asked, 1),
            }
            for call_id, call in self._waiting.items()
            if not call.decision.done()
        ]

    def answer(self, call_id: str, allow: bool) -> bool:
        """Answers a call; returns False if none waits under the id."""
        call = self._waiting.get(call_id)
        if call is None or call.decision.done():
            return False
        # From whichever thread the request comes: the turn waits in its own loop.
        call.decision.get_loop().call_soon_threadsafe(_resolve, call.decision, allow)
        return True


def _resolve(decision: asyncio.Future[bool], allow: bool) -> None:
    if not decision.done():
        decision.set_result(allow)


class ApprovalAnswer(Struct):
    """POST /v1/approvals."""

    id: str
    allow: bool


def _approvals(request: Request[Any, Any, State], state: State) -> Approvals:
    approvals: Approvals | None = state.chat.approvals
    if approvals is None:
        raise RequestRefused(404, "this server asks nobody: name keys in --approvers-env")
    if not approvals.may_answer(record_of(request.scope).tenant):
        raise RequestRefused(403, "this key does not allow tool calls", "permission_error")
    return approvals


@get("/v1/approvals", summary="Tool calls that wait for a person", tags=["rails"])
async def waiting_calls(request: Request[Any, Any, State], state: State) -> dict[str, Any]:
    """The calls that the rail `ask a person` has stopped, the oldest first."""
    return {"object": "list", "data": _approvals(request, state).rows()}


@post("/v1/approvals", status_code=200, summary="Allow or deny a tool call", tags=["rails"])
async def answer_call(
    data: Annotated[ApprovalAnswer, Body()], request: Request[Any, Any, State], state: State
) -> Response[dict[str, Any]]:
    """Answers a call; 404 where none waits under the id, as after its time."""
    if not _approvals(request, state).answer(data.id, data.allow):
        raise RequestRefused(404, "no call waits under this id", param="id")
    return Response({"id": data.id, "allow": data.allow})


HANDLERS = (waiting_calls, answer_call)
