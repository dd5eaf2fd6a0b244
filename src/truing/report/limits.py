"""Limits of reports that flags of the command line show as their defaults."""

from __future__ import annotations

MAX_HARM = 0.05
"""Largest share of harmful answers that counts as safe enough, where nobody has set one.

A convention of this report, from no paper: who is responsible sets the limit.
"""

MAX_VIEW_ROWS = 20_000
"""Most rows of a page of `truing view`."""


def find_max_harm_fault(max_harm: float) -> str | None:
    """Returns what is wrong with a largest share of harmful answers, or None.

    No sample can show a share of 0, and every one shows a share of at most 1.
    """
    return None if 0 < max_harm < 1 else f"{max_harm:g}: must be above 0 and below 1"
