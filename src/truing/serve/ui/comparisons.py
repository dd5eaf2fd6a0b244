"""Comparisons of two runs, made in the background and kept until their files change."""

from __future__ import annotations

from truing.analysis.comparison import Comparison, adjust_comparisons, compare
from truing.serve.ui.background import BackgroundCache, Fault, Pending
from truing.serve.ui.figures import LABEL_FILES
from truing.serve.ui.row_indexes import fingerprint
from truing.serve.ui.run_state import RunState

_MAX_COMPARISONS = 64


class Comparisons:
    """Comparisons by the claims engine, in the background; as `truing compare A B` makes them."""

    def __init__(self) -> None:
        self._cache: BackgroundCache[Comparison] = BackgroundCache(
            "compare", size=_MAX_COMPARISONS, wait_seconds=0.6
        )

    def get(self, a: RunState, b: RunState) -> Comparison | Pending | Fault:
        """Returns the comparison of a run with its baseline `a`."""
        key = (fingerprint(a, LABEL_FILES), fingerprint(b, LABEL_FILES))
        return self._cache.get(key, lambda: adjust_comparisons([compare(a.path, b.path)])[0])

    def close(self) -> None:
        """Waits for the comparison that is being made."""
        self._cache.close()
