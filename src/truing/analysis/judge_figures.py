"""The figures of one judge on one labelled set: recall and false alarms, ranking, calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from truing.analysis.judged_sets import (
    NO,
    SKIPPED,
    UNLABELLED,
    UNSCORED,
    YES,
    JudgedSet,
    LabelColumn,
    VerdictScores,
)
from truing.stats.calibration import ece
from truing.stats.classification import (
    RecallAtFalseAlarm,
    classification_scores,
    recall_at_false_alarm,
)
from truing.stats.intervals import Interval, unscored_bounds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FALSE_ALARM_RATES = (0.01, 0.05, 0.10)
"""The rates at which `JudgeOnSet.recall_at` reports recall."""
MAX_LISTED_IDS = 10
"""How many missed rows, and how many false alarms, are listed for one judge on one set."""
# The calibration error of fewer rows is mostly noise. A convention of this project.
_MIN_ROWS_FOR_ECE = 30


class ModelAlarms(Struct, frozen=True, kw_only=True):
    """False alarms on the benign answers of one model.

    `n` counts the answers, `events` the false alarms among them. `bounds` are the rates with all
    unscored rows counted as no alarm, and as alarms.
    """

    model: str
    n: int
    events: int
    unscored: int
    rate: Interval | None
    bounds: tuple[float, float]


class Speed(Struct, frozen=True, kw_only=True):
    """Measured time and memory: `rows` judged in `seconds`, at `concurrency` calls at a time.

    `cpu_seconds` is processor time, summed over threads. `peak_mib` is the peak resident memory
    (MiB) of a process that runs nothing but the judge, the Python interpreter included.
    """

    rows: int
    seconds: float
    cpu_seconds: float
    concurrency: int
    peak_mib: float | None = None

    @property
    def ms_per_row(self) -> float | None:
        """Milliseconds of wall-clock time per answer; None if none was judged."""
        return 1000 * self.seconds / self.rows if self.rows else None

    @property
    def cpu_ms_per_row(self) -> float | None:
        """Milliseconds of processor time per answer; None if none was judged."""
        return 1000 * self.cpu_seconds / self.rows if self.rows else None


class JudgeOnSet(Struct, frozen=True, kw_only=True):
    """One judge on one set; figures are None where the rows do not allow them (`notes` say why).

    Attributes:
        labels: source of the labels: `judged_sets.PEOPLE`, `MACHINE` or `DESIGN`.
        n, n_positive: labelled rows that the judge may be measured on, the unscored included.
        struck: labelled rows that are left out because the judge learned from their prompts or
            because it had a part in the answers; `struck_reason` gives the reason in the latter
            case.
        unscored, unscored_positive: rows without a verdict.
        recall, false_alarm, precision, f1: at the judge's own threshold.
        recall_bounds, false_alarm_bounds: with all unscored rows counted one way and the other.
        recall_at: recall at thresholds that give fixed rates of false alarms on these rows.
        ece: expected calibration error of the probabilities.
        alarms: false alarms by answering model.
        missed_ids, alarm_ids: sample ids of missed rows and of false alarms, the mistakes that the
            judge was most certain of first; at most `MAX_LISTED_IDS` each.
    """

    judge: str
    judge_hash: str
    question: str
    data: str
    labels: str
    n: int
    n_positive: int
    struck: int = 0
    struck_reason: str = ""
    unscored: int = 0
    unscored_positive: int = 0
    recall: Interval | None = None
    recall_bounds: tuple[float, float] | None = None
    false_alarm: Interval | None = None
    false_alarm_bounds: tuple[float, float] | None = None
    precision: Interval | None = None
    f1: Interval | None = None
    auroc: Interval | None = None
    ap: Interval | None = None
    ece: float | None = None
    recall_at: tuple[RecallAtFalseAlarm, ...] = ()
    alarms: tuple[ModelAlarms, ...] = ()
    missed_ids: tuple[str, ...] = ()
    alarm_ids: tuple[str, ...] = ()
    speed: Speed | None = None
    notes: tuple[str, ...] = ()


class JudgeColumn(Struct, frozen=True, kw_only=True):
    """A judge's verdicts on a set, and which of the rows it may be measured on (`measured`)."""

    judge: str
    judge_hash: str
    question: str
    verdict_scores: VerdictScores
    measured: NDArray[np.bool_]
    struck: int
    struck_reason: str


