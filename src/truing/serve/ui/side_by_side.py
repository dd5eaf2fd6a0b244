"""Several runs on the same prompts: which rows belong together, and which of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.outcomes import OUTCOME_NAMES
from truing.serve.ui.background import BackgroundCache, Fault, Pending
from truing.serve.ui.row_reader import Mask, RowFilter, RowIndex
from truing.serve.ui.run_state import RunState

MAX_VARIANTS = 6
_ABSENT = OUTCOME_NAMES.index("absent")
_MAX_ALIGNMENTS = 48


class Alignments:
    """For pairs of runs, the row of the second that belongs to each row of the first."""

    def __init__(self) -> None:
        self._cache: BackgroundCache[NDArray[np.int32]] = BackgroundCache(
            "alignment", size=_MAX_ALIGNMENTS, wait_seconds=1.0
        )

    def get(self, a: RowIndex, b: RowIndex) -> NDArray[np.int32] | Pending | Fault:
        """Returns the numbers of the rows of `b`, -1 where it has none."""
        # The name of an index tells the version of the run's files.
        return self._cache.get((str(a.path), str(b.path)), lambda: a.align(b))

    def close(self) -> None:
        """Waits for the alignment that is being made."""
        self._cache.close()


class OpenRun(Struct, frozen=True):
    """A run with its open index, and its rows in the order of the first run's."""

    state: RunState
    index: RowIndex
    rows: NDArray[np.int32]

    def gather(self, values: NDArray[Any], missing: object) -> NDArray[Any]:
        """Returns the run's values in the order of the first run's rows."""
        has_row = self.rows >= 0
        gathered = np.full(len(self.rows), missing, values.dtype)
        gathered[has_row] = values[self.rows[has_row]]
        return gathered


def select_rows(runs: Sequence[OpenRun], row_filter: RowFilter) -> Mask:
    """Returns which rows of the first run a filter selects.

    Words count that occur in the texts of any of the runs.
    """
    first = runs[0].index
    mask = first.select(row_filter, find_flips(runs) if row_filter.flips else None)
    if row_filter.words.strip():
        for masks in zip(*(_search(run, row_filter.words) for run in runs)):
            mask &= np.any(np.stack(masks), axis=0)
        if not first.search(row_filter.words):
            mask[:] = False
    return mask


def _search(run: OpenRun, words: str) -> list[Mask]:
    return [run.gather(mask, False) for mask in run.index.search(words)]


def find_flips(runs: Sequence[OpenRun]) -> Mask:
    """Returns the rows whose outcome in another run is not that in the first."""
    first = runs[0].index
    flips = np.zeros(first.size, bool)
    for run in runs[1:]:
        outcomes = run.gather(run.index.outcome, _ABSENT)
        is_in_both = (outcomes != _ABSENT) & (first.outcome != _ABSENT)
        flips |= is_in_both & (outcomes != first.outcome)
    return flips


def comparable_runs(state: RunState, states: Sequence[RunState]) -> list[RunState]:
    """Returns the other runs on the same data; those of the same plan come first."""
    key = state.manifest.data_key
    runs_of_data = [
        other
        for other in states
        if other.id != state.id and other.readable and key and other.manifest.data_key == key
    ]
    return sorted(runs_of_data, key=lambda other: (not is_sibling(state, other), other.name))


def is_sibling(state: RunState, other: RunState) -> bool:
    """Returns whether two runs are variants of one plan: OUT/VARIANT/DATA with the same data."""
    a, b = state.path, other.path
    return a.name == b.name and a.parent != b.parent and a.parent.parent == b.parent.parent
