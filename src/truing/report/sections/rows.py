"""Rows to look at: flips first, then what could not be scored, disagreements, and a seeded
sample.

The rows are plain data in the page; a script writes those that are asked for, as text and never as
markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from truing.report.blocks import Raw, Section, escape_html
from truing.report.formatting import category_name
from truing.report.report_data import ReportData
from truing.report.script_data import encode_for_script

TEXT_BUDGET = 450_000
"""Bytes of prompts and answers as a page holds them: with them it stays below one megabyte."""


class RowData(Struct, array_like=True, frozen=True):
    """One row: id, index of the answer, indices into the lists of `RowsData`, texts by variant.

    `outcomes` are indices into `RowsData.outcomes` by variant, -1 if there is no answer.
    """

    sample_id: str
    index: int
    data: int
    why: int
    expect: int
    categories: tuple[int, ...]
    outcomes: tuple[int, ...]
    prompt: str = ""
    texts: tuple[str | None, ...] = ()


class RowsData(Struct, frozen=True):
    """All rows of the page, and the words that they refer to.

    `readable` says for each data set whether its prompts stand unblurred.
    """

    variants: list[str]
    data: list[str]
    readable: list[bool]
    whys: list[str]
    expects: list[str]
    categories: list[str]
    outcomes: list[str]
    rows: list[RowData]
    texts_left_out: int = 0


class _Words:
    """Distinct words in the order in which they appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, word: str) -> int:
        """Returns the index of a word."""
        return self._numbers.setdefault(word, len(self._numbers))

    def words(self) -> list[str]:
        """Returns all words by their index."""
        return list(self._numbers)


def collect_rows(report: ReportData) -> RowsData:
    """Returns the rows for the page's script, with texts as far as `TEXT_BUDGET` reaches."""
    names = [v.name for v in report.variants]
    data_names, reasons, expects, categories, outcomes = (_Words() for _ in range(5))
    rows: list[RowData] = []
    budget, left_out = TEXT_BUDGET, 0
    for row in report.rows:
        texts = tuple(row.texts.get(name) for name in names) if row.texts else ()
        if row.prompt or texts:  # as long as they are in the page, escapes included
            budget -= len(encode_for_script([row.prompt, *texts]).encode())
        fits = budget >= 0
        left_out += bool(row.prompt) and not fits
        rows.append(
            RowData(
                sample_id=row.sample_id,
                index=row.index,
                data=data_names.number(row.data),
                why=reasons.number(row.why),
                expect=expects.number(row.expect),
                categories=tuple(categories.number(category_name(c)) for c in row.categories),
                outcomes=tuple(
                    outcomes.number(row.outcomes[name]) if name in row.outcomes else -1
                    for name in names
                ),
                prompt=row.prompt if fits else "",
                texts=texts if fits else (),
            )
        )
    return RowsData(
        variants=names,
        data=data_names.words(),
        readable=[has_mild_prompts(report, name) for name in data_names.words()],
        whys=reasons.words(),
        expects=expects.words(),
        categories=categories.words(),
        outcomes=outcomes.words(),
        rows=rows,
        texts_left_out=left_out,
    )


def has_mild_prompts(report: ReportData, data: str) -> bool:
    """Returns whether the prompts of a data set are built in and as they were written.

    Those are mild. What an attack made of them, or a person brought, may not be.
    """
    manifests = [v.manifests[data] for v in report.variants if data in v.manifests]
    return bool(manifests) and all(
        bool(m.data)
        and all(d.spec.split(",", 1)[0].startswith("builtin:") for d in m.data)
        and not m.plan.get("attack")
        for m in manifests
    )


def _options(words: Sequence[str]) -> str:
    return '<option value="">all</option>' + "".join(
        f'<option value="{number}">{escape_html(word)}</option>'
        for number, word in enumerate(words)
    )


def build_section(report: ReportData) -> Section | None:
    """Returns a list with filters; answers, where they may be shown, are blurred until a click."""
    if not report.rows:
        return None
    rows = collect_rows(report)
    left_out = ""
    if report.rows_left_out:
        left_out = f"<p class=note>{report.rows_left_out} more rows stand in the run folders.</p>"
    if rows.texts_left_out:
        left_out += (
            f"<p class=note>The texts of {rows.texts_left_out} rows did not fit into the page; "
            "truing view shows them.</p>"
        )
    markup = (
        '<div class="filters">'
        f'<label>why <select id="row-why">{_options(rows.whys)}</select></label>'
        f'<label>outcome <select id="row-outcome">{_options(rows.outcomes)}</select></label>'
        '<label>find <input type="search" id="row-find" placeholder="id, category or text"></label>'
        '<span class="count" role="status"></span></div>'
        '<ol id="row-list" class="rows"></ol><button type="button" id="more-rows" hidden>50 more'
        f"</button>{left_out}<noscript><p>The rows need a script; their ids are in report.json."
        '</p></noscript><script type="application/json" id="rows-data">'
        f"{encode_for_script(rows)}</script>"
        f'<p class="print-only">{len(report.rows):,} rows to look at are in the HTML report.</p>'
    )
    counts = {w: sum(r.why == w for r in report.rows) for w in rows.whys}
    markdown = "Rows in the HTML report: " + ", ".join(f"{n} {w}" for w, n in counts.items()) + "."
    lead = (
        "Ids and outcomes; text is shown only for mild built-in data or where it was asked "
        "for, and answers are blurred then."
    )
    return Section("rows", "Rows to look at", (Raw(markup, markdown),), open_=False, lead=lead)
