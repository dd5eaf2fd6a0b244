"""LiteLLM's Generic Guardrail API: a LiteLLM proxy asks this server about requests and responses.

The form of the request and of the response is that of LiteLLM 1.80 and newer; LiteLLM appends the
path to its `api_base` and sends the key as X-API-Key. Whatever is refused or fails here LiteLLM
treats as a failed guardrail, which blocks (`unreachable_fallback: fail_closed`, its default).
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from litestar import MediaType, Request, Response, post
from litestar.datastructures import State
from litestar.params import Body

from truing.integrations.litellm.inputs import (
    GuardrailDecision,
    GuardrailInputs,
    check_inputs,
)
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.decision_record import decision_record
from truing.serve.openai import schemas
from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.chat_service import ChatService
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.request_checks import check_name, refuse
from truing.serve.openai.request_log import record_of

_WORD = re.compile(r"\S+")


class GuardrailApiRequest(GuardrailInputs, kw_only=True):
    """POST /beta/litellm_basic_guardrail_api; `additional_provider_specific_params.config_id`
    picks a configuration.
    """

    additional_provider_specific_params: dict[str, Any] | None = None
    request_data: dict[str, Any] | None = None
    litellm_call_id: str | None = None
    model: str | None = None


@post(
    "/beta/litellm_basic_guardrail_api",
    status_code=200,
    summary="LiteLLM's Generic Guardrail API",
    tags=["rails"],
)
async def litellm_guardrail(
    data: Annotated[GuardrailApiRequest, Body()], request: Request[Any, Any, State], state: State
) -> Response[bytes]:
    """Whether the rails let the texts of a request or a response pass, and as what."""
    service: ChatService = state.chat
    record = record_of(request.scope)
    limits = service.admission.limits
    _check_bounds(data, limits)
    config_id = _read_config_id(data, limits)
    model = await service.select_model((config_id,) if config_id else ())
    if not isinstance(model, GuardedModel):
        raise RequestRefused(404, "this server has no rails: start it with --rails")
    record.config = config_id or service.router.default
    await service.take_slot(request)
    try:
        async with asyncio.timeout(limits.seconds):
            decision = await check_inputs(model, data, _session(data, record.tenant))
    except TimeoutError:
        reason = f"no decision in {limits.seconds:g} s"
        raise RequestRefused(504, reason, "timeout_error") from None
    body = _response_body(data, decision, _overlap_words(model))
    record.decision = {"NONE": "allow", "GUARDRAIL_INTERVENED": "rewrite"}.get(
        body["action"], "block"
    )
    return Response(schemas.encode_json(body), media_type=MediaType.JSON)


def _check_bounds(request: GuardrailApiRequest, limits: ServerLimits) -> None:
    """Raises RequestRefused (400) for more, or longer, than the server reads."""
    for name in ("texts", "structured_messages"):
        if len(getattr(request, name) or ()) > limits.messages:
            raise refuse(name, f"more than {limits.messages}")
    for name in ("tools", "tool_calls"):
        if len(getattr(request, name) or ()) > limits.tools:
            raise refuse(name, f"more than {limits.tools}")
    for index, text in enumerate(request.texts or ()):
        if len(text) > limits.message_characters:
            raise refuse(f"texts[{index}]", f"longer than {limits.message_characters} characters")


def _read_config_id(data: GuardrailApiRequest, limits: ServerLimits) -> str:
    config_id = (data.additional_provider_specific_params or {}).get("config_id") or ""
    place = "additional_provider_specific_params.config_id"
    if not isinstance(config_id, str):
        raise refuse(place, "expected the id of a configuration")
    check_name(place, config_id, limits)
    return config_id


def _session(data: GuardrailApiRequest, tenant: str) -> str:
    """Returns whose texts these are: what has passed for one key of the proxy is not another's.

    "" where the proxy names no key: users that nothing tells apart share no memory.
    """
    key = (data.request_data or {}).get("user_api_key_hash")
    return f"{tenant}:{key}" if isinstance(key, str) and key else ""


def _response_body(
    request: GuardrailApiRequest, decision: GuardrailDecision, overlap_words: int | None
) -> dict[str, Any]:
    record: dict[str, Any] = {"guardrails": decision_record(decision.rulings)}
    if not decision.allowed:
        return {"action": "BLOCKED", "blocked_reason": decision.reply, **record}
    if decision.calls_changed:
        # The API has no place for calls in its response.
        reason = "a rail rewrites a tool call, which cannot be rewritten here"
        return {"action": "BLOCKED", "blocked_reason": reason, **record}
    if request.input_type == "response":
        # While a text streams, its end may still become what a rail masks or refuses.
        record["stream_holdback_chars"] = [
            count_held_characters(text, overlap_words) for text in decision.texts
        ]
    if decision.texts == (request.texts or []):
        return {"action": "NONE", **record}
    return {"action": "GUARDRAIL_INTERVENED", "texts": decision.texts, **record}


def _overlap_words(model: GuardedModel) -> int | None:
    """Returns the words at the end of a text that stay back while it streams; None: all of them.

    A configuration that sends its own streams in chunks lets go what stands before the words that
    a chunk is read with (`context_size`); any other one lets the text go when all of it has passed.
    """
    output = model.config.rails.output
    if not output.flows:
        return 0
    return None if model.stream_mode == "hold" else output.streaming.context_size


def count_held_characters(text: str, words: int | None) -> int:
    """Returns the number of characters of the last words of a text; of all of it for None."""
    if words is None:
        return len(text)
    if words == 0:
        return 0
    starts = [match.start() for match in _WORD.finditer(text)]
    return len(text) - starts[-words] if len(starts) > words else len(text)


HANDLERS = (litellm_guardrail,)
