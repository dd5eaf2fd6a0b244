"""Reads answers with their labels, question by question, for training probes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping

from msgspec import Struct, field

from truing.core.errors import DataError, did_you_mean
from truing.core.protocols import Dataset
from truing.core.types import Conversation, Judgement, Lineage, Response, Row
from truing.judges.verdicts import text_of_message
from truing.train.frozen_prompts import FROZEN_REASON, TrainableRows
from truing.train.harm_check import check_training_data

RATER_PREFIXES = ("human:", "ai:")
"""What the names of judges begin with that are people, or models that read as people do."""

RaterLabels = Mapping[tuple[str, int], Mapping[str, bool]]
"""Labels that are stored beside a run: (sample, index of the answer) -> question -> label."""


class LabelledAnswer(Struct, frozen=True, kw_only=True):
    """An answer and what is said of it; `is_cut` marks one that a token limit ended."""

    conversation: Conversation
    text: str
    is_cut: bool
    labels: dict[str, bool]


class LabelledAnswers(Struct, frozen=True, kw_only=True):
    """The labelled answers of one data set.

    `dropped` says how many were left out and why, and `by_judges` how many labels of a question
    are verdicts of judges and not of raters. `judges` are the lineages of those judges.
    """

    spec: str
    items: tuple[LabelledAnswer, ...]
    licence: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    by_judges: dict[str, int] = field(default_factory=dict)
    judges: tuple[Lineage, ...] = ()


def read_labelled_answers(
    data: Dataset,
    *,
    by: Collection[str] = (),
    rater_labels: RaterLabels | None = None,
    limit: int | None = None,
    allow_red_team: bool = False,
) -> LabelledAnswers:
    """Reads the answers of a data set that have a label; `limit` keeps the first.

    Labels are those of raters, `human:NAME` and `ai:NAME`: the majority of the newest label of
    each, and none on a tie. `rater_labels` are labels that the data set does not hold itself. Where
    no rater says anything of an answer and question, the verdict of a judge in `by` counts. Rows of
    the frozen measurement set are left out unless `TrainableRows(data, allow=True)` is given.
    Raises PlanError for data that must not train, and DataError if nothing is left or if no
    answer has a verdict of a judge in `by`.
    """
    check_training_data(data.info, allow_red_team=allow_red_team)
    trainable = data if isinstance(data, TrainableRows) else TrainableRows(data)
    dropped: Counter[str] = Counter()
    by_judges: Counter[str] = Counter()
    judges_seen: set[str] = set()
    items: list[LabelledAnswer] = []
    for row, response in _read_answers(trainable):
        if limit is not None and len(items) >= limit:
            break
        text = text_of_message(response.message)
        if response.failure is not None or not text.strip():
            dropped["empty or failed"] += 1
            continue
        of_answer = [j for j in row.judgements if j.index == response.index and j.failure is None]
        judges_seen.update(j.judge for j in of_answer)
        labels = _labels_of_raters(of_answer)
        labels |= (rater_labels or {}).get((row.sample.id, response.index), {})
        for judgement in of_answer:
            if judgement.judge in by and judgement.verdict is not None:
                if judgement.question not in labels:
                    by_judges[judgement.question] += 1
                labels.setdefault(judgement.question, judgement.verdict)
        if not labels:
            dropped["without a label"] += 1
            continue
        items.append(
            LabelledAnswer(
                conversation=row.sample.conversation,
                text=text,
                is_cut=response.finish_reason == "length",
                labels=labels,
            )
        )
    if trainable.n_left_out:
        dropped[FROZEN_REASON] = trainable.n_left_out
    spec = data.info.spec
    for name in by:
        if name not in judges_seen and items:
            raise DataError(f"{spec}: no verdicts of {name!r}{did_you_mean(name, judges_seen)}")
    if not items:
        raise DataError(_explain_nothing_left(spec, dropped, judges_seen))
    trainable.log_frozen_rows()
    return LabelledAnswers(
        spec=spec,
        items=tuple(items),
        licence=data.info.licence,
        dropped=dict(dropped),
        by_judges=dict(by_judges),
        judges=tuple(judge for judge in trainable.judges if judge.name in by),
    )


def _read_answers(data: TrainableRows) -> Iterator[tuple[Row, Response]]:
    return ((row, response) for row in data.rows() for response in row.responses)


def _labels_of_raters(judgements: list[Judgement]) -> dict[str, bool]:
    """Returns what most raters say of one answer, by question; a tie is no label."""
    votes: dict[str, dict[str, bool]] = defaultdict(dict)
    for judgement in judgements:
        if judgement.verdict is not None and judgement.judge.startswith(RATER_PREFIXES):
            # The newest label of a rater takes the place of an older one.
            votes[judgement.question][f"{judgement.judge}/{judgement.rater}"] = judgement.verdict
    labels: dict[str, bool] = {}
    for question, of_raters in votes.items():
        n_true, n = sum(of_raters.values()), len(of_raters)
        if 2 * n_true != n:
            labels[question] = 2 * n_true > n
    return labels


def _explain_nothing_left(spec: str, dropped: Counter[str], judges: Collection[str]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    text = f"{spec}: no labelled answers: {reasons or 'it has no answers'}."
    machines = sorted(name for name in judges if not name.startswith(RATER_PREFIXES))
    if machines:
        return f"{text} --by NAME takes the verdicts of a judge: {', '.join(machines)}"
    return f"{text} `truing label` and `truing ui` add labels to a run"
