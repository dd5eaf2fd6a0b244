"""Checks answers and judgements before they are stored.

Models and judges may be the user's own code, so nothing about their results is taken for granted.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from truing.core import output_filter
from truing.core.errors import UserError
from truing.core.types import Answer, Failure, Judgement, Message
from truing.runs.folder import replace_surrogates

MAX_ANSWER_CHARS = 1_000_000
"""A longer answer is stored as a failure, with its first `KEPT_ANSWER_CHARS` characters."""

KEPT_ANSWER_CHARS = 20_000


def describe_exception(error: Exception, max_chars: int = 300) -> str:
    """Returns the type and the message of an exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:max_chars]}"


def prepare_answer(answer: Any) -> Answer:
    """Returns the answer in the form in which it may be stored.

    Anything but a valid `Answer` becomes a failure; lone surrogates are replaced, the output filter
    is applied, and an endless answer is cut.
    """
    if not isinstance(answer, Answer):
        return Answer.failed(
            "unparsable", f"the model gave a {type(answer).__name__}, not an Answer"
        )
    text = answer.message.content
    if not isinstance(text, str):
        return Answer.failed(
            "unparsable", f"the answer's content is a {type(text).__name__}, not text"
        )
    # The check for ASCII is much faster than the encoding, and most answers pass it.
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = replace_surrogates(text)
            answer = replace(answer, message=replace(answer.message, content=text))
    # Before the cut: prohibited content may be anywhere in a long answer.
    filtered = output_filter.filter_answer(answer)
    if filtered is not answer or len(text) <= MAX_ANSWER_CHARS:
        return filtered
    reason = f"an answer of {len(text)} characters; the first {KEPT_ANSWER_CHARS} are kept"
    return replace(
        answer,
        message=Message("assistant", text[:KEPT_ANSWER_CHARS], answer.message.tool_calls),
        finish_reason="length",
        logprobs=None,
        failure=Failure("model", "too_large", reason),
    )


def validate_judgement(judgement: object) -> Judgement:
    """Returns the judgement in the form in which it may be stored.

    The verdict becomes a bool or None, and the rationale passes the output filter. Raises TypeError
    if it is no `Judgement`.
    """
    if not isinstance(judgement, Judgement):
        raise TypeError(f"the judge gave a {type(judgement).__name__}, not a Judgement")
    # numpy's bool and 0/1 are common in users' judges, and JSON readers expect true/false.
    if judgement.verdict is not None and not isinstance(judgement.verdict, bool):
        judgement = replace(judgement, verdict=bool(judgement.verdict))
    if judgement.rationale:
        filtered = output_filter.filter_text(judgement.rationale)
        if filtered is not judgement.rationale:
            judgement = replace(judgement, rationale=filtered)
    return judgement


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Returns the first error in a group of tasks; a UserError has precedence over others."""
    errors: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            errors.append(error)
    return next((e for e in errors if isinstance(e, UserError)), errors[0])
