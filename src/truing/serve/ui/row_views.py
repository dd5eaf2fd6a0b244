"""The rows of a page as the templates show them: texts, outcomes, verdicts and reasons."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from truing.analysis.agent_answers import outcome_of_answer
from truing.analysis.verdict_table import INAPPLICABLE_KINDS
from truing.core.flagged_categories import flag_categories
from truing.core.types import Judgement, Response, Sample
from truing.report.transcripts import TranscriptView, build_transcript
from truing.serve.ui.row_reader import RowRecords
from truing.serve.ui.side_by_side import OpenRun

PREVIEW_CHARACTERS = 900
MAX_SHOWN_CHARACTERS = 400_000
_TOO_LONG = "(This line of the run's file is too long to be shown here.)"
_VERDICTS = {True: "yes", False: "no", None: "unscored"}
_MAX_CATEGORIES = 12


class TextView(Struct, frozen=True):
    """A text of a page; `left_out` counts the characters that are not shown."""

    role: str
    text: str
    left_out: int = 0


class JudgementView(Struct, frozen=True, kw_only=True):
    """The opinion of one judge."""

    judge: str
    question: str
    verdict: str
    score: float | None
    value: float | None
    reason: str
    categories: tuple[str, ...]
    struck: str


class AnswerView(Struct, frozen=True, kw_only=True):
    """The answer of one run; `flipped` where its outcome is not that of the first run.

    `transcript` is what an agent said, called and was told; None without an episode.
    `agent_outcome` is what became of an agent's task; empty for all other answers.
    """

    run: OpenRun
    text: TextView
    transcript: TranscriptView | None
    outcome: str
    agent_outcome: str
    finish_reason: str
    failure: str
    judgements: tuple[JudgementView, ...]
    flipped: bool


class RowView(Struct, frozen=True, kw_only=True):
    """One row: the prompt, and the answers of all runs that have one."""

    number: int
    sample_id: str
    index: int
    messages: tuple[TextView, ...]
    n_messages: int
    categories: tuple[str, ...]
    expect: str
    answers: tuple[AnswerView, ...]


def view_rows(runs: Sequence[OpenRun], rows: Sequence[int], *, whole: bool) -> list[RowView]:
    """Returns the views of some rows of the first run, with texts cut unless `whole`.

    Raises RunChanged if the files of a run are no longer those that were indexed.
    """
    limit = MAX_SHOWN_CHARACTERS if whole else PREVIEW_CHARACTERS
    records: list[dict[int, RowRecords]] = []
    for run in runs:
        present = [row for row in rows if run.rows[row] >= 0]
        numbers = [int(run.rows[row]) for row in present]
        records.append(dict(zip(present, run.index.read_rows(numbers))))
    return [_view_row(runs, row, [of_run.get(row) for of_run in records], limit) for row in rows]


def _view_row(
    runs: Sequence[OpenRun], row: int, records: Sequence[RowRecords | None], limit: int
) -> RowView:
    index = runs[0].index
    sample = next((r.sample for r in records if r is not None and r.sample is not None), None)
    answers = tuple(
        _view_answer(run, row, of_run, limit, index.outcome_name(row))
        for run, of_run in zip(runs, records)
        if of_run is not None
    )
    messages = _view_messages(sample, limit)
    return RowView(
        number=row,
        sample_id=sample.id if sample is not None else "",
        index=int(index.answer[row]),
        # A list shows what was asked last; the page of the row shows the whole conversation.
        messages=messages if limit == MAX_SHOWN_CHARACTERS else messages[-1:],
        n_messages=len(messages),
        categories=index.categories(row),
        expect=index.expect_name(row),
        answers=answers,
    )


def _view_messages(sample: Sample | None, limit: int) -> tuple[TextView, ...]:
    if sample is None:
        return (TextView("user", _TOO_LONG),)
    return tuple(_cut(m.role, m.content, limit) for m in sample.conversation.messages)


def _cut(role: str, text: str, limit: int) -> TextView:
    return TextView(role, text[:limit], max(0, len(text) - limit))


def _view_answer(
    run: OpenRun, row: int, records: RowRecords, limit: int, first_outcome: str
) -> AnswerView:
    outcome = run.index.outcome_name(int(run.rows[row]))
    response = records.response
    return AnswerView(
        run=run,
        text=_view_response(response, limit),
        transcript=_view_transcript(records, limit) if limit == MAX_SHOWN_CHARACTERS else None,
        outcome=outcome,
        agent_outcome=_find_agent_outcome(run, records),
        finish_reason=response.finish_reason if response is not None else "",
        failure=_describe_failure(response),
        judgements=tuple(_view_judgement(run, j, limit) for j in records.judgements),
        flipped=outcome != first_outcome,
    )


def _view_response(response: Response | None, limit: int) -> TextView:
    if response is None:
        return TextView("assistant", _TOO_LONG)
    calls = "".join(
        f"\n[{call.name}({call.arguments})]" for call in response.message.tool_calls or ()
    )
    return _cut("assistant", response.text + calls, limit)


def _find_agent_outcome(run: OpenRun, records: RowRecords) -> str:
    if records.sample is None or records.response is None:
        return ""
    struck = {(judge.name, judge.question): bool(judge.struck) for judge in run.index.meta.judges}
    # As in the figures: a judge that is neither struck nor a person goes first.
    judgements = sorted(
        records.judgements,
        key=lambda j: j.rater is not None or struck.get((j.judge, j.question), False),
    )
    return outcome_of_answer(records.sample, records.response, judgements) or ""


def _view_transcript(records: RowRecords, limit: int) -> TranscriptView | None:
    if records.response is None:
        return None
    return build_transcript(records.sample, records.response, records.judgements, limit)


def _describe_failure(response: Response | None) -> str:
    if response is None or response.failure is None:
        return ""
    return f"{response.failure.kind}: {response.failure.message}"[:300]


def _view_judgement(run: OpenRun, judgement: Judgement, limit: int) -> JudgementView:
    failure = judgement.failure
    verdict = _VERDICTS[judgement.verdict]
    if judgement.verdict is None and judgement.value is not None:
        verdict = ""
    if failure is not None and failure.kind in INAPPLICABLE_KINDS:
        verdict = "not asked"
    reason = judgement.rationale or ""
    if failure is not None:
        reason = f"{failure.kind}: {failure.message}" + (f"\n{reason}" if reason else "")
    key = (judgement.judge, judgement.question)
    indexed = next((j for j in run.index.meta.judges if (j.name, j.question) == key), None)
    thresholds = indexed.thresholds if indexed is not None else {}
    categories = flag_categories(judgement.harms, thresholds) if judgement.verdict else ()
    return JudgementView(
        judge=judgement.judge + (f" ({judgement.rater})" if judgement.rater else ""),
        question=judgement.question,
        verdict=verdict,
        score=judgement.score,
        value=judgement.value,
        reason=reason[:limit],
        categories=tuple(categories)[:_MAX_CATEGORIES],
        struck=indexed.struck if indexed is not None else "",
    )
