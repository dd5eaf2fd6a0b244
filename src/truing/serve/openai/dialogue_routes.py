"""Runs a file of `truing rails test` on a served configuration, for the chat page.

A client with a key may set in it what it may set in a request: user messages, assistant's messages
and tool results. Who reaches a chat page without keys, which is there on this machine alone, is the
operator and may set all; any other server without keys runs none. Each turn counts as a request of
the rate. A server that audits its answers runs no dialogues: their answers would not be among the
audited ones.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.params import Body
from msgspec import Struct
from msgspec.structs import asdict

from truing.core.errors import PlanError
from truing.rails.dialogue_tests import (
    DialogueOutcome,
    DialogueRunner,
    DialogueTest,
    parse_dialogues,
)
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.decision_record import decision_record
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.chat_service import ChatService
from truing.serve.openai.request_checks import check_name, refuse
from truing.serve.openai.request_log import record_of

MAX_TURNS = 200  # of all dialogues of a request
_OPERATOR_KEYS = ("options", "context", "event")


class DialogueRequest(Struct):
    """POST /v1/rails/tests: `dialogues` is the text of a file."""

    dialogues: str
    config_id: str = ""


@post("/v1/rails/tests", status_code=200, summary="Run dialogues of rails test", tags=["rails"])
async def run_dialogues(
    data: Annotated[DialogueRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[dict[str, Any]]:
    """The outcome of each dialogue: what the bot said, and the expectations that it does not
    meet.
    """
    service: ChatService = state.chat
    record = record_of(request.scope)
    limits = service.admission.limits
    if service.audit is not None:
        reason = "this server audits its answers: run the file with truing rails test"
        raise RequestRefused(403, reason, "permission_error")
    is_operator = not record.tenant and service.page is not None
    if not record.tenant and not is_operator:
        reason = "without keys (--keys-env) dialogues run on this machine's own address alone"
        raise RequestRefused(403, reason, "permission_error")
    check_name("config_id", data.config_id, limits)
    model = await service.select_model((data.config_id,) if data.config_id else ())
    if not isinstance(model, GuardedModel):
        raise RequestRefused(404, "this server has no rails: start it with --rails")
    record.config = data.config_id or service.router.default
    try:
        dialogues = parse_dialogues("dialogues", data.dialogues)
    except PlanError as error:
        raise refuse("dialogues", "; ".join(error.faults[:5])) from error
    _check_dialogues(dialogues, is_operator=is_operator)
    turns = sum(len(dialogue.turns) for dialogue in dialogues)
    if limits.per_minute and turns > limits.per_minute:
        # No waiting helps, which is what a 429 would ask for.
        reason = f"{turns} turns, and this server answers {limits.per_minute} a minute"
        raise refuse("dialogues", reason)
    # The request itself is counted already.
    await service.admission.check_rate(record.tenant, turns - 1)
    await service.take_slot(request)
    runner = DialogueRunner(
        model.config,
        model.model,
        replace(model.parts),
        max_tokens=limits.max_tokens,
        show_rulings=model.rulings_for_clients,
    )
    try:
        async with asyncio.timeout(limits.seconds):
            outcomes = await runner.run_async(dialogues)
    except TimeoutError:
        reason = f"the dialogues took longer than {limits.seconds:g} s"
        raise RequestRefused(504, reason, "timeout_error") from None
    service.metrics.answers.labels("dialogue").inc(sum(len(outcome.said) for outcome in outcomes))
    return Response({"object": "list", "data": [_outcome_row(outcome) for outcome in outcomes]})


def _outcome_row(outcome: DialogueOutcome) -> dict[str, Any]:
    """Returns an outcome with the decisions of each turn."""
    turns = [
        {
            "input": turn.input,
            "bot": turn.bot,
            "ms": turn.ms,
            **decision_record(turn.rulings),
        }
        for turn in outcome.turns
    ]
    return {**asdict(outcome), "turns": turns}


def _check_dialogues(dialogues: list[DialogueTest], *, is_operator: bool) -> None:
    """Raises RequestRefused (400) for what a client may not ask."""
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    if len(turns) > MAX_TURNS:
        raise refuse("dialogues", f"more than {MAX_TURNS} turns")
    for turn in turns:
        if "bot_matches" in turn:
            # A pattern of a stranger could stop the server; `truing rails test` runs it.
            raise refuse("dialogues", "bot_matches is for truing rails test alone")
        denied = [name for name in _OPERATOR_KEYS if name in turn]
        if denied and not is_operator:
            raise refuse("dialogues", f"{denied[0]} is for truing rails test alone")


HANDLERS = (run_dialogues,)
