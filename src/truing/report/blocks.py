"""The blocks of a report (text, tables, figures, cards) and their rendering as HTML and
Markdown.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from msgspec import Struct, field


class Cell(Struct, frozen=True):
    """One cell of a table; `title` is shown on hover, `note` in small type below the text.

    `kind` is ``""``, good, bad, quiet, struck, sentence (long text), or for the word of a decision
    yes, no or open. `why` is the reason for which a cell is struck: the table states it below,
    with a number that stands in the cell.
    """

    text: str
    kind: str = ""
    title: str = ""
    sort: float | None = None
    note: str = ""
    why: str = ""


class Text(Struct, frozen=True, tag="text"):
    """A paragraph; `kind` is ``""``, note or warning."""

    text: str
    kind: str = ""


class Table(Struct, frozen=True, tag="table"):
    """Columns and rows; the `right` columns are right-aligned. A `folded` table opens on a
    click. Each row of a `stacked` table becomes a card on a phone.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    right: frozenset[int] = frozenset()
    folded: bool = False
    stacked: bool = False


class Figure(Struct, frozen=True, tag="figure"):
    """An inline SVG; `alt` describes it in words and is its Markdown form, `note` says what a
    reader must know of its marks.
    """

    svg: str
    caption: str
    alt: str
    note: str = ""


class AnswerCard(Struct, frozen=True):
    """A question with its answer: `kind` is yes, no or open, `word` says the same.

    `lines` are (label, text) below the figure.
    """

    title: str
    kind: str
    word: str
    figure: str = ""
    is_struck: bool = False
    lines: tuple[tuple[str, str], ...] = ()


class AnswerCards(Struct, frozen=True, tag="cards"):
    """Questions with their answers, side by side."""

    cards: tuple[AnswerCard, ...]


class Raw(Struct, frozen=True, tag="raw"):
    """HTML that is already escaped, with its Markdown form."""

    html: str
    markdown: str = ""


Block = Text | Table | Figure | AnswerCards | Raw