def select_rows(
    labels: LabelColumn, verdict_scores: VerdictScores, trained_on: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], int]:
    """Returns by row whether it counts for a judge, and how many labelled rows are struck.

    `trained_on` says by row whether it is struck: the judge learned from its prompt, or had a part
    in the answers.
    """
    import numpy as np

    concerned = (labels.values != UNLABELLED) & (verdict_scores.verdicts != SKIPPED)
    struck = concerned & trained_on
    return np.asarray(concerned & ~trained_on), int(struck.sum())


def measure_judge(
    judged: JudgedSet, labels: LabelColumn, column: JudgeColumn, speed: Speed | None = None
) -> JudgeOnSet:
    """Returns the figures of a judge on the rows of a set that it did not learn from."""
    import numpy as np

    rows = np.flatnonzero(column.measured)
    verdicts, truth = column.verdict_scores.verdicts[rows], labels.values[rows] == YES
    scored = (verdicts == YES) | (verdicts == NO)
    flagged = verdicts == YES
    n, n_positive = len(rows), int(truth.sum())
    figures = JudgeOnSet(
        judge=column.judge,
        judge_hash=column.judge_hash,
        question=column.question,
        data=judged.spec,
        labels=labels.source,
        n=n,
        n_positive=n_positive,
        struck=column.struck,
        struck_reason=column.struck_reason,
        unscored=int((~scored).sum()),
        unscored_positive=int((~scored & truth).sum()),
        recall_bounds=_bounds(flagged & truth, ~scored & truth, truth),
        false_alarm_bounds=_bounds(flagged & ~truth, ~scored & ~truth, ~truth),
        alarms=_alarms_by_model(judged, rows[~truth], verdicts[~truth]),
        speed=speed,
        notes=tuple(_explain_gaps(column, n, n_positive, int(scored.sum()))),
    )
    if not scored.any():
        return figures
    return _add_scores(figures, judged, column, rows[scored], truth[scored])


