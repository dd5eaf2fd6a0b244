"""What the outcome of a stage means for a text of a client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from truing.core.types import Failure, Ruling
from truing.rails.runtime.chat_messages import MODEL_ROLES, ChatMessage
from truing.rails.runtime.checked_texts import TextVerdict
from truing.rails.runtime.client_texts import PLACES_OF_ROLES, ClientText
from truing.rails.runtime.stage_runner import StageOutcome

TextReading = tuple[TextVerdict, Failure | None]  # a verdict, and why it could not be reached


def name_source(text: ClientText, rulings: Sequence[Ruling]) -> Iterator[Ruling]:
    """Yields rulings on a text; a block names where the text stands, or the call it came from."""
    # Here and not with the verdict: that is remembered for all texts that are equal.
    for ruling in rulings:
        if ruling.ruling == "block" and ruling.stage == "tool_input" and text.call_id:
            ruling = replace(ruling, call_ids=(text.call_id,))
        elif ruling.ruling == "block" and (place := PLACES_OF_ROLES.get(text.role)):
            ruling = replace(ruling, reason=f"{ruling.reason} (in {place})".strip())
        yield ruling


def read_verdict(text: ClientText, outcome: StageOutcome) -> TextReading:
    """Returns the verdict of a stage on a text, and why it reached none."""
    rulings = outcome.rulings
    if not outcome.passed:
        failure = outcome.failure
        if failure is None and not outcome.objected:
            failure = Failure("rail", "unchecked", outcome.reason)
        return TextVerdict(None, outcome.reply, rulings), failure
    content = outcome.content
    if content == text.text:
        return TextVerdict(text.text, rulings=rulings), None
    if not text.can_rewrite or not isinstance(content, str):
        rails = ", ".join(r.name for r in rulings if r.ruling == "rewrite")
        reason = f"{rails} would rewrite a {text.role} text ({text.part}) that cannot be rewritten"
        return TextVerdict(None, rulings=rulings), Failure("rail", "rewrite", reason)
    return TextVerdict(content, rulings=rulings), None


def was_refused(messages: Sequence[ChatMessage], text: ClientText, verdict: TextVerdict) -> bool:
    """Returns whether the next message is the refusal that answered this one.

    Then the conversation goes on without the refused text, which the model does not see.
    """
    # A variable or a field of an event may be called "content" too.
    if (
        text.role not in MODEL_ROLES
        or text.part != "content"
        or not 0 <= text.index < len(messages) - 1
    ):
        return False
    answer = messages[text.index + 1]
    if answer.role == "exception":
        return True
    is_refusal = bool(verdict.reply) and answer.content == verdict.reply
    return answer.role == "assistant" and is_refusal
