"""A gate's verdict as Markdown, for a comment on a pull request."""

from __future__ import annotations

import html
import re

from truing.gates.verdict import GateVerdict, RuleOutcome, Status

COMMENT_MARK = "<!-- truing gate -->"
"""The first line of each comment, by which the next one finds it and takes its place."""

_SIGNS: dict[Status, str] = {"passed": "✅", "failed": "❌", "inconclusive": "❔"}
# Characters that would make markup, a mention or a reference out of a name or a reason.
_MARKUP = re.compile(r"[\\`*_{}\[\]()#|~@!]")
_MAX_RULES = 200
"""Rules that a comment lists; code hosts refuse comments of more than 65,536 characters."""


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
        *map(_row, verdict.outcomes[:_MAX_RULES]),
    ]
    hidden = len(verdict.outcomes) - _MAX_RULES
    if hidden > 0:
        lines.append(f"| | {hidden} more rules | | |")
    lines += ["", *(f"Note: {_plain(note)}." for note in verdict.notes)]
    if verdict.not_tested:
        lines += ["", f"Not tested: {'; '.join(map(_plain, verdict.not_tested))}."]
    lines += ["", "No verdict means that the model is safe: only that these rules hold, or do not."]
    return ("\n".join(lines) + "\n").encode()


def _row(outcome: RuleOutcome) -> str:
    figure = ""
    if outcome.lower is not None and outcome.upper is not None:
        estimate = "" if outcome.estimate is None else f"{outcome.estimate:.1%} "
        figure = f"{estimate}[{outcome.lower:.1%}, {outcome.upper:.1%}] of {outcome.n}"
    cells = (outcome.name or outcome.rule, figure, outcome.reason)
    status = f"{_SIGNS[outcome.status]} {outcome.status}"
    return f"| {status} | {' | '.join(_plain(cell)[:2000] for cell in cells)} |"


def _plain(text: str) -> str:
    """Returns text as Markdown that shows it on one line and does nothing else."""
    one_line = " ".join(text.split())
    return _MARKUP.sub(r"\\\g<0>", html.escape(one_line, quote=False))
