"""Fits the calibration of a judge's probabilities on a labelled set, for its card."""

from __future__ import annotations

from msgspec import Struct

from truing.analysis.judge_figures import select_rows
from truing.analysis.judged_sets import YES, JudgedSet
from truing.core.errors import DataError, RunError
from truing.runs.folder import Run
from truing.stats.calibration import LogitCalibration, ece, fit_platt, fit_temperature

METHODS = ("platt", "temperature")
_MIN_ROWS_PER_CLASS = 10


class CardCalibration(Struct, frozen=True, kw_only=True):
    """sigmoid(slope logit(p) + intercept), fitted on `n` labelled rows.

    `prompt_hashes` are those of the rows' prompts, which may not measure the calibrated judge.
    `ece` is that of the same rows before and after.
    """

    method: str
    slope: float
    intercept: float
    n: int
    ece_before: float
    ece_after: float
    prompt_hashes: tuple[str, ...]


def fit_calibration(run: Run, judge: str, method: str) -> CardCalibration:
    """Fits the calibration of a judge on a run over a labelled set that it has judged.

    Raises RunError if the run lacks the judge, DataError if its probabilities and the labels allow
    no fit.
    """
    record = next((r for r in run.manifest.judges if r.name == judge), None)
    if record is None:
        raise RunError(f"{run.path}: {judge} has not judged this run")
    judged = JudgedSet(run)
    labels = judged.labels(record.question, ())
    if labels is None:
        raise RunError(f"{run.path}: nobody labelled {record.question!r} here")
    said = judged.verdicts(judge, record.lineage.hash, record.question)
    measured, _ = select_rows(labels, said, judged.trained_on(record.lineage))
    # Nothing is tuned on the frozen measurement set. NaN, no probability, compares false.
    frozen = judged.frozen_rows()
    rows = measured & ~frozen & (said.scores >= 0)
    p, y = said.scores[rows], (labels.values[rows] == YES).astype(float)
    n_positive = int(y.sum())
    if min(n_positive, len(y) - n_positive) < _MIN_ROWS_PER_CLASS:
        raise DataError(
            f"{run.path}: {n_positive} positive and {len(y) - n_positive} negative rows with a "
            f"probability, without {int((measured & frozen).sum())} of the frozen measurement set; "
            f"a calibration needs {_MIN_ROWS_PER_CLASS} of each"
        )
    try:
        # Also for a temperature: it cannot be negative, and so would hide a judge that is turned.
        fitted = fit_platt(p, y)
        if method == "temperature":
            fitted = LogitCalibration(1 / fit_temperature(p, y), 0.0)
    except ValueError as error:
        raise DataError(f"{run.path}: {judge} cannot be calibrated: {error}") from error
    return CardCalibration(
        method=method,
        slope=fitted.slope,
        intercept=fitted.intercept,
        n=len(y),
        ece_before=ece(p, y),
        ece_after=ece(fitted(p), y),
        prompt_hashes=judged.known_prompts(rows),
    )
