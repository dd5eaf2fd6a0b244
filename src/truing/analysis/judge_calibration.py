"""Fits the calibration of a judge's probabilities on a labelled set, for its card."""

from __future__ import annotations

from msgspec import Struct

from truing.analysis.judge_figures import select_rows
from truing.analysis.judged_sets import YES, JudgedSet
from truing.core.errors import DataError, LineageError, PlanError, RunError, did_you_mean
from truing.runs.folder import Run
from truing.stats.calibration import LogitCalibration, ece, fit_platt, fit_temperature

METHODS = ("platt", "temperature")
# A slope and an intercept fitted on fewer rows of a class follow single rows. A convention of this
# project.
_MIN_ROWS_PER_CLASS = 10


class CardCalibration(Struct, frozen=True, kw_only=True):
    """Calibrated probability sigmoid(slope · logit(p) + intercept), fitted on `n` labelled rows.

    `method` is platt, or temperature (slope 1 / temperature, intercept 0). `prompt_hashes` are
    those of the rows: the calibrated judge may not be measured on these prompts. `ece_before` and
    `ece_after` are the expected calibration errors on the same rows. `label_source` says whose
    labels they were fitted to: people, machine or design (`judged_sets`); "" in older cards.
    """

    method: str
    slope: float
    intercept: float
    n: int
    ece_before: float
    ece_after: float
    prompt_hashes: tuple[str, ...]
    label_source: str = ""


def fit_calibration(run: Run, judge: str, method: str) -> CardCalibration:
    """Fits the calibration of a judge on a run over a labelled set that it has judged.

    Raises PlanError for a method that is not one of `METHODS`, RunError if the run lacks the judge,
    LineageError if the judge may not measure these answers (`JudgedSet.conflict`), and DataError if
    its probabilities and the labels allow no fit.
    """
    if method not in METHODS:
        raise PlanError(f"calibration method {method!r}{did_you_mean(method, METHODS)}")
    record = next((r for r in run.manifest.judges if r.name == judge), None)
    if record is None:
        raise RunError(f"{run.path}: {judge} has not judged this run")
    judged = JudgedSet(run)
    conflict = judged.conflict(record.lineage)
    if conflict is not None:
        raise LineageError(f"{judge}: not calibrated on {judged.spec}: {conflict}")
    labels = judged.labels(record.question, ())
    if labels is None:
        raise RunError(f"{run.path}: nobody labelled {record.question!r} here")
    verdict_scores = judged.verdicts(judge, record.lineage.hash, record.question)
    measured, _ = select_rows(labels, verdict_scores, judged.trained_on(record.lineage))
    # Nothing is tuned on the frozen measurement set. A score of NaN (no probability) compares as
    # false and drops out.
    frozen = judged.frozen_rows()
    rows = measured & ~frozen & (verdict_scores.scores >= 0)
    p, y = verdict_scores.scores[rows], (labels.values[rows] == YES).astype(float)
    n_positive = int(y.sum())
    if min(n_positive, len(y) - n_positive) < _MIN_ROWS_PER_CLASS:
        raise DataError(
            f"{run.path}: {n_positive} positive and {len(y) - n_positive} negative rows with a "
            f"probability, without {int((measured & frozen).sum())} of the frozen measurement set; "
            f"a calibration needs {_MIN_ROWS_PER_CLASS} of each"
        )
    try:
        # Platt first for either method: it raises ValueError for a judge that ranks rows backwards
        # (slope below 0), which a temperature, being above 0, would hide.
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
        label_source=labels.source,
    )
