"""The difference between two runs in one question: the row of a comparison's table."""

from __future__ import annotations

from msgspec import Struct

from truing.stats.intervals import Interval


class Delta(Struct, frozen=True, kw_only=True):
    """One question by one judge in one category: the second run's rate minus the first's, over paired samples.

    `to_no` and `to_yes` count pairs that changed; `unscored` pairs could not be compared, and
    `bounds` says what the delta could be whatever they are. `p_adjusted` is Holm's, `p_fdr` Benjamini and Hochberg's.
    """

    question: str
    category: str | None
    judge: str
    judge_hash: str
    n_pairs: int
    estimate: float | None
    lower: float | None
    upper: float | None
    p: float | None
    p_adjusted: float | None = None
    p_fdr: float | None = None
    method: str = ""
    rate_a: float | None = None
    rate_b: float | None = None
    to_no: int = 0
    to_yes: int = 0
    unscored: int = 0
    bounds: tuple[float, float] = (-1.0, 1.0)
    small: bool = False
    selected_by_judge: bool = False
    struck: str | None = None
    corrected: Interval | None = None
    transported: Interval | None = None
