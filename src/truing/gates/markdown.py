"""A gate's verdict as Markdown, for a comment on a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from truing.gates.verdict import GateVerdict, RuleOutcome, Status

COMMENT_MARK = "<!-- truing gate -->"
"""The first line of each comment, by which the next one finds it and takes its place."""

_SIGNS: dict[Status, str] = {"passed": "✅", "failed": "❌", "inconclusive": "❔"}
# Characters that would make markup of a name or a reason.
_MARKUP = re.compile(r"[\\`*_{}\[\]()#|~@!]")
# Beginnings of what code hosts turn into links and mentions after Markdown is done.
_LINKED = re.compile(r"@|#(?=\d)|:(?=//)|www(?=\.)")
_MAX_TEXT = 300
"""Characters of a name or a reason that a comment shows."""
_MAX_ROWS_TEXT = 50_000
"""Characters of all rows; code hosts refuse comments of more than 65,536."""
_MAX_NOTES = 10


def to_markdown(verdict: GateVerdict) -> bytes:
    """Returns the comment: the verdict, a row for each rule, and what was not tested."""
    lines = [
        COMMENT_MARK,
        f"### {_SIGNS[verdict.verdict]} {_plain(verdict.title)}: {verdict.verdict}",
        "",
        f"Model {_plain(verdict.model)}, run {_plain(verdict.run)}.",
        "",
        "| | rule | figure | why |",
        "|---|---|---|---|",
        *_rows(verdict.outcomes),
        "",
        *(f"Note: {_plain(note)}." for note in verdict.notes[:_MAX_NOTES]),
    ]
    if verdict.not_tested:
        notes_text = "; ".join(map(_plain, verdict.not_tested[:_MAX_NOTES]))
        n_hidden = len(verdict.not_tested) - _MAX_NOTES
        lines += [
            "",
            f"Not tested: {notes_text}{f'; and {n_hidden} more' if n_hidden > 0 else ''}.",
        ]
    lines += ["", "No verdict means that the model is safe: only that these rules hold, or do not."]
    return ("\n".join(lines) + "\n").encode()


def _rows(outcomes: Sequence[RuleOutcome]) -> list[str]:
    """Returns a row for each rule, as many as a comment can hold, and how many are left out."""
    rows: list[str] = []
    size = 0
    for index, outcome in enumerate(outcomes):
        row = _row(outcome)
        size += len(row)
        if size > _MAX_ROWS_TEXT:
            return [*rows, f"| | {len(outcomes) - index} more rules | | |"]
        rows.append(row)
    return rows


def _row(outcome: RuleOutcome) -> str:
    figure = ""
    if outcome.lower is not None and outcome.upper is not None:
        estimate = "" if outcome.estimate is None else f"{outcome.estimate:.1%} "
        figure = f"{estimate}[{outcome.lower:.1%}, {outcome.upper:.1%}] of {outcome.n}"
    cells = (outcome.name or outcome.rule, figure, outcome.reason)
    status = f"{_SIGNS[outcome.status]} {outcome.status}"
    return f"| {status} | {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Returns text as Markdown that shows its beginning on one line and does nothing else."""
    one_line = " ".join(text.split())
    if len(one_line) > _MAX_TEXT:
        one_line = f"{one_line[:_MAX_TEXT]}…"
    unlinked = _LINKED.sub("\\g<0>\u200b", one_line)
    return _MARKUP.sub(r"\\\g<0>", html.escape(unlinked, quote=False))
