"""The forest plot of differences: a line with its interval for each delta, a rule at zero."""

from __future__ import annotations

from collections.abc import Sequence

from truing.report.charts.svg import Mark, svg_document, svg_dot, svg_group, svg_line, svg_text

_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)


def _step(reach: float) -> float:
    return next((s for s in _STEPS if reach / s <= 3.5), 0.5)


def forest_plot(
    groups: Sequence[tuple[str, Sequence[Mark]]], title: str, *, left: int = 210
) -> str:
    """Returns differences in [-1, 1] around a rule at zero; marks as in `svg.interval_chart`."""
    marks = [mark for _, band in groups for mark in band]
    # Symmetric around zero, and at least five points, so that noise does not fill the plot.
    reach = min(
        1.0, max([0.05, *(abs(v) for mark in marks for v in (mark.lower, mark.upper))]) * 1.05
    )
    width, line, pad = 760, 15, 8
    plot = width - left - 76
    middle = left + plot / 2

    def place(value: float) -> float:
        return middle + plot / 2 * max(-1.0, min(1.0, value / reach))

    y = 22.0
    body: list[str] = []
    for name, band in groups:
        band_height = max(1, len(band)) * line + pad
        body.append(svg_text(left - 12, y + band_height / 2 + 4, name, "label", "end"))
        for row, mark in enumerate(band):
            cy = y + pad / 2 + line * (row + 0.5)
            difference_text = f"{100 * mark.estimate:+.1f}".replace("-", "−")
            ends = f"[{100 * mark.lower:+.1f}, {100 * mark.upper:+.1f}]"
            tip = f"{mark.label}: {difference_text} points {ends}{mark.note}"
            parts = [
                svg_line(
                    place(mark.lower), cy, place(mark.upper), cy, f"whisker s{mark.series % 8}"
                ),
                svg_dot(place(mark.estimate), cy, mark.series, mark.hollow, tip),
                svg_text(width - 66, cy + 4, mark.value or f"{difference_text} pp", "value"),
            ]
            body.append(svg_group(mark.series, parts))
        body.append(svg_line(0, y + band_height, width, y + band_height, "rule"))
        y += band_height
    step = _step(reach)
    grid = []
    for k in range(-int(reach / step + 1e-9), int(reach / step + 1e-9) + 1):
        x = place(k * step)
        difference_text = f"{100 * k * step:+.0f}".replace("-", "−") if k else "0"
        grid += [
            svg_line(x, 16, x, y, "grid" if k else "axis"),
            svg_text(x, 11, difference_text, "tick", "middle"),
        ]
    return svg_document(width, y + 6, title, [*grid, *body])
