"""Charts as inline SVG: intervals, stacked outcomes, the plane of safety and helpfulness.

Colours are CSS classes of the page, so that light and dark both work; every plot has a title for
screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from truing.report.blocks import escape_html

_LETTER = 7.5  # mean width of a letter of a name, in units of the drawing


class Mark(Struct, frozen=True):
    """An estimate in [0, 1] with its interval; `series` selects the colour, `hollow` marks small or
    struck ones. `value` is printed instead of the estimate, such as counts.
    """

    label: str
    estimate: float
    lower: float
    upper: float
    series: int = 0
    hollow: bool = False
    note: str = ""
    value: str = ""


class Point(Struct, frozen=True):
    """A variant on the plane: (estimate, lower, upper) on both axes; `front`: on the Pareto
    front.
    """

    label: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    series: int = 0
    front: bool = False
    hollow: bool = False


def svg_document(width: float, height: float, title: str, body: Sequence[str]) -> str:
    """Returns an SVG that scales down with the page; the title is for screen readers."""
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" preserveAspectRatio="xMinYMin '
        'meet" '
        f'style="max-width:{width:.0f}px"><title>{escape_html(title)}</title>{"".join(body)}</svg>'
    )


def svg_text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """Returns a text; `kind` is its CSS class, `anchor` its alignment (start, middle, end)."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'class="{kind}">{escape_html(text)}</text>'
    )


def svg_line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Returns a line; `kind` is its CSS class."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def svg_dot(x: float, y: float, series: int, hollow: bool, tip: str) -> str:
    """Returns a dot in the colour of a series, with a tooltip."""
    # The style sheet has eight series colours; further variants repeat them.
    kind = f"s{series % 8}{' hollow' if hollow else ''}"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="dot '
        f'{kind}"><title>{escape_html(tip)}</title></circle>'
    )


def svg_group(series: int, parts: Sequence[str]) -> str:
    """Returns the elements of one variant as a group that the page can hide."""
    return f'<g data-v="{series}">{"".join(parts)}</g>'


def percent_tick(x: float) -> str:
    """Returns a share as a whole percentage, for an axis."""
    return f"{100 * x:.0f} %"


def _axis_ticks(top: float) -> list[float]:
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if top / s <= 5.5), 0.25)
    return [k * step for k in range(int(top / step + 1e-9) + 1)]


def interval_chart(
    groups: Sequence[tuple[str, Sequence[Mark]]],
    title: str,
    *,
    left: int = 210,
    as_percent: bool = True,
) -> str:
    """Returns dots with intervals: a band for each group (category), a line for each mark
    (variant).

    The axis starts at zero; `left` is the width of the labels in pixels. Figures that are no shares
    are written as numbers (`as_percent` false).
    """
    marks = [mark for _, band in groups for mark in band]
    top = min(1.0, max([mark.upper for mark in marks] + [0.05]) * 1.05)
    width, line, pad = 760, 15, 8
    plot = width - left - 76
    y = 22.0
    body: list[str] = []
    bands: list[str] = []
    for name, band in groups:
        band_height = max(1, len(band)) * line + pad
        body.append(svg_text(left - 12, y + band_height / 2 + 4, name, "label", "end"))
        for row, mark in enumerate(band):
            cy = y + pad / 2 + line * (row + 0.5)
            value_text = f"{100 * mark.estimate:.1f} %" if as_percent else f"{mark.estimate:.3f}"
            ends = [
                f"{100 * end:.1f}" if as_percent else f"{end:.3f}"
                for end in (mark.lower, mark.upper)
            ]
            tip = f"{mark.label}: {value_text} [{ends[0]}, {ends[1]}]{mark.note}"
            x1, x2, x = (
                left + plot * min(v, top) / top for v in (mark.lower, mark.upper, mark.estimate)
            )
            parts = [
                svg_line(x1, cy, x2, cy, f"whisker s{mark.series % 8}"),
                svg_dot(x, cy, mark.series, mark.hollow, tip),
                svg_text(width - 62, cy + 4, mark.value or value_text, "value"),
            ]
            body.append(svg_group(mark.series, parts))
        bands.append(svg_line(0, y + band_height, width, y + band_height, "rule"))
        y += band_height
    grid = []
    for tick in _axis_ticks(top):
        x = left + plot * tick / top
        label = percent_tick(tick) if top > 0.05 else f"{100 * tick:.1f} %"
        if not as_percent:
            label = f"{tick:.2f}"
        grid += [svg_line(x, 16, x, y, "grid"), svg_text(x, 11, label, "tick", "middle")]
    return svg_document(width, y + 6, title, [*grid, *bands, *body])


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[tuple[str, int]]]],
    title: str,
    *,
    left: int = 210,
    series: Sequence[int] = (),
) -> str:
    """Returns counts as bars of equal width; each part is (outcome, count), parts of zero are left
    out. `series` are the variants of the rows.
    """
    width, line = 760, 24
    plot = width - left - 50
    body: list[str] = []
    y = 4.0
    for row, (name, parts) in enumerate(rows):
        total = sum(n for _, n in parts)
        drawn = [svg_text(left - 12, y + 15, name, "label", "end")]
        x = float(left)
        for kind, n in parts:
            if not n:
                continue
            w = plot * n / total
            tip = f"{name}: {kind} {n} of {total}"
            drawn.append(
                f'<rect x="{x:.1f}" y="{y + 3:.1f}" width="{max(w - 1, 0.8):.1f}" height="16" '
                'rx="2" '
                f'class="o-{kind}"><title>{escape_html(tip)}</title></rect>'
            )
            if w >= 22:
                drawn.append(svg_text(x + w / 2 - 0.5, y + 15, str(n), "inside", "middle"))
            x += w
        drawn.append(svg_text(width - 44, y + 15, f"n {total}", "value"))
        body.append(svg_group(series[row], drawn) if series else "".join(drawn))
        y += line
    return svg_document(width, y + 4, title, body)


