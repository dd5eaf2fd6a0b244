"""The plots, as inline SVG: intervals, stacked outcomes, the safety / helpfulness plane, reliability.

Colours are CSS classes of the page, so that light and dark both work; every plot has a title for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from truing.report.blocks import escape_html


class Mark(Struct, frozen=True):
    """An estimate in [0, 1] with its interval; `series` picks the colour, `hollow` marks small or struck ones."""

    label: str
    estimate: float
    lower: float
    upper: float
    series: int = 0
    hollow: bool = False
    note: str = ""


class Point(Struct, frozen=True):
    """A variant on a plane, with both intervals."""

    label: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    series: int = 0
    front: bool = False
    hollow: bool = False


def svg_document(width: float, height: float, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" preserveAspectRatio="xMinYMin meet" '
        f'style="max-width:{width:.0f}px"><title>{escape_html(title)}</title>{"".join(body)}</svg>'
    )


def svg_text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape_html(text)}</text>'


def svg_line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def svg_dot(x: float, y: float, series: int, hollow: bool, tip: str) -> str:
    kind = f"s{series % 8}{' hollow' if hollow else ''}"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="dot {kind}"><title>{escape_html(tip)}</title></circle>'


def percent_tick(x: float) -> str:
    return f"{100 * x:.0f} %"


def _ticks(top: float) -> list[float]:
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if top / s <= 5.5), 0.25)
    return [k * step for k in range(int(top / step + 1e-9) + 1)]


def interval_chart(
    groups: Sequence[tuple[str, Sequence[Mark]]], title: str, *, left: int = 210
) -> str:
    """Dots with intervals, one band a group (a category), one line a mark (a variant); the axis starts at zero."""
    marks = [m for _, ms in groups for m in ms]
    top = min(1.0, max([m.upper for m in marks] + [0.05]) * 1.05)
    width, line, pad = 760, 15, 8
    plot = width - left - 76
    y = 22.0
    body: list[str] = []
    bands: list[str] = []
    for name, ms in groups:
        tall = max(1, len(ms)) * line + pad
        body.append(svg_text(left - 12, y + tall / 2 + 4, name, "label", "end"))
        for at, m in enumerate(ms):
            cy = y + pad / 2 + line * (at + 0.5)
            tip = f"{m.label}: {100 * m.estimate:.1f} % [{100 * m.lower:.1f}, {100 * m.upper:.1f}]{m.note}"
            x1, x2, x = (left + plot * min(v, top) / top for v in (m.lower, m.upper, m.estimate))
            body.append(svg_line(x1, cy, x2, cy, f"whisker s{m.series % 8}"))
            body.append(svg_dot(x, cy, m.series, m.hollow, tip))
            body.append(svg_text(width - 62, cy + 4, f"{100 * m.estimate:.1f} %", "value"))
        bands.append(svg_line(0, y + tall, width, y + tall, "rule"))
        y += tall
    grid = [
        f"{svg_line(left + plot * t / top, 16, left + plot * t / top, y, 'grid')}"
        f"{svg_text(left + plot * t / top, 11, percent_tick(t) if top > 0.05 else f'{100 * t:.1f} %', 'tick', 'middle')}"
        for t in _ticks(top)
    ]
    return svg_document(width, y + 6, title, [*grid, *bands, *body])


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[tuple[str, int]]]], title: str, *, left: int = 210
) -> str:
    """Counts as bars of full width; each part is (class of the outcome, count); zero parts are left out."""
    width, line = 760, 24
    plot = width - left - 50
    body: list[str] = []
    y = 4.0
    for name, parts in rows:
        total = sum(n for _, n in parts)
        body.append(svg_text(left - 12, y + 15, name, "label", "end"))
        x = float(left)
        for kind, n in parts:
            if not n:
                continue
            w = plot * n / total
            tip = f"{name}: {kind} {n} of {total}"
            body.append(
                f'<rect x="{x:.1f}" y="{y + 3:.1f}" width="{max(w - 1, 0.8):.1f}" height="16" rx="2" '
                f'class="o-{kind}"><title>{escape_html(tip)}</title></rect>'
            )
            if w >= 22:
                body.append(svg_text(x + w / 2 - 0.5, y + 15, str(n), "inside", "middle"))
            x += w
        body.append(svg_text(width - 44, y + 15, f"n {total}", "value"))
        y += line
    return svg_document(width, y + 4, title, body)


def plane_chart(points: Sequence[Point], x_label: str, y_label: str, title: str) -> str:
    """Variants on two axes, right and up is better, with intervals; the Pareto front is joined by a line."""
    width, height, left, low = 640, 420, 62, 52
    xs = [v for p in points for v in p.x] or [0.0, 1.0]
    ys = [v for p in points for v in p.y] or [0.0, 1.0]
    across, up = _round_ticks(xs), _round_ticks(ys)
    (x0, x1), (y0, y1) = (across[0], across[-1]), (up[0], up[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 24) * (x - x0) / (x1 - x0),
            (height - low) - (height - low - 18) * (y - y0) / (y1 - y0),
        )

    body: list[str] = []
    for x in across:
        px, _ = at(x, y0)
        body += [
            svg_line(px, 18, px, height - low, "grid"),
            svg_text(px, height - low + 18, percent_tick(x), "tick", "middle"),
        ]
    for y in up:
        _, py = at(x0, y)
        body += [
            svg_line(left, py, width - 24, py, "grid"),
            svg_text(left - 8, py + 4, percent_tick(y), "tick", "end"),
        ]
    front = sorted((p for p in points if p.front), key=lambda p: p.x[0])
    if len(front) > 1:
        steps = [at(p.x[0], p.y[0]) for p in front]
        body.append(
            f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in steps)}" class="front"/>'
        )
    taken: list[tuple[float, float]] = []
    for p in points:
        cx, cy = at(p.x[0], p.y[0])
        whisker = f"whisker thin s{p.series % 8}"
        body.append(svg_line(at(p.x[1], p.y[0])[0], cy, at(p.x[2], p.y[0])[0], cy, whisker))
        body.append(svg_line(cx, at(p.x[0], p.y[1])[1], cx, at(p.x[0], p.y[2])[1], whisker))
        tip = f"{p.label}: {x_label} {100 * p.x[0]:.1f} %, {y_label} {100 * p.y[0]:.1f} %"
        body.append(svg_dot(cx, cy, p.series, p.hollow, tip))
        ly = cy - 9
        while any(abs(ly - ty) < 14 and abs(cx - tx) < 130 for tx, ty in taken):
            ly += 15
        taken.append((cx, ly))
        end = cx > width - 170
        body.append(
            svg_text(
                cx - 9 if end else cx + 9,
                ly,
                p.label,
                f"name s{p.series % 8}",
                "end" if end else "start",
            )
        )
    body.append(svg_text((left + width - 24) / 2, height - 10, f"{x_label} →", "axis", "middle"))
    body.append(
        f'<text transform="translate(16,{(height - low) / 2:.0f}) rotate(-90)" text-anchor="middle" class="axis">'
        f"{escape_html(y_label)} →</text>"
    )
    return svg_document(width, height, title, body)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = max(0.0, min(values)), min(1.0, max(values))
    room = max(0.1, high - low) * 0.08
    low, high = max(0.0, low - room), min(1.0, high + room)
    return (low, high) if high - low >= 0.1 else (max(0.0, high - 0.1), max(0.1, high))


def _round_ticks(values: Sequence[float]) -> list[float]:
    """Round shares (19 % is none) that reach a little beyond the values, within [0, 1]."""
    low, high = _span(values)
    step = next((s for s in (0.02, 0.05, 0.1) if (high - low) / s <= 6.5), 0.2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [min(1.0, k * step) for k in range(first, last + 1)]


def legend_html(names: Sequence[str]) -> str:
    """Series names with their colours, as HTML."""
    items = "".join(
        f'<span class="key"><i class="swatch s{k % 8}"></i>{escape_html(n)}</span>'
        for k, n in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'
