"""A turn as an `Answer`: of its result, or of a turn that could not be finished."""

from __future__ import annotations

from truing.core.types import Answer, Failure, Message, Ruling
from truing.rails.runtime.output_gate import BLOCKED_MESSAGE
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS
from truing.rails.runtime.turn_result import TurnResult


def answer_from_result(result: TurnResult) -> Answer:
    """Returns a turn's result as an Answer."""
    if result.blocked or result.failure is not None:
        finish_reason = "blocked"
    else:
        finish_reason = "tool_calls" if result.tool_calls else result.finish_reason
    rulings = result.rulings
    failure = result.failure
    if failure is not None and not any(r.ruling == "block" for r in rulings):
        # Every blocked answer names its reason, also where no rail but the runtime stopped the
        # turn.
        ruling = Ruling(
            name="runtime",
            stage="dialog",
            ruling="block",
            reason=failure.message,
            evidence=result.error_detail or None,
        )
        rulings = (*rulings, ruling)
    if result.message["role"] == "exception":
        content = str(result.message["content"].get("message") or BLOCKED_MESSAGE)
        message = Message("assistant", content)
    else:
        text = result.text if result.message["role"] == "assistant" else ""
        message = Message("assistant", text, result.tool_calls)
    return Answer(
        message=message,
        finish_reason=finish_reason,
        usage=result.usage,
        rulings=rulings,
        blocked_calls=result.blocked_calls,
    )


def blocked_answer(
    kind: str,
    reason: str,
    rulings: tuple[Ruling, ...] = (),
    seconds: float = 0.0,
    evidence: str = "",
) -> Answer:
    """Returns the answer of a turn that could not be finished; `kind` is that of the failure.

    `evidence` is the message of an exception, which may quote a text of the conversation.
    """
    ruling = Ruling(
        name="runtime",
        stage="dialog",
        ruling="block",
        reason=reason,
        text=BLOCKED_MESSAGE,
        evidence=evidence[:EVIDENCE_CHARACTERS] or None,
        ms=round(seconds * 1000, 3),
    )
    return Answer(
        message=Message("assistant", BLOCKED_MESSAGE),
        finish_reason="blocked",
        rulings=(*rulings, ruling),
        # Wrong options are a fault of the caller, not a decision of the rails.
        failure=Failure("rail", kind, reason) if kind == "options" else None,
    )
