"""The frame of a page: folding, the filter of variants, colours that can be read."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from truing.report.blocks import Section, Text
from truing.report.document import render_document

SECTIONS = [
    Section("first", "First", (Text("shown"),)),
    Section("second", "Second", (Text("more"),), open_=False),
]
CSS = (files("truing") / "report" / "templates" / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = re.findall(r":root\{color-scheme:(?:light|dark);(.*?)\}", CSS, re.DOTALL)


def test_sections_are_folded_by_themselves_or_by_name() -> None:
    html = render_document("Title", "sub", SECTIONS)
    assert html.count('<details class="fold">') == 1
    html = render_document("Title", "sub", SECTIONS, open_ids=())
    assert html.count('<details class="fold">') == 2


def test_variants_can_be_hidden_where_there_are_several() -> None:
    html = render_document("Title", "sub", SECTIONS, variants=["a<", "b"])
    assert 'data-series="1" checked><i class="swatch s1"></i>b</label>' in html
    assert "a&lt;</label>" in html
    assert (
        "data-series="
        not in render_document("T", "", SECTIONS, variants=["a"]).split("<script>")[0]
    )


def colours(declarations: str) -> dict[str, str]:
    found = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})", declarations))
    return {k: "#" + "".join(2 * c for c in v[1:]) if len(v) == 4 else v for k, v in found.items()}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


TEXTS = [
    *((ink, ground) for ink in ("ink", "soft", "accent") for ground in ("bg", "card")),
    *((kind, ground) for kind in ("yes", "no", "open") for ground in ("card", f"{kind}-bg")),
    *((ink, f"{kind}-bg") for ink in ("ink", "soft") for kind in ("yes", "no", "open")),
    *(
        ("inside", outcome)
        for outcome in (
            "harmful",
            "degenerate",
            "unscored",
            "refused",
            "abstained",
            "blocked",
            "answered",
        )
    ),
]
MARKS = [(f"s{k}", "card") for k in range(8)]


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_the_contrast_of_aa_and_marks_that_of_graphics(scheme: str) -> None:
    by_name = colours(scheme)
    weak = {
        (a, b): round(contrast(by_name[a], by_name[b]), 2)
        for pairs, least in ((TEXTS, 4.5), (MARKS, 3.0))
        for a, b in pairs
        if contrast(by_name[a], by_name[b]) < least
    }
    assert weak == {}
