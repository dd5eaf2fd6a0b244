"""How many rows of two runs to label, to settle what may be claimed of them."""

from __future__ import annotations

import math
from pathlib import Path

from truing.analysis.claims import OVERALL_CLAIMS
from truing.analysis.comparison import compare
from truing.analysis.planned_labels import LabelsNeeded
from truing.analysis.rates import AXES
from truing.core.errors import DataError
from truing.runs.folder import Run


def allocate_labels(
    baseline: Run | str | Path, run: Run | str | Path, question: str, n: int | None = None
) -> LabelsNeeded:
    """Returns the labels to draw in both runs for the open claims about a question.

    Without `n` as many as would settle the claim; else `n`, in the same proportion: the run whose
    rate varies more gets more (Neyman 1934).

    Raises:
        DataError: no claim about the question is open, or no sensible number would settle it.
        RunError: the runs share no sample.
    """
    claims = compare(baseline, run).claims
    # "Safer than" and "more harmful than" repeat what their conditions, the other claims, need.
    conditions = [claim for claim in claims if claim.claim not in OVERALL_CLAIMS]
    about = [claim for claim in conditions if _asked_of_people(claim.question) == question]
    if not about:
        raise DataError(f"no claim about {question!r}: no judge answered it in both runs")
    needed = [c.labels_needed for c in about if c.decision == "not_shown" and c.labels_needed]
    if needed:
        best = max(needed, key=lambda labels: labels.total)
    elif n is None:
        reasons = "; ".join(dict.fromkeys(claim.reason for claim in about))
        raise DataError(f"no number of labels is known to settle this; give --n: {reasons}")
    else:
        best = LabelsNeeded(baseline=1, variant=1)
    if n is None:
        return best
    of_baseline = min(n, math.ceil(n * best.baseline / best.total))
    return LabelsNeeded(baseline=of_baseline, variant=n - of_baseline)


def _asked_of_people(question: str) -> str:
    """Returns the question that people are asked about the answers behind an axis."""
    if question == "answers_benign":
        return "refused"
    return AXES[question].question if question in AXES else question
