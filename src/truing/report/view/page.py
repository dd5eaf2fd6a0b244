"""The viewer: one page with every answer of some runs, its outcome, the judges' verdicts, and
filters.

The rows are plain data in the page, put into it by a script that writes text, never markup. Prompts
and answers are in it only `with_text`, or where all data is built in, and are blurred until a
click.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import jinja2
from msgspec import Struct, field

from truing.analysis.outcomes import outcome_codes, outcome_name
from truing.analysis.rates import verdict_codes
from truing.analysis.verdict_table import (
    ABSENT,
    EXPECTS,
    NO,
    SKIPPED,
    YES,
    VerdictColumn,
    VerdictTable,
    read_verdict_table,
)
from truing.core.errors import RunError
from truing.core.version import __version__
from truing.judges.transcript import text_or_transcript
from truing.report.formatting import category_name
from truing.report.limits import MAX_VIEW_ROWS
from truing.report.script_data import encode_for_script
from truing.runs.folder import Run

MAX_TEXT_CHARACTERS = 6_000  # characters of each text in the page; the rest is in the run folder
_VERDICT = {YES: 1, NO: 0}

Key = tuple[str, int]


class RunView(Struct, kw_only=True):
    """A run's name, model and judges: (name, question, why struck)."""

    name: str
    model: str
    data: str
    judges: list[tuple[str, str, str]]


class AnswerRow(Struct, kw_only=True, omit_defaults=True):
    """One answer. By run: `o` the outcome, `v` each judge's verdict (1, 0, null = unscored,
    absent), `s` its score.

    `d` is how much judges of one question disagree (0 to 1), `f` whether a run's outcome is another
    than the first's.
    """

    i: str
    x: int = 0
    c: list[int] = field(default_factory=list)
    e: str = "none"
    o: list[str | None] = field(default_factory=list)
    v: list[dict[int, int | None]] = field(default_factory=list)
    s: list[dict[int, float]] = field(default_factory=list)
    d: float = 0.0
    f: bool = False
    u: bool = False
    p: list[tuple[str, str]] = field(default_factory=list)
    t: list[str | None] = field(default_factory=list)


class ViewPage(Struct, kw_only=True):
    """Everything that the page shows; `left` counts the rows that did not fit."""

    runs: list[RunView]
    categories: list[str]
    rows: list[AnswerRow]
    left: int = 0
    text: bool = False


def _judge_views(columns: VerdictTable) -> list[tuple[str, str, str]]:
    return [
        (c.record.name, question, columns.struck_reason(c.record) or "")
        for (_, question), c in columns.columns.items()
    ]


def _disagreement(verdicts: Sequence[tuple[str, int | None, float | None]]) -> float:
    """Returns the largest disagreement of two judges of one question, 0 to 1; verdict against
    unscored is 0.5.
    """
    worst = 0.0
    for (q, a, _), (r, b, _) in combinations(verdicts, 2):
        if q == r:
            worst = max(
                worst,
                0.5
                if (a is None) != (b is None)
                else float(a is not None and b is not None and a != b),
            )
    for _, _, score in verdicts:
        if score is not None:  # a judge that is unsure disagrees with itself
            worst = max(worst, 0.4 * (1 - abs(2 * min(1.0, max(0.0, score)) - 1)))
    return round(worst, 3)


def _read_answers(
    columns: VerdictTable,
) -> Iterator[tuple[Key, int, str, dict[int, int | None], dict[int, float]]]:
    """Yields (key, position, outcome, verdicts by judge, scores by judge) for each answer of
    a run.
    """
    ids = columns.ids or []
    columns_with_codes: list[tuple[VerdictColumn, list[bytes]]] = [
        (c, verdict_codes(columns, c)) for c in columns.columns.values()
    ]
    for index, layers in enumerate(outcome_codes(columns)):
        for position, (state, *codes) in enumerate(zip(*layers)):
            if state == ABSENT:
                continue
            verdicts: dict[int, int | None] = {}
            scores: dict[int, float] = {}
            for number, (column, marks) in enumerate(columns_with_codes):
                code = marks[index][position] if index < len(marks) else ABSENT
                if code not in (ABSENT, SKIPPED):
                    verdicts[number] = _VERDICT.get(code)
                score = column.scores.get((position, index))
                if score is not None:
                    scores[number] = round(score, 4)
            yield (ids[position], index), position, outcome_name(state, *codes), verdicts, scores


