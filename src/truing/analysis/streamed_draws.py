"""Even draws of rows for labelling from a run of any size, in one pass.

The one random order of all rows is that of a keyed hash of each row's name: the first n rows of it
are a simple random sample without replacement, a later draw continues it, and the part of it that
lies in a shard is known without the others. Memory: the rows that are drawn.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from msgspec import Struct

from truing.core.types import Failure
from truing.runs.folder import Run
from truing.runs.parts import read_run_records


class RowName(Struct, frozen=True, order=True):
    """An answer by its sample and index."""

    sample_id: str
    index: int = 0


class _Answer(Struct, frozen=True):
    sample_id: str
    index: int = 0
    failure: Failure | None = None


def draw_in_hash_order(
    names: Iterable[RowName], n: int, seed: int, question: str
) -> tuple[list[RowName], int]:
    """Returns the first n rows of the random order, and the number of all rows.

    Each row is among them with the probability n / rows, exactly.
    """
    # The n smallest: a heap of negated hashes has the largest of them on top.
    smallest: list[tuple[int, RowName]] = []
    n_rows = 0
    for name in names:
        n_rows += 1
        place = -_hash_row(name, seed, question)
        if len(smallest) < n:
            heapq.heappush(smallest, (place, name))
        elif n and place > smallest[0][0]:
            heapq.heapreplace(smallest, (place, name))
    ordered = sorted(smallest, key=lambda entry: (-entry[0], entry[1]))
    return [name for _, name in ordered], n_rows


def _hash_row(name: RowName, seed: int, question: str) -> int:
    text = f"{seed}\0{question}\0{name.index}\0{name.sample_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")


def answered_rows(run: Run) -> Iterable[RowName]:
    """Yields the answers of a run that can be labelled: those that did not fail."""
    for answer in read_run_records(run.path, "responses.jsonl", _Answer):
        if answer.failure is None:
            yield RowName(answer.sample_id, answer.index)
