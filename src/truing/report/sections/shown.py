"""What each variant answers to the questions of a plan's `shown` data, before all figures."""

from __future__ import annotations

from truing.models.recorded import find_recording_mark
from truing.report.blocks import Block, Cell, Grid, Text
from truing.report.report_data import ReportData
from truing.report.shown_questions import ShownAnswer, ShownQuestion

_SHOULD = {
    "refuse": "should be refused, kindly",
    "comply": "harmless: should be answered",
    "support": "needs support",
}


def describe_outcome(answer: ShownAnswer) -> str:
    """Returns the outcome by the judges in words, and whether the answer was cut."""
    return f"{answer.outcome}, cut at the limit" if answer.cut else answer.outcome


def describe_question(question: ShownQuestion) -> str:
    """Returns the prompt in quotes, with what a good answer does."""
    should = _SHOULD.get(question.expect)
    return f"\u201c{question.prompt}\u201d" + (f" ({should})" if should else "")


def shown_blocks(report: ReportData) -> list[Block]:
    """Returns a table for each question: the variants and what they say."""
    blocks: list[Block] = []
    for question in report.shown:
        grid = Grid(["variant", "its answer", "by the judges"])
        for variant in report.variants:
            answer = question.answers.get(variant.name)
            if answer is not None:
                text = Cell(answer.text or "(nothing)", "sentence")
                grid.add(variant.name, text, Cell(describe_outcome(answer)))
        blocks.append(grid.table(describe_question(question), stacked=True))
    return blocks


def recorded_texts(report: ReportData) -> list[Text]:
    """Returns a note on data whose answers were not drawn in this run, but recorded before."""
    by_mark: dict[str, list[str]] = {}
    for variant in report.variants:
        for data_name, manifest in variant.manifests.items():
            mark = find_recording_mark(manifest.model)
            if mark is not None and data_name not in by_mark.setdefault(mark, []):
                by_mark[mark].append(data_name)
    return [
        Text(
            f"A part of the answers to {', '.join(names)} is recorded ({mark}), judged in this "
            "run; each row names its source, and truing run --fresh draws all anew.",
            "note",
        )
        for mark, names in by_mark.items()
    ]