def plane_chart(points: Sequence[Point], x_label: str, y_label: str, title: str) -> str:
    """Returns variants on two axes with intervals, right and up is better; a line joins the Pareto
    front.
    """
    width, height, left, low = 480, 380, 62, 52
    xs = [v for p in points for v in p.x] or [0.0, 1.0]
    ys = [v for p in points for v in p.y] or [0.0, 1.0]
    across, up = _round_ticks(xs), _round_ticks(ys)
    (x0, x1), (y0, y1) = (across[0], across[-1]), (up[0], up[-1])

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 24) * (x - x0) / (x1 - x0),
            (height - low) - (height - low - 18) * (y - y0) / (y1 - y0),
        )

    body: list[str] = []
    for x in across:
        px, _ = to_pixels(x, y0)
        body += [
            svg_line(px, 18, px, height - low, "grid"),
            svg_text(px, height - low + 18, percent_tick(x), "tick", "middle"),
        ]
    for y in up:
        _, pixel_y = to_pixels(x0, y)
        body += [
            svg_line(left, pixel_y, width - 24, pixel_y, "grid"),
            svg_text(left - 8, pixel_y + 4, percent_tick(y), "tick", "end"),
        ]
    front = sorted((p for p in points if p.front), key=lambda p: p.x[0])
    if len(front) > 1:
        steps = [to_pixels(p.x[0], p.y[0]) for p in front]
        body.append(
            f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in steps)}" class="front"/>'
        )
    label_positions: list[tuple[float, float]] = []  # a label moves down until it covers no other
    for p in points:
        cx, cy = to_pixels(p.x[0], p.y[0])
        whisker = f"whisker thin s{p.series % 8}"
        tip = f"{p.label}: {x_label} {_share_with_ends(p.x)}, {y_label} {_share_with_ends(p.y)}"
        parts = [
            svg_line(to_pixels(p.x[1], p.y[0])[0], cy, to_pixels(p.x[2], p.y[0])[0], cy, whisker),
            svg_line(cx, to_pixels(p.x[0], p.y[1])[1], cx, to_pixels(p.x[0], p.y[2])[1], whisker),
            svg_dot(cx, cy, p.series, p.hollow, tip),
        ]
        ly = cy - 9
        while any(abs(ly - ty) < 14 and abs(cx - tx) < 130 for tx, ty in label_positions):
            ly += 15
        label_positions.append((cx, ly))
        end = cx + 9 + _LETTER * len(p.label) > width and cx > width / 2
        name_x, anchor = (cx - 9, "end") if end else (cx + 9, "start")
        parts.append(svg_text(name_x, ly, p.label, "name", anchor))
        body.append(svg_group(p.series, parts))
    body.append(svg_text((left + width - 24) / 2, height - 10, f"{x_label} →", "axis", "middle"))
    body.append(
        f'<text transform="translate(16,{(height - low) / 2:.0f}) rotate(-90)" '
        'text-anchor="middle" class="axis">'
        f"{escape_html(y_label)} →</text>"
    )
    return svg_document(width, height, title, body)


def _share_with_ends(share: tuple[float, float, float]) -> str:
    return f"{100 * share[0]:.1f} % [{100 * share[1]:.1f}, {100 * share[2]:.1f}]"


def _axis_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = max(0.0, min(values)), min(1.0, max(values))
    room = max(0.1, high - low) * 0.08
    low, high = max(0.0, low - room), min(1.0, high + room)
    return (low, high) if high - low >= 0.1 else (max(0.0, high - 0.1), max(0.1, high))


def _round_ticks(values: Sequence[float]) -> list[float]:
    """Returns round shares (20 %, not 19 %) that reach a little beyond the values, within [0,
    1].
    """
    low, high = _axis_range(values)
    step = next((s for s in (0.02, 0.05, 0.1) if (high - low) / s <= 6.5), 0.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [min(1.0, k * step) for k in range(first, last + 1)]


def legend_html(names: Sequence[str]) -> str:
    """Returns the names of the series with their colours, as HTML."""
    items = "".join(
        f'<span class="key" data-v="{k}"><i class="swatch s{k % 8}"></i>{escape_html(n)}</span>'
        for k, n in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'
