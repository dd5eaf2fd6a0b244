"""The reliability diagram of a judge (Murphy & Winkler 1977), as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from truing.analysis.rates import SMALL_SAMPLE_SIZE
from truing.report.charts.svg import percent_tick, svg_document, svg_dot, svg_line, svg_text
from truing.stats.calibration import ReliabilityBin

_LEFT, _TOP, _SIDE = 58.0, 12.0, 250.0


def reliability_diagram(bins: Sequence[ReliabilityBin], title: str) -> str:
    """Returns the stated probability (x) against the observed share with its interval (y); the
    diagonal is perfect.

    Hollow dots stand for fewer than 30 rows.
    """

    def x(share: float) -> float:
        return _LEFT + _SIDE * share

    def y(share: float) -> float:
        return _TOP + _SIDE * (1 - share)

    body = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        body += [
            svg_line(x(tick), y(0), x(tick), y(1), "grid"),
            svg_line(x(0), y(tick), x(1), y(tick), "grid"),
        ]
        body.append(svg_text(x(tick), y(0) + 16, percent_tick(tick), "tick", "middle"))
        body.append(svg_text(x(0) - 8, y(tick) + 4, percent_tick(tick), "tick", "end"))
    body.append(f'<path class="front" d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    for b in bins:
        bin_x, tip = (
            x(b.confidence),
            f"states {percent_tick(b.confidence)}: {percent_tick(b.rate.estimate)} of {b.n} "
            "confirmed",
        )
        body += [
            svg_line(bin_x, y(b.rate.lower), bin_x, y(b.rate.upper), "whisker s0"),
            svg_dot(bin_x, y(b.rate.estimate), 0, b.n < SMALL_SAMPLE_SIZE, tip),
        ]
    body.append(svg_text(x(0.5), y(0) + 36, "stated by the judge", "axis", "middle"))
    body.append(
        '<g transform="rotate(-90 14 '
        f'{y(0.5):.1f})">{svg_text(14, y(0.5), "confirmed by people", "axis", "middle")}</g>'
    )
    return svg_document(_LEFT + _SIDE + 24, _TOP + _SIDE + 44, title, body)
