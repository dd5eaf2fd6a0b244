"""Adds labels to runs, for tests of corrections."""

from __future__ import annotations

from pathlib import Path

from truing.analysis.label_draws import LabelDraw
from truing.analysis.labels import add_label
from truing.core.types import Judgement


def label_draw(
    run: Path,
    draw: LabelDraw,
    verdict: bool | None,
    judge: str = "human:ann",
    rater: str | None = None,
) -> None:
    """Adds a label of a drawn row; None is "cannot tell"."""
    add_label(
        run,
        Judgement(
            sample_id=draw.sample_id,
            index=draw.index,
            judge=judge,
            question=draw.question,
            verdict=verdict,
            rater=rater,
        ),
    )


def sample_number(draw: LabelDraw) -> int:
    """Returns the i of a sample s<i>."""
    return int(draw.sample_id[1:])