class Section(Struct, frozen=True):
    """A heading with its blocks; with `open_` false it is folded in HTML."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    open_: bool = True
    lead: str = ""


class Grid(Struct):
    """Builds a table row by row."""

    columns: Sequence[str]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def add(self, *cells: Cell | str) -> None:
        """Appends a row; a string becomes a plain cell."""
        self.rows.append(tuple(c if isinstance(c, Cell) else Cell(c) for c in cells))

    def table(
        self,
        caption: str = "",
        right: Sequence[int] = (),
        *,
        folded: bool = False,
        stacked: bool = False,
    ) -> Table:
        """Returns the table."""
        rows, columns = tuple(self.rows), tuple(self.columns)
        return Table(columns, rows, caption, frozenset(right), folded, stacked)


def escape_html(text: str) -> str:
    """Returns HTML-escaped text, quotes included; control characters, which HTML forbids, become a
    box.
    """
    # html.escape() leaves control characters, which model output does contain, as they are.
    clean = "".join(c if c in "\n\t" or c >= " " else "\u25a1" for c in text)
    return html.escape(clean.replace("\x7f", "\u25a1"), quote=True)


# A shape for each decision, so that nothing depends on colour: a tick in a circle, a cross in an
# octagon, an open ring.
_SHAPES = {
    "yes": '<circle cx="8" cy="8" r="7"/><path d="M4.6 8.3l2.4 2.4 4.4-5"/>',
    "no": '<path class="area" d="M5.2 1h5.6L15 5.2v5.6L10.8 15H5.2L1 10.8V5.2z"/>'
    '<path d="M5.5 5.5l5 5m0-5l-5 5"/>',
    "open": '<circle cx="8" cy="8" r="6.2" stroke-dasharray="2.6 1.9"/>',
}


def badge_html(kind: str, word: str) -> str:
    """Returns the word of a decision with its shape."""
    shape = f'<svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">{_SHAPES[kind]}</svg>'
    return f'<span class="badge {kind}">{shape}{escape_html(word)}</span>'


def block_html(block: Block) -> str:
    """Returns a block as HTML."""
    if isinstance(block, Text):
        kind = f' class="{block.kind}"' if block.kind else ""
        return f"<p{kind}>{escape_html(block.text)}</p>"
    if isinstance(block, Figure):
        note = f'<p class="note">{escape_html(block.note)}</p>' if block.note else ""
        caption = f"<figcaption>{escape_html(block.caption)}</figcaption>"
        # On a phone a wide chart scrolls, which the keyboard has to reach.
        name = escape_html(block.caption)
        plot = f'<div class="plot" tabindex="0" role="group" aria-label="{name}">'
        return f"<figure>{caption}{plot}{block.svg}</div>{note}</figure>"
    if isinstance(block, AnswerCards):
        return f'<div class="cards">{"".join(map(_card_html, block.cards))}</div>'
    if isinstance(block, Raw):
        return block.html
    return _table_html(block)


def _card_html(card: AnswerCard) -> str:
    tag = "s" if card.is_struck else "p"
    figure = f'<{tag} class="figure">{escape_html(card.figure)}</{tag}>' if card.figure else ""
    lines = "".join(
        f"<p><b>{escape_html(label)}</b> {escape_html(text)}</p>" for label, text in card.lines
    )
    return (
        f'<article class="card {card.kind}"><h3>{escape_html(card.title)}</h3>'
        f"{badge_html(card.kind, card.word.capitalize())}{figure}{lines}</article>"
    )


def _struck_reasons(block: Table) -> list[str]:
    return list(dict.fromkeys(cell.why for row in block.rows for cell in row if cell.why))


def _table_html(block: Table) -> str:
    head = "".join(
        f'<th scope="col"{" class=right" if position in block.right else ""}>{escape_html(c)}</th>'
        for position, c in enumerate(block.columns)
    )
    reasons = _struck_reasons(block)
    rows = [
        f"<tr>{''.join(_cell_html(block, at, cell, reasons) for at, cell in enumerate(row))}</tr>"
        for row in block.rows
    ]
    caption = (
        f"<caption>{escape_html(block.caption)}</caption>"
        if block.caption and not block.folded
        else ""
    )
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    # A region that scrolls has to be reached by the keyboard.
    name = escape_html(block.caption or "table")
    stacked = ' class="stacked"' if block.stacked else ""
    scrolling_table = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}">'
        f"<table{stacked}>{caption}{body}</table></div>"
        + "".join(
            f'<p class="note"><sup>{number}</sup> Struck: {escape_html(reason)}.</p>'
            for number, reason in enumerate(reasons, 1)
        )
    )
    if not block.folded:
        return scrolling_table
    return (
        '<details class="table"><summary>Table: '
        f"{escape_html(block.caption)}</summary>{scrolling_table}</details>"
    )


def _cell_html(block: Table, position: int, cell: Cell, reasons: Sequence[str]) -> str:
    is_decision = cell.kind in _SHAPES
    kinds = " ".join(
        k
        for k in (
            "" if is_decision else cell.kind,
            "right" if position in block.right else "",
        )
        if k
    )
    class_attribute = f' class="{kinds}"' if kinds else ""
    tip = f' title="{escape_html(cell.title)}"' if cell.title else ""
    label = f' data-label="{escape_html(block.columns[position])}"' if block.stacked else ""
    text = badge_html(cell.kind, cell.text) if is_decision else escape_html(cell.text)
    if cell.kind == "struck" and cell.text:
        text = f"<s>{text}</s>"
    if cell.why:
        text += f"<sup>{reasons.index(cell.why) + 1}</sup>"
    if cell.note:
        text += f"<small>{escape_html(cell.note)}</small>"
    if block.stacked and position == 0:
        return f'<th scope="row"{tip}>{text}</th>'
    return f"<td{class_attribute}{tip}{label}>{text}</td>"


def _escape_markdown(text: str) -> str:
    # Backslashes first, or the ones that escape the bars would be doubled; a line break would end
    # the table row.
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def block_markdown(block: Block) -> str:
    """Returns a block as Markdown."""
    if isinstance(block, Text):
        return ("> " if block.kind else "") + _escape_markdown(block.text)
    if isinstance(block, Figure):
        note = f" {_escape_markdown(block.note)}" if block.note else ""
        return f"*{_escape_markdown(block.caption)}* {_escape_markdown(block.alt)}{note}"
    if isinstance(block, AnswerCards):
        return "\n\n".join(map(_card_markdown, block.cards))
    if isinstance(block, Raw):
        return block.markdown
    return _table_markdown(block)


def _card_markdown(card: AnswerCard) -> str:
    figure = f"~~{_escape_markdown(card.figure)}~~" if card.is_struck else card.figure
    sentences = [figure if card.is_struck else _escape_markdown(figure)] if card.figure else []
    sentences += [f"{label} {_escape_markdown(text)}" for label, text in card.lines]
    lines_text = " ".join(s if s.endswith((".", "~~")) else f"{s}." for s in sentences)
    return f"**{_escape_markdown(card.title)} {card.word.capitalize()}.** {lines_text}".rstrip()


def _table_markdown(block: Table) -> str:
    marks = ["---:" if position in block.right else "---" for position in range(len(block.columns))]
    lines = [f"| {' | '.join(map(_escape_markdown, block.columns))} |", f"| {' | '.join(marks)} |"]
    reasons = _struck_reasons(block)
    for row in block.rows:
        cell_texts = [_cell_markdown(cell, reasons) for cell in row]
        lines.append(f"| {' | '.join(cell_texts)} |")
    if reasons:
        lines.append("")
    lines += [
        f"> {number}) Struck: {_escape_markdown(reason)}."
        for number, reason in enumerate(reasons, 1)
    ]
    caption = [f"*{_escape_markdown(block.caption)}*", ""] if block.caption else []
    return "\n".join(caption + lines)


def _cell_markdown(cell: Cell, reasons: Sequence[str]) -> str:
    text = _escape_markdown(cell.text)
    if cell.kind == "struck" and cell.text:
        text = f"~~{text}~~"
    if cell.why:
        text += f" {reasons.index(cell.why) + 1})"
    return f"{text} ({_escape_markdown(cell.note)})" if cell.note else text
