"""Judges the rows of an input: what is judged of each, and the fields that it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from truing.bulk.row_files import InputRow
from truing.core.flagged_categories import category_thresholds, flag_categories
from truing.core.protocols import Judge
from truing.core.types import Answer, Conversation, Judgement, Message, Response, Sample
from truing.evaluation.judge_stage import judge_safely
from truing.judges.verdicts import text_of_message

ADDED_FIELDS = (
    "harmful",
    "flagged",
    "categories",
    "flagged_categories",
    "uncategorised",
    "failure",
)
"""The fields that are added to each row, without the prefix."""

CHUNK_SIZE = 256
"""Rows that are judged at once."""


async def judge_row(judge: Judge, row: InputRow) -> Judgement:
    """Returns the judgement of a row's answer, or of its prompt if it has no answer.

    An unscored one with the failure if the judge raises; BudgetExceeded is raised.
    """
    sample = Sample(id=str(row.number), conversation=row.conversation)
    if row.response is not None:
        response = Response.of(sample.id, 0, "recorded", Answer(message=row.response))
        return await judge_safely(judge, sample, response)
    # A classifier that was trained on prompts has a judge for them.
    make_prompt_judge = getattr(judge, "of_prompts", None)
    if make_prompt_judge is not None:
        prompt_judge: Judge = make_prompt_judge()
        no_answer = Response(sample_id=sample.id, message=Message("assistant", ""))
        return await judge_safely(prompt_judge, sample, no_answer)
    # Every other judge reads all of the prompt as if it were an answer.
    text = "\n\n".join(filter(None, map(text_of_message, row.conversation.messages)))
    prompt = Response.of(sample.id, 0, "recorded", Answer.of(text))
    return await judge_safely(judge, Sample(id=sample.id, conversation=Conversation()), prompt)


def judged_values(judge: Judge, judgement: Judgement) -> tuple[Any, ...]:
    """Returns what a row gets of its judgement, in the order of `ADDED_FIELDS`."""
    failure = None
    if judgement.failure is not None:
        failure = {"kind": judgement.failure.kind, "message": judgement.failure.message}
    flagged: tuple[str, ...] = ()
    if judgement.verdict:
        flagged = flag_categories(judgement.harms, category_thresholds(judge))
    uncategorised = judgement.verdict is True and not flagged
    return (
        judgement.score,
        judgement.verdict,
        judgement.harms,
        flagged,
        uncategorised,
        failure,
    )


def is_immediate(judge: Judge) -> bool:
    """Whether a judge waits for nothing and has no batches, as it says of itself."""
    return getattr(judge, "is_immediate", False)


async def judge_rows(judge: Judge, rows: Sequence[InputRow]) -> list[Judgement]:
    """Returns the judgements of rows that are judged at once, in their order."""
    if is_immediate(judge):
        # A task for each row would cost more than the judge. Once, others get their turn, such as
        # the end that Ctrl-C asks for.
        await asyncio.sleep(0)
        return [await judge_row(judge, row) for row in rows]
    return await asyncio.gather(*(judge_row(judge, row) for row in rows))


async def judge_by_length(judge: Judge, rows: Sequence[InputRow]) -> list[Judgement]:
    """Returns the judgements of rows, in their order.

    Rows of like length are judged together, `CHUNK_SIZE` at a time, so that a batch of a model is
    filled with text and not with padding.
    """
    if is_immediate(judge):
        return await judge_rows(judge, rows)
    judgements: dict[int, Judgement] = {}
    order = sorted(range(len(rows)), key=lambda position: _text_length(rows[position]))
    for start in range(0, len(order), CHUNK_SIZE):
        positions = order[start : start + CHUNK_SIZE]
        of_chunk = await judge_rows(judge, [rows[position] for position in positions])
        judgements.update(zip(positions, of_chunk, strict=True))
    return [judgements[position] for position in range(len(rows))]


def _text_length(row: InputRow) -> int:
    messages = (*row.conversation.messages, *((row.response,) if row.response else ()))
    return sum(len(message.content) for message in messages)
