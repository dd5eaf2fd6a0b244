"""Draws some rows of a data set at random, by prompt, while it is read once."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from truing.core.ids import stream_seed
from truing.core.lineage import hash_prompt
from truing.core.types import Row, Sample
from truing.evaluation.options import EvaluateOptions
from truing.runs.folder import Run


class RowSample:
    """At most `limit` rows of a stream, drawn by the seed.

    Prompts are drawn, each with all its rows; of the last one drawn only as many as there is room
    for. A harmful prompt and its benign twin are drawn together. Prompts have an order that depends
    on the seed and on their text alone, so the same seed and a larger limit keep what a smaller one
    drew, whatever the order of the rows. Fewer than two times `limit` rows are held.
    """

    def __init__(self, limit: int, seed: int) -> None:
        self.limit, self.seed = limit, seed
        self.n_seen = 0
        self._rows: dict[str, list[tuple[int, Row]]] = {}  # prompt -> (number, row)
        # (minus rank, prompt): the prompt that is given up first is on top.
        self._last_drawn: list[tuple[int, str]] = []
        self._worst_rank: int | None = None
        self._n_held = 0

    def add(self, row: Row) -> None:
        """Takes the next row of the data set."""
        number, prompt = self.n_seen, prompt_of(row.sample)
        self.n_seen += 1
        rows = self._rows.get(prompt)
        if rows is None:
            rank = stream_seed(self.seed, "sample", prompt)
            if self._worst_rank is not None and rank >= self._worst_rank:
                return
            rows = self._rows[prompt] = []
            heapq.heappush(self._last_drawn, (-rank, prompt))
        if len(rows) == self.limit:
            return
        rows.append((number, row))
        self._n_held += 1
        self._give_up_prompts()

    def _give_up_prompts(self) -> None:
        while self._n_held - len(self._rows[self._last_drawn[0][1]]) >= self.limit:
            negative_rank, prompt = heapq.heappop(self._last_drawn)
            self._n_held -= len(self._rows.pop(prompt))
            self._worst_rank = -negative_rank  # no prompt from here on is taken again

    def drawn(self) -> Iterator[Row]:
        """Yields the rows drawn, in the order of the data set."""
        chosen: list[tuple[int, Row]] = []
        for _, prompt in sorted(self._last_drawn, reverse=True):
            chosen += self._rows[prompt][: self.limit - len(chosen)]
        yield from (row for _, row in sorted(chosen, key=lambda numbered: numbered[0]))


def draw_rows(rows: Iterable[Row], limit: int, seed: int) -> list[Row]:
    """Returns at most `limit` rows, drawn as by `RowSample`, in their order."""
    sample = RowSample(limit, seed)
    for row in rows:
        sample.add(row)
    return list(sample.drawn())


def keep_stored_sample(options: EvaluateOptions, *folders: Path) -> EvaluateOptions:
    """Returns options of the first rows if a run that is to be continued holds these, as of 0.1.

    `folders` are that of the run, and those of the runs that it is compared with: all have to be of
    the same rows.
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
    """Returns what a sample shares with the others of its prompt: twins, attacks, equal texts."""
    if sample.pair or sample.parent:
        return f"pair {sample.pair}" if sample.pair else f"parent {sample.parent}"
    messages = sample.conversation.messages
    text = "\n".join(message.content for message in messages if message.role == "user")
    return hash_prompt(text) if text.strip() else f"id {sample.id}"
