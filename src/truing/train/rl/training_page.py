"""A static HTML page of a run: its metrics as inline SVG plots, and its warnings.

    write_training_page("runs/safe")          # OUT/training.html from OUT/log.jsonl

The page loads nothing from the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from truing.core.private_files import replace_file
from truing.train.training_log import read_log

FILE = "training.html"
Curve = tuple[str, str]  # (key in the log, name in the plot)

PANELS: tuple[tuple[str, tuple[Curve, ...]], ...] = (
    ("Reward", (("reward_mean", "mean reward"),)),
    (
        "Cost",
        (("cost_mean", "mean"), ("episode_cost", "window"), ("cost_cvar10", "worst 10 % (CVaR)")),
    ),
    ("λ", (("lambda", "λ"),)),
    ("Share of answers with cost above 0", (("cost_positive", "share"),)),
    ("Worst category: mean cost", (("worst_category_cost", "cost"),)),
    ("KL to the reference, per answer", (("kl_k1", "k1"), ("kl_k3", "k3"))),
    ("Entropy, per token", (("entropy", "-log π"),)),
    ("Clip fraction", (("clip_fraction", "policy"),)),
    (
        "Explained variance",
        (("reward_critic_explained", "reward critic"), ("cost_critic_explained", "cost critic")),
    ),
    ("Answers", (("length", "tokens"),)),
    (
        "Shares of answers",
        (("truncated", "cut off"), ("distinct", "distinct"), ("unscored", "unscored")),
    ),
    (
        "Measured by a judge without part in the training",
        (("measured_harmful", "harmful"), ("measured_true", "verdict true")),
    ),
)
"""The plots in their order; a plot without data is left out."""

_STYLE = """
:root{--ink:#1c2330;--soft:#667085;--rule:#d9dee7;--paper:#fff}
:root{--c0:#1f5fbf;--c1:#c2571a;--c2:#4b7f2a}
@media (prefers-color-scheme:dark){
:root{--ink:#e6e9ef;--soft:#98a2b3;--rule:#343b48;--paper:#12161d}
:root{--c0:#7fb0ff;--c1:#ffab73;--c2:#a3d97b}}
body{background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
body{max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0 0 .2rem}.soft,figcaption,text{color:var(--soft);fill:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1.2rem}
figure{margin:0}figcaption{font-weight:600;color:var(--ink)}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.name{stroke:var(--paper);stroke-width:3;paint-order:stroke}
.rule{stroke:var(--rule)}.limit{stroke:var(--soft);stroke-dasharray:4 3}
path{fill:none;stroke-width:1.6}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}
.k0{fill:var(--c0)}.k1{fill:var(--c1)}.k2{fill:var(--c2)}
li{margin:.3rem 0}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0}
"""


LogRow = Mapping[str, Any]
Points = list[tuple[float, float]]


def write_training_page(folder: str | Path) -> Path | None:
    """Writes `training.html` from the log of a run; returns None if there is no step yet."""
    rows = list(read_log(folder))
    if not rows:
        return None
    path = Path(folder) / FILE
    replace_file(path, render_page(rows, title=Path(folder).name).encode())
    return path


def render_page(rows: Sequence[LogRow], *, title: str, threshold: float | None = None) -> str:
    """Returns the HTML page of the lines of a log.

    `threshold` is drawn into the cost plot; by default it is taken from the log.
    """
    if threshold is None:
        threshold = _read_threshold(rows)
    panels = [
        _render_panel(rows, name, curves, threshold if name == "Cost" else None)
        for name, curves in PANELS
    ]
    warnings = [
        f"<li>step {row['step']}: {escape(warning)}</li>"
        for row in rows
        for warning in str(row.get("warning", "")).split(" | ")
        if warning
    ]
    last_metrics = [
        f"<tr><td>{escape(key)}</td><td>{value:.5g}</td></tr>"
        for key, value in rows[-1].items()
        if isinstance(value, (int, float)) and not key.startswith("seconds_")
    ]
    seconds = float(rows[-1].get("seconds", 0))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f'<p class="soft">{len(rows)} steps, {seconds:.0f} s</p>'
        f'<div class="grid">{"".join(panels)}</div>'
        f"<h2>Warnings</h2><ul>{''.join(warnings) or '<li>none</li>'}</ul>"
        f"<details><summary>Last step</summary><table>{''.join(last_metrics)}</table></details>"
        f"</html>"
    )


def _read_threshold(rows: Sequence[LogRow]) -> float | None:
    """Returns episode_cost - violation: the threshold, in each line of a constrained run."""
    for row in rows:
        cost, violation = row.get("episode_cost"), row.get("violation")
        if isinstance(cost, (int, float)) and isinstance(violation, (int, float)):
            return cost - violation
    return None


def _read_points(rows: Sequence[LogRow], key: str) -> Points:
    """Returns (step, value) of a metric where it is a finite number."""
    points = [
        (float(row["step"]), float(row[key]))
        for row in rows
        if isinstance(row.get(key), (int, float))
    ]
    return [(step, value) for step, value in points if math.isfinite(value)]


def _axis_ticks(low: float, high: float) -> list[float]:
    """Returns two to six round numbers around a range: multiples of 1, 2 or 5 times 10^k."""
    least_step = (high - low) / 3
    magnitude = 10.0 ** math.floor(math.log10(least_step))
    # The tolerances keep a bound that is itself a tick from getting one more tick by rounding.
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= least_step * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


@dataclass(frozen=True)
class _Plot:
    """The pixel coordinates of a plot with the given data ranges."""

    first_step: float
    last_step: float
    low: float
    high: float
    width: float = 340.0
    height: float = 190.0
    left: float = 46.0
    top: float = 10.0
    bottom: float = 22.0

    @property
    def right(self) -> float:
        return self.width - 8

    def x(self, step: float) -> float:
        fraction = (step - self.first_step) / max(self.last_step - self.first_step, 1)
        return self.left + fraction * (self.right - self.left)

    def y(self, value: float) -> float:
        fraction = (self.high - value) / (self.high - self.low)
        return self.top + fraction * (self.height - self.top - self.bottom)

    def horizontal_line(self, css_class: str, value: float) -> str:
        y = self.y(value)
        return (
            f'<line class="{css_class}" x1="{self.left}" x2="{self.right}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/>'
        )


def _render_panel(
    rows: Sequence[LogRow], name: str, curves: Sequence[Curve], threshold: float | None
) -> str:
    """Returns one plot with its legend; an empty text if the log has none of its metrics."""
    drawn = [(label, points) for key, label in curves if (points := _read_points(rows, key))]
    if not drawn:
        return ""
    values = [value for _, points in drawn for _, value in points]
    if threshold is not None:
        values.append(threshold)
    low, high = min(values), max(values)
    if high - low < 1e-9:  # a constant curve is drawn in the middle
        low, high = low - 0.5, high + 0.5
    ticks = _axis_ticks(low, high)
    steps = [step for _, points in drawn for step, _ in points]
    plot = _Plot(min(steps), max(steps), ticks[0], ticks[-1])

    parts = _render_axes(plot, ticks)
    for k, (label, points) in enumerate(drawn):
        path = "M" + "L".join(f"{plot.x(step):.1f},{plot.y(value):.1f}" for step, value in points)
        parts.append(
            f'<path class="s{k}" d="{path}">'
            f"<title>{escape(label)}: {points[-1][1]:.4g} at the end</title></path>"
        )
    if threshold is not None:
        parts.append(plot.horizontal_line("limit", threshold))
        parts.append(
            f'<text class="name" x="{plot.right}" y="{plot.y(threshold) - 4:.1f}" '
            f'text-anchor="end">threshold {threshold:.3g}</text>'
        )
    summary = ", ".join(
        f"{label} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for label, points in drawn
    )
    return (
        f"<figure><figcaption>{escape(name)}</figcaption>"
        f'<svg viewBox="0 0 {plot.width:.0f} {plot.height:.0f}" role="img">'
        f"<title>{escape(f'{name}: {summary}')}</title>{''.join(parts)}</svg>"
        f'<div class="soft">{_render_legend([label for label, _ in drawn])}</div></figure>'
    )


def _render_axes(plot: _Plot, ticks: Sequence[float]) -> list[str]:
    parts = []
    for value in ticks:
        parts.append(plot.horizontal_line("rule", value))
        parts.append(
            f'<text x="{plot.left - 5}" y="{plot.y(value) + 4:.1f}" '
            f'text-anchor="end">{value:.6g}</text>'
        )
    baseline = plot.height - 6
    parts.append(f'<text x="{plot.left}" y="{baseline}">{plot.first_step:.0f}</text>')
    parts.append(
        f'<text x="{plot.right}" y="{baseline}" text-anchor="end">step {plot.last_step:.0f}</text>'
    )
    return parts


def _render_legend(labels: Sequence[str]) -> str:
    """Returns coloured squares with the names of the curves; nothing for a single curve."""
    if len(labels) < 2:
        return ""
    return " ".join(
        f'<svg viewBox="0 0 10 10" style="width:.7em">'
        f'<rect class="k{k}" width="10" height="10"/></svg> {escape(label)}'
        for k, label in enumerate(labels)
    )
