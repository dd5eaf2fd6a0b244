"""NeMo's action `wolfram alpha request`: asks Wolfram|Alpha for a short answer.

The key stands in the environment variable WOLFRAM_ALPHA_APP_ID. Without it, and where the service
does not answer, the bot says so and the turn ends, as in NeMo Guardrails.
"""

from __future__ import annotations

import os
from urllib.parse import urlencode

from truing.core.types import Failure
from truing.http.client import Endpoint
from truing.http.retry import RetryPolicy
from truing.rails.actions import ActionResult, action
from truing.rails.runtime.event_types import STOP_INTENT, BotIntent, StartUtterance
from truing.rails.runtime.turn_context import TurnContext

ADDRESS = "https://api.wolframalpha.com/v2/result"
KEY_VARIABLE = "WOLFRAM_ALPHA_APP_ID"
TIMEOUT = 20.0  # seconds
_NO_KEY = (
    "Wolfram Alpha app ID is not set. Please set the WOLFRAM_ALPHA_APP_ID environment variable."
)
_NO_ANSWER = (
    "Apologies, but I cannot answer this question at this time. I am having trouble getting the "
    "answer from Wolfram Alpha."
)


@action(name="wolfram alpha request")
async def wolfram_alpha_request(turn: TurnContext, query: str | None = None) -> str | ActionResult:
    """Returns the short answer to a query; without one, to the user's last message."""
    text = query or turn.state.context.get("last_user_message") or "2+3"
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return _say_and_stop("inform wolfram alpha app id not set", _NO_KEY)
    url = f"{ADDRESS}?{urlencode({'appid': key, 'i': str(text)})}"
    endpoint = Endpoint(url, key=key, retry_policy=RetryPolicy(timeout=TIMEOUT, retries=1))
    answer = await endpoint.send_request(b"", lambda data: data.decode("utf-8"), "GET")
    if isinstance(answer, Failure):
        return _say_and_stop("inform wolfram alpha not working", _NO_ANSWER)
    return answer


def _say_and_stop(intent: str, text: str) -> ActionResult:
    events = [BotIntent(intent), StartUtterance(text), BotIntent(STOP_INTENT)]
    return ActionResult(return_value=False, events=events)