def _merge_rows(read: Sequence[VerdictTable], categories: dict[str, int]) -> dict[Key, AnswerRow]:
    rows: dict[Key, AnswerRow] = {}
    run_count = len(read)
    for run, columns in enumerate(read):
        questions = [q for _, q in columns.columns]
        for key, position, outcome, verdicts, scores in _read_answers(columns):
            row = rows.get(key)
            if row is None:
                harms = [
                    categories.setdefault(c, len(categories)) for c in columns.categories(position)
                ]
                row = rows[key] = AnswerRow(
                    i=key[0],
                    x=key[1],
                    c=harms,
                    e=EXPECTS[columns.expect_ids[position]],
                    o=[None] * run_count,
                    v=[{} for _ in read],
                    s=[{} for _ in read],
                )
            row.o[run], row.v[run], row.s[run] = outcome, verdicts, scores
            verdict_rows = [(questions[k], v, scores.get(k)) for k, v in verdicts.items()]
            row.d = max(row.d, _disagreement(verdict_rows))
            row.u = row.u or outcome == "unscored" or None in verdicts.values()
    for row in rows.values():
        outcomes = [w for w in row.o if w is not None]
        row.f = len(set(outcomes)) > 1
    return rows


def _add_texts(runs: Sequence[Run], rows: Sequence[AnswerRow]) -> None:
    by_key = {(r.i, r.x): r for r in rows}
    ids = {r.i for r in rows}
    for number, run in enumerate(runs):
        for sample in run.samples():
            if sample.id in ids:
                for row in (by_key[k] for k in _keys_of_sample(by_key, sample.id)):
                    row.p = row.p or [
                        (m.role, m.content[:MAX_TEXT_CHARACTERS])
                        for m in sample.conversation.messages
                    ]
        for response in run.responses():
            answered = by_key.get((response.sample_id, response.index))
            if answered is not None:
                answered.t = answered.t or [None] * len(runs)
                answered.t[number] = text_or_transcript(response)[:MAX_TEXT_CHARACTERS]


def _keys_of_sample(by_key: dict[Key, AnswerRow], sample_id: str) -> Iterator[Key]:
    index = 0
    while (sample_id, index) in by_key:
        yield (sample_id, index)
        index += 1


def _only_builtin_data(runs: Sequence[Run]) -> bool:
    """Whether all data is built in, and so may be shown; of a run that names no data it is not
    known.
    """
    sets = [run.manifest.data for run in runs]
    return all(sets) and all(
        d.spec.split(",", 1)[0].startswith("builtin:") for of in sets for d in of
    )


def collect_page(
    runs: Sequence[Path],
    *,
    with_text: bool = False,
    most: int = MAX_VIEW_ROWS,
    names: Sequence[str] | None = None,
) -> ViewPage:
    """Returns the answers of some runs, at most `most`: flips, unscored and disagreements are kept
    first.

    Raises RunError if there is no run, or none holds an answer.
    """
    if not runs:
        raise RunError("view needs a run folder")
    opened = [Run(path) for path in runs]
    read = [read_verdict_table(run, ids=True, scores=True) for run in opened]
    categories: dict[str, int] = {}
    rows = list(_merge_rows(read, categories).values())
    if not rows:
        raise RunError(f"{', '.join(str(p) for p in runs)}: no answers yet")
    left = max(0, len(rows) - most)
    if left:
        keep = sorted(
            # False sorts first: flips, then unscored rows, then by disagreement.
            range(len(rows)),
            key=lambda k: (not rows[k].f, not rows[k].u, -rows[k].d, k),
        )[:most]
        rows = [rows[k] for k in sorted(keep)]
    with_texts = with_text or _only_builtin_data(opened)
    if with_texts:
        _add_texts(opened, rows)
    run_views = [
        RunView(
            name=names[k] if names else path.name,
            model=columns.manifest.model,
            data=", ".join(d.spec for d in columns.manifest.data),
            judges=_judge_views(columns),
        )
        for k, (path, columns) in enumerate(zip(runs, read))
    ]
    taxonomy = read[0].manifest.taxonomy
    return ViewPage(
        runs=run_views,
        categories=[category_name(c, taxonomy) for c in categories],
        rows=rows,
        left=left,
        text=with_texts,
    )


def render_page(page: ViewPage) -> str:
    """Returns the page as one HTML file without links, fonts or scripts from elsewhere."""
    root = files("truing") / "report" / "view"
    template = jinja2.Environment(autoescape=True).from_string(
        (root / "page.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        title=" / ".join(r.name for r in page.runs),
        data=encode_for_script(page),
        version=__version__,
        text=page.text,
        css=(root / "view.css").read_text(encoding="utf-8"),
        js=(root / "view.js").read_text(encoding="utf-8"),
    )