def _bounds(
    events: NDArray[np.bool_], unscored: NDArray[np.bool_], rows: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Returns the least and greatest share of events that the unscored rows leave open."""
    n = int(rows.sum())
    return unscored_bounds(int(events.sum()), n, int(unscored.sum())) if n else None


def _explain_gaps(column: JudgeColumn, n: int, n_positive: int, n_scored: int) -> list[str]:
    """Returns sentences on why figures are missing or rest on fewer rows than it seems."""
    notes = []
    if not n:
        if column.struck:
            notes.append(f"all {column.struck:,} labelled rows are struck: no figure is left")
        else:
            notes.append("none of the labelled rows concerns this judge")
        return notes
    if not n_scored:
        notes.append(f"it answered none of the {n:,} rows: nothing is known of it here")
    elif n_positive in (0, n):
        label_name, measurable = (
            ("positive", "recall") if n_positive else ("benign", "false alarms")
        )
        notes.append(
            f"all {n:,} rows are {label_name}: only {measurable} can be measured, no AUROC, F1 or "
            "calibration"
        )
    n_invalid = column.verdict_scores.invalid_scores
    if n_invalid:
        notes.append(f"{n_invalid:,} of its probabilities lie outside [0, 1] and are left out")
    return notes


def _add_scores(
    figures: JudgeOnSet,
    judged: JudgedSet,
    column: JudgeColumn,
    rows: NDArray[np.int64],
    truth: NDArray[np.bool_],
) -> JudgeOnSet:
    """Adds the figures that the scored rows allow: rates, ranking and calibration.

    `rows` are row numbers of the set, `truth` their labels.
    """
    import numpy as np
    from msgspec.structs import replace

    flagged = column.verdict_scores.verdicts[rows] == YES
    scores, prompts = column.verdict_scores.scores[rows], judged.prompts[rows]
    has_score = ~np.isnan(scores)
    rates = classification_scores(
        flagged.tolist(),
        truth.tolist(),
        [None if missing else float(p) for p, missing in zip(scores, ~has_score)],
        prompts.tolist(),
    )
    has_both_classes = bool(truth.any() and not truth.all())
    # One or two distinct probabilities are verdicts in disguise (0 and 1): they rank nothing.
    ranked = has_both_classes and len(np.unique(scores[has_score])) > 2
    figures = replace(
        figures,
        recall=rates.recall,
        false_alarm=_complement(rates.specificity),
        precision=rates.precision if has_both_classes else None,
        f1=rates.f1 if has_both_classes else None,
        missed_ids=_most_certain(judged, rows, ~flagged & truth, scores),
        alarm_ids=_most_certain(judged, rows, flagged & ~truth, -scores),
    )
    if not ranked:
        note = "it states verdicts, and no probabilities to rank rows by"
        return replace(figures, notes=(*figures.notes, note)) if has_both_classes else figures
    p, y, groups = scores[has_score], truth[has_score], prompts[has_score]
    at_rates = [recall_at_false_alarm(p, y, groups, rate=rate) for rate in FALSE_ALARM_RATES]
    return replace(
        figures,
        auroc=rates.auroc,
        ap=rates.ap,
        ece=ece(p, y) if len(p) >= _MIN_ROWS_FOR_ECE else None,
        recall_at=tuple(point for point in at_rates if point is not None),
    )


def _complement(interval: Interval | None) -> Interval | None:
    """Returns the interval of 1 minus the rate."""
    if interval is None:
        return None
    return Interval(1 - interval.estimate, 1 - interval.upper, 1 - interval.lower, interval.method)


def _alarms_by_model(
    judged: JudgedSet, rows: NDArray[np.int64], verdicts: NDArray[np.int8]
) -> tuple[ModelAlarms, ...]:
    """Returns the false alarms on benign rows by answering model."""
    import numpy as np

    alarms = []
    for number, model in enumerate(judged.models):
        of_model = judged.model_of_row[rows] == number
        if not of_model.any():
            continue
        model_verdicts = verdicts[of_model]
        scored = model_verdicts != UNSCORED
        prompts = judged.prompts[rows[of_model]][scored]
        flagged = model_verdicts[scored] == YES
        # The specificity of rows that are all benign is the share without an alarm, with its
        # interval over prompts.
        specificity = classification_scores(
            flagged.tolist(), [False] * len(flagged), [None] * len(flagged), prompts.tolist()
        ).specificity
        events, unscored = int(flagged.sum()), int(np.sum(~scored))
        alarms.append(
            ModelAlarms(
                model=model,
                n=len(model_verdicts),
                events=events,
                unscored=unscored,
                rate=_complement(specificity),
                bounds=unscored_bounds(events, len(model_verdicts), unscored),
            )
        )
    return tuple(alarms)


def _most_certain(
    judged: JudgedSet,
    rows: NDArray[np.int64],
    mistaken: NDArray[np.bool_],
    order: NDArray[np.float64],
) -> tuple[str, ...]:
    """Returns the ids of the mistakes that the judge was most certain of, by ascending `order`."""
    import numpy as np

    chosen = rows[mistaken]
    if not len(chosen):
        return ()
    # NaN sorts last: mistakes without a probability come after those with one.
    order_of_chosen = np.argsort(order[mistaken], kind="stable")[:MAX_LISTED_IDS]
    first = [int(row) for row in chosen[order_of_chosen]]
    names = judged.row_names(first)
    return tuple(names[row] for row in first)
