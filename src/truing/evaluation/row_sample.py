"""Draws some rows of a data set at random, by prompt, while it is read once."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from truing.core.ids import stream_seed
from truing.core.lineage import hash_prompt
from truing.core.types import Row, Sample
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run


class RowSample:
    """A random sample of at most `limit` rows of a stream, a function of the seed.

    Whole prompts are drawn, each with all its rows; the last one only with as many as there is room
    for. A harmful prompt and its benign twin count as one prompt. A prompt's rank is a hash of the
    seed and its text, and the lowest ranks are drawn: with the same seed a larger limit draws all
    that a smaller one does, whatever the order of the rows. At most `2 * limit` rows are in memory.
    `key` returns what rows of one prompt share.
    """

    def __init__(
        self, limit: int, seed: int, *, key: Callable[[Sample], str] | None = None
    ) -> None:
        self.limit, self.seed = limit, seed
        self._key = key or prompt_of
        self.n_seen = 0
        self._rows: dict[str, list[tuple[int, Row]]] = {}  # prompt -> (position, row)
        # A heap of (-rank, prompt): on top is the prompt of the highest rank, dropped first.
        self._by_rank: list[tuple[int, str]] = []
        self._rank_limit: int | None = None  # prompts of this rank or a higher one are not drawn
        self._n_held = 0

    def add(self, row: Row) -> None:
        """Takes the next row of the data set."""
        position, prompt = self.n_seen, self._key(row.sample)
        self.n_seen += 1
        rows = self._rows.get(prompt)
        if rows is None:
            rank = stream_seed(self.seed, "sample", prompt)
            if self._rank_limit is not None and rank >= self._rank_limit:
                return
            rows = self._rows[prompt] = []
            heapq.heappush(self._by_rank, (-rank, prompt))
        if len(rows) == self.limit:
            return
        rows.append((position, row))
        self._n_held += 1
        self._drop_highest_ranks()

    def _drop_highest_ranks(self) -> None:
        """Drops prompts of the highest ranks as long as the others fill the sample."""
        while self._n_held - len(self._rows[self._by_rank[0][1]]) >= self.limit:
            negative_rank, prompt = heapq.heappop(self._by_rank)
            self._n_held -= len(self._rows.pop(prompt))
            self._rank_limit = -negative_rank

    def drawn(self) -> Iterator[Row]:
        """Yields the rows drawn, in the order of the data set."""
        chosen: list[tuple[int, Row]] = []
        for _, prompt in sorted(self._by_rank, reverse=True):
            chosen += self._rows[prompt][: self.limit - len(chosen)]
        yield from (row for _, row in sorted(chosen, key=lambda entry: entry[0]))


def draw_rows(rows: Iterable[Row], limit: int, seed: int) -> list[Row]:
    """Returns at most `limit` rows, drawn as by `RowSample`, in their order."""
    sample = RowSample(limit, seed)
    for row in rows:
        sample.add(row)
    return list(sample.drawn())


def keep_stored_sample(options: EvaluateOptions, *folders: Path) -> EvaluateOptions:
    """Returns options that take the first rows, if a stored run was begun by version 0.1.

    Version 0.1 took the first `limit` rows and had no setting `sample`. `folders` are that of the
    run and those of the runs that it is compared with: all have to measure the same rows.
    """
    if options.limit is None:
        return options
    for folder in folders:
        if (folder / "manifest.json").is_file():
            plan = Run(folder).manifest.plan
            if plan.get("limit") is not None and "sample" not in plan:
                return replace(options, sample="first")
    return options


def prompt_of(sample: Sample) -> str:
    """Returns a key that twins, attacks on one prompt, and samples of equal text share."""
    if sample.pair or sample.parent:
        return f"pair {sample.pair}" if sample.pair else f"parent {sample.parent}"
    messages = sample.conversation.messages
    text = "\n".join(message.content for message in messages if message.role == "user")
    return hash_prompt(text) if text.strip() else f"id {sample.id}"
