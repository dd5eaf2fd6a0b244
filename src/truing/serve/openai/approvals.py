"""Tool calls that wait for a person: the rail `ask a person` asks, somebody answers over HTTP.

A call that nobody allows in `ask_timeout` seconds (a setting of the rail) is denied. Who may answer
has a key of its own: a client must not allow its own calls. `shared_approvals` is the same for
several processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.params import Body
from msgspec import Struct

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.request_log import record_of

LOGGER = logging.getLogger("truing.serve")
MAX_WAITING = 200  # calls at a time; more are denied
MAX_WAITING_OF_CLIENT = 20  # so that one client cannot have all others' calls denied
MAX_SHOWN = 20_000  # characters of arguments: a person cannot allow what is not shown whole
_SHOWN_HASH = 8  # characters of a client's hash


class Client(Struct, frozen=True):
    """Whose turn it is: the hash of an API key, and the configuration that it runs."""

    tenant: str = ""
    config: str = ""


CURRENT_CLIENT: ContextVar[Client] = ContextVar("CURRENT_CLIENT")


class WaitingCall(Struct, frozen=True):
    """A call that waits, since the time `asked` (of the clock of all machines)."""

    id: str
    name: str
    arguments: str
    config: str
    tenant: str
    asked: float

    def row(self) -> dict[str, Any]:
        """Returns what the person is shown: the call, and for whom it would be made."""
        return {
            "id": self.id,
            "name": self.name,
            "arguments": self.arguments,
            "config": self.config,
            "client": self.tenant[:_SHOWN_HASH],
            "seconds": round(max(0.0, time.time() - self.asked), 1),
        }


class Approvals:
    """The calls that wait in this process. `keys` may answer; without any, whoever reaches the
    server.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._tenants = {hashlib.sha256(key.encode()).hexdigest() for key in keys} or {""}
        self._waiting: dict[str, tuple[WaitingCall, asyncio.Future[bool]]] = {}

    def may_answer(self, tenant: str) -> bool:
        """Returns whether a key, by its hash, may answer."""
        return tenant in self._tenants

    async def ask(self, name: str, arguments: str) -> bool:
        """Returns whether somebody allowed a call; waits until it is answered or cancelled."""
        client = CURRENT_CLIENT.get(Client())
        call = WaitingCall(
            f"ask_{secrets.token_hex(12)}",
            name,
            arguments,
            client.config,
            client.tenant,
            time.time(),
        )
        if len(name) + len(arguments) > MAX_SHOWN:
            return self._deny(call, f"its arguments are longer than {MAX_SHOWN} characters")
        decision = asyncio.get_running_loop().create_future()
        reason = await self._add(call, decision)
        if reason:
            return self._deny(call, reason)
        try:
            return await decision is True
        finally:
            await asyncio.shield(self._remove(call))

    def _deny(self, call: WaitingCall, reason: str) -> bool:
        shown = call.tenant[:_SHOWN_HASH] or "without a key"
        # Without the arguments: no text of a request is logged.
        LOGGER.warning(
            "a call of %s (%s, client %s) is denied unasked: %s",
            call.name[:60],
            call.config[:60],
            shown,
            reason,
        )
        return False

    async def _add(self, call: WaitingCall, decision: asyncio.Future[bool]) -> str:
        """Lets a call wait for its decision; returns why it may not."""
        calls = [waiting for waiting, _ in self._waiting.values()]
        reason = find_excess(len(calls), sum(waiting.tenant == call.tenant for waiting in calls))
        if not reason:
            self._waiting[call.id] = call, decision
        return reason

    async def _remove(self, call: WaitingCall) -> None:
        self._waiting.pop(call.id, None)

    async def rows(self) -> list[dict[str, Any]]:
        """Returns the calls that wait, the oldest first."""
        return [call.row() for call, decision in self._waiting.values() if not decision.done()]

    async def answer(self, call_id: str, allow: bool) -> bool:
        """Answers a call; returns False if none waits under the id."""
        call, decision = self._waiting.get(call_id, (None, None))
        if call is None or decision is None or decision.done():
            return False
        # From whichever thread the request comes: the turn waits in its own loop.
        decision.get_loop().call_soon_threadsafe(resolve_decision, decision, allow)
        return True


def find_excess(waiting: int, of_client: int) -> str:
    """Returns why no further call may wait, by how many wait already; "" if one may."""
    if of_client >= MAX_WAITING_OF_CLIENT:
        return f"{of_client} calls of this client wait already"
    return f"{waiting} calls wait already" if waiting >= MAX_WAITING else ""


def resolve_decision(decision: asyncio.Future[bool], allow: bool) -> None:
    """Answers a call that still waits."""
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
    return {"object": "list", "data": await _approvals(request, state).rows()}


@post("/v1/approvals", status_code=200, summary="Allow or deny a tool call", tags=["rails"])
async def answer_call(
    data: Annotated[ApprovalAnswer, Body()], request: Request[Any, Any, State], state: State
) -> Response[dict[str, Any]]:
    """Answers a call; 404 where none waits under the id, as after its time."""
    if not await _approvals(request, state).answer(data.id, data.allow):
        raise RequestRefused(404, "no call waits under this id", param="id")
    return Response({"id": data.id, "allow": data.allow})


HANDLERS = (waiting_calls, answer_call)
