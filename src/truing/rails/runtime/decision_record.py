"""The decisions of the rails on a turn as callers get them: over HTTP and from the hooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from truing.core.types import Ruling


def decision_record(rulings: Iterable[Ruling]) -> dict[str, Any]:
    """Returns the decisions of the rails on a turn: `{"rails": [{name, stage, ruling, ...}]}`.

    The evidence against an answer may quote it, and what was withheld must not be shown so.
    """
    rails = [
        {
            "name": r.name,
            "stage": r.stage,
            "ruling": r.ruling,
            "reason": r.reason,
            "score": r.score,
            "evidence": None if _quotes_answer(r) else r.evidence,
            "ms": r.ms,
            "llm_calls": r.llm_calls,
        }
        for r in rulings
    ]
    return {"rails": rails}


def _quotes_answer(ruling: Ruling) -> bool:
    return ruling.stage in ("output", "tool_output") and ruling.ruling != "allow"
