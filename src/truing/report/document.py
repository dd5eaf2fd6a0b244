"""One offline HTML page from sections: the frame that reports, rankings and comparisons share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.resources import files

import jinja2

from truing.core.version import __version__
from truing.report.blocks import Section, block_html


def render_document(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    *,
    open_ids: Collection[str] | None = None,
    variants: Sequence[str] = (),
    with_text: bool = False,
    version: str = __version__,
) -> str:
    """Returns the page, without links, fonts or scripts from elsewhere.

    Sections outside `open_ids` are folded; without it those whose `open_` is false. `variants` are
    the series of the charts, which the reader can hide.
    """
    root = files("truing") / "report" / "templates"
    # Autoescape covers titles; the bodies are HTML already and marked safe in the template.
    template = jinja2.Environment(autoescape=True).from_string(
        (root / "report.html.j2").read_text(encoding="utf-8")
    )
    documents = [
        {
            "id": s.id,
            "title": s.title,
            "lead": s.lead,
            "folded": not s.open_ if open_ids is None else s.id not in open_ids,
            "body": "\n".join(map(block_html, s.blocks)),
        }
        for s in sections
    ]
    return template.render(
        title=title,
        sub=subtitle,
        sections=documents,
        variants=list(variants) if len(variants) > 1 else [],
        version=version,
        with_text=with_text,
        css=(root / "style.css").read_text(encoding="utf-8"),
        js=(root / "report.js").read_text(encoding="utf-8"),
    )
