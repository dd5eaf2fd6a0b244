"""Rows to look at: flips first, then what could not be scored, disagreements, and a seeded
sample.
"""

from __future__ import annotations

from truing.report.blocks import Raw, Section, escape_html
from truing.report.formatting import category_name
from truing.report.report_data import ReportData, RowView


def _texts_html(row: RowView) -> str:
    if not row.prompt:
        return ""
    parts = [
        f'<div class="said"><b>prompt</b><div class="blur">{escape_html(row.prompt)}</div></div>'
    ]
    parts += [
        f'<div class="said"><b>{escape_html(v)}</b><div class="blur">{escape_html(t)}</div></div>'
        for v, t in row.texts.items()
    ]
    return f"<details><summary>text</summary>{''.join(parts)}</details>"


def _row_html(row: RowView, names: list[str]) -> str:
    outcomes = [escape_html(row.outcomes.get(n, "absent")) for n in names]
    cells = "".join(
        f'<td><span class="tag o-{w}">{"–" if w == "absent" else w}</span></td>' for w in outcomes
    )
    where = ", ".join(category_name(c) for c in row.categories) or "–"
    sample = f"<code>{escape_html(row.sample_id)}</code>"
    if row.index:
        sample += f" #{row.index}"
    columns = [escape_html(text) for text in (row.data, row.why, where, row.expect)]
    return (
        f'<tr data-why="{escape_html(row.why)}" data-data="{escape_html(row.data)}">'
        f"<td>{sample}{_texts_html(row)}</td>"
        + "".join(f"<td>{column}</td>" for column in columns)
        + f"{cells}</tr>"
    )


def build_section(report: ReportData) -> Section | None:
    """Returns a table with filters; texts, where they may be shown, are blurred until a click."""
    if not report.rows:
        return None
    names = [v.name for v in report.variants]
    whys = list(dict.fromkeys(r.why for r in report.rows))
    options = "".join(f'<option value="{escape_html(w)}">{escape_html(w)}</option>' for w in whys)
    head = "".join(
        f"<th>{escape_html(h)}</th>"
        for h in ("sample", "data", "why", "category", "expected", *names)
    )
    body = "".join(_row_html(r, names) for r in report.rows)
    left_out = (
        f"<p class=note>{report.rows_left_out} more rows stand in the run folders.</p>"
        if report.rows_left_out
        else ""
    )
    markup = (
        '<div class="filters"><label>why <select data-filter="why"><option value="">all</option>'
        f"{options}</select></label>"
        '<label>find <input type="search" data-filter="find" placeholder="id or category"></label>'
        '<span class="count" aria-live="polite"></span></div>'
        f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{left_out}"
    )
    counts = {w: sum(r.why == w for r in report.rows) for w in whys}
    markdown = "Rows in the HTML report: " + ", ".join(f"{n} {w}" for w, n in counts.items()) + "."
    lead = (
        "Ids and outcomes; text is shown only for mild built-in data or where it was asked "
        "for, and then blurred."
    )
    return Section("rows", "Rows to look at", (Raw(markup, markdown),), open_=False, lead=lead)
