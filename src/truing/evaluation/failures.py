"""Which stored failures a run repeats when it is called again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from truing.core.jsonl import read_records
from truing.core.types import AnswerIndex, Failure
from truing.evaluation.options import EvaluateOptions

RESPONSES = "responses.jsonl"


class StoredFailure(Struct, frozen=True):
    """The fields of a stored response or judgement that say whether it failed."""

    sample_id: str
    index: AnswerIndex = 0
    failure: Failure | None = None


def is_repeated(failure: Failure | None, options: EvaluateOptions) -> bool:
    """Whether what failed is done again.

    A rail's refusal and an answer withheld by the output filter are results and never repeated.
    """
    if failure is None or failure.stage not in ("model", "attack", "judge"):
        return False
    return failure.transient if options.retry_failures is None else options.retry_failures


def find_repeated(path: Path, options: EvaluateOptions) -> Iterator[StoredFailure]:
    """Yields the failures in a file of responses or judgements that are to be repeated."""
    if options.retry_failures is False:
        return
    for record in read_records(path, StoredFailure):
        if is_repeated(record.failure, options):
            yield record
