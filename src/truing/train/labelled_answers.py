"""Reads answers with their labels, question by question, for training probes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct, field

from truing.core.errors import DataError
from truing.core.lineage import digest
from truing.core.protocols import Dataset
from truing.core.types import Conversation, Judgement, Lineage, Response, Row
from truing.judges.verdicts import text_of_message
from truing.train.frozen_prompts import FROZEN_REASON, TrainableRows
from truing.train.harm_check import check_training_data

RATER_PREFIXES = ("human:", "ai:")
"""What the names of judges begin with that are people, or models that read as people do."""

RaterVotes = Mapping[tuple[str, int], Mapping[str, Sequence[bool | None]]]
"""What people say of a run's answers: (sample, index) -> question -> the newest label of each, None
for one who could not tell."""


class LabelledAnswer(Struct, frozen=True, kw_only=True):
    """An answer and what is said of it; `is_cut` marks one that a token limit ended."""

    conversation: Conversation
    text: str
    is_cut: bool
    labels: dict[str, bool]


class LabelledAnswers(Struct, frozen=True, kw_only=True):
    """The labelled answers of one data set.

    `dropped` says how many were left out and why, and `labels_by_judges` how many labels of a
    question are verdicts of judges and not of raters. `judges` are the lineages of the judges whose
    verdicts were asked for and found, `judge_names` the names of all that have a verdict.
    """

    spec: str
    items: tuple[LabelledAnswer, ...]
    licence: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    labels_by_judges: dict[str, int] = field(default_factory=dict)
    judges: tuple[Lineage, ...] = ()
    judge_names: tuple[str, ...] = ()


def read_labelled_answers(
    data: Dataset,
    *,
    by: Collection[str] = (),
    rater_votes: RaterVotes | None = None,
    limit: int | None = None,
    allow_red_team: bool = False,
) -> LabelledAnswers:
    """Reads the answers of a data set that have a label; `limit` keeps the first.

    Labels are those of raters, `human:NAME` and `ai:NAME`: the majority of the newest label of
    each, and none on a tie. `rater_votes` holds all that people say of the answers of a run, also
    beside it; labels of people in the rows then do not count again. Where no rater says anything of
    an answer and question, the verdict of a judge in `by` counts. Rows of the frozen measurement
    set are left out unless `TrainableRows(data, allow=True)` is given. Raises PlanError for data
    that must not train, and DataError if nothing is left.
    """
    check_training_data(data.info, allow_red_team=allow_red_team)
    trainable = data if isinstance(data, TrainableRows) else TrainableRows(data)
    dropped: Counter[str] = Counter()
    labels_by_judges: Counter[str] = Counter()
    judge_names: set[str] = set()
    items: list[LabelledAnswer] = []
    for row, response in _read_answers(trainable):
        if limit is not None and len(items) >= limit:
            break
        text = text_of_message(response.message)
        if response.failure is not None or not text.strip():
            dropped["empty or failed"] += 1
            continue
        of_answer = [j for j in row.judgements if j.index == response.index and j.failure is None]
        judge_names.update(j.judge for j in of_answer if j.verdict is not None)
        beside = None
        if rater_votes is not None:
            beside = rater_votes.get((row.sample.id, response.index), {})
        votes = _rater_votes(of_answer, beside)
        labels = {
            question: 2 * sum(answers) > len(answers)
            for question, answers in votes.items()
            if 2 * sum(answers) != len(answers)
        }
        for judgement in of_answer:
            question, verdict = judgement.question, judgement.verdict
            # Raters who do not agree have said something too.
            is_open = question not in labels and question not in votes
            if is_open and judgement.judge in by and verdict is not None:
                labels_by_judges[question] += 1
                labels[question] = verdict
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
    if not items:
        raise DataError(_explain_nothing_left(data.info.spec, dropped, judge_names))
    trainable.log_frozen_rows()
    known = {judge.name: judge for judge in trainable.judges}
    return LabelledAnswers(
        spec=data.info.spec,
        items=tuple(items),
        licence=data.info.licence,
        dropped=dict(dropped),
        labels_by_judges=dict(labels_by_judges),
        # A published set names the judge of its labels and no more.
        judges=tuple(known.get(n, Lineage(name=n, hash=digest(n))) for n in by if n in judge_names),
        judge_names=tuple(sorted(judge_names)),
    )


def _read_answers(data: TrainableRows) -> Iterator[tuple[Row, Response]]:
    return ((row, response) for row in data.rows() for response in row.responses)


def _rater_votes(
    judgements: list[Judgement], beside: Mapping[str, Sequence[bool | None]] | None
) -> dict[str, list[bool]]:
    """Returns the newest vote of each rater who could tell, by question.

    `beside` holds the votes of people, those in the judgements among them.
    """
    newest: dict[str, dict[str, bool | None]] = defaultdict(dict)
    for judgement in judgements:
        is_rater = judgement.judge.startswith(RATER_PREFIXES)
        if is_rater and (beside is None or not judgement.judge.startswith("human:")):
            rater = f"{judgement.judge}/{judgement.rater}"
            newest[judgement.question][rater] = judgement.verdict
    votes = {question: list(of_raters.values()) for question, of_raters in newest.items()}
    for question, beside_votes in (beside or {}).items():
        votes.setdefault(question, []).extend(beside_votes)
    decided = {
        question: [vote for vote in all_votes if vote is not None]
        for question, all_votes in votes.items()
    }
    return {question: verdicts for question, verdicts in decided.items() if verdicts}


def _explain_nothing_left(spec: str, dropped: Counter[str], judges: Collection[str]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    text = f"{spec}: no labelled answers: {reasons or 'it has no answers'}."
    machines = sorted(name for name in judges if not name.startswith(RATER_PREFIXES))
    if machines:
        return f"{text} --by NAME takes the verdicts of a judge: {', '.join(machines)}"
    return f"{text} `truing label` and `truing ui` add labels to a run"
