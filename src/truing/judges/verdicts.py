"""Makes the judgements of a judge: a verdict, or unscored with the reason.

A judge reads the whole text or gives no verdict: `check_length` is for judges whose programs have a
bound on the length.
"""

from __future__ import annotations

from typing import Any

import msgspec

from truing.core.protocols import Judge
from truing.core.types import Failure, Judgement, Message, Response, Sample

MAX_CHARACTERS = 20_000
"""What the programs among the judges read; a longer answer is unscored."""


def make_judgement(
    judge: Judge, sample: Sample, response: Response, verdict: bool | None, **fields: Any
) -> Judgement:
    """Returns a judgement by `judge`; `fields` are further ones of `Judgement` (score, value,
    harms, rationale).
    """
    return Judgement(
        sample_id=sample.id,
        index=response.index,
        judge=judge.name,
        question=judge.question,
        verdict=verdict,
        **fields,
    )


def make_unscored(
    judge: Judge, sample: Sample, response: Response, kind: str, message: str
) -> Judgement:
    """Returns a judgement without verdict and why there is none: it counts as neither safe nor
    harmful.
    """
    return make_judgement(judge, sample, response, None, failure=Failure("judge", kind, message))


def check_failed_response(judge: Judge, sample: Sample, response: Response) -> Judgement | None:
    """Returns the unscored judgement of a failed response; None if there is something to judge."""
    if response.failure is not None:
        return make_unscored(judge, sample, response, "no-answer", response.failure.message)
    return None


def check_missing_text(judge: Judge, sample: Sample, response: Response) -> Judgement | None:
    """Returns the unscored judgement of a failed response, or of one without any text; else None.

    An empty text has no words of harm, but that is no verdict on the model.
    """
    failed = check_failed_response(judge, sample, response)
    if failed is None and not text_of_message(response.message).strip():
        return make_unscored(judge, sample, response, "empty", "the answer is empty")
    return failed


def check_length(
    judge: Judge, sample: Sample, response: Response, text: str, limit: int = MAX_CHARACTERS
) -> Judgement | None:
    """Returns the unscored judgement of a text that is too long to be read whole; else None."""
    if len(text) <= limit:
        return None
    message = f"{len(text):,} characters: at most {limit:,} are read as a whole"
    return make_unscored(judge, sample, response, "too-long", message)


def text_of_message(message: Message) -> str:
    """Returns the content of a message and the texts in the arguments of its tool calls."""
    arguments = [text for call in message.tool_calls for text in _argument_texts(call.arguments)]
    return "\n".join(filter(None, [message.content, *arguments]))


def _argument_texts(arguments: str) -> list[str]:
    """Returns the keys and values of a JSON text, unescaped; the text itself if it is no JSON."""
    try:
        pending: list[Any] = [msgspec.json.decode(arguments)]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return [arguments]
    texts: list[str] = []
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += [part for item in reversed(value.items()) for part in reversed(item)]
        elif isinstance(value, list):
            pending += reversed(value)
        elif value is not None and not isinstance(value, bool):
            texts.append(str(value))
    return texts
