"""One HTML page of a run: its curves as inline SVG, its warnings, nothing from the network.

write_page("runs/safe")          # OUT/training.html from OUT/log.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from truing.runs.folder import replace_file
from truing.train.training_log import read_log

FILE = "training.html"
Curve = tuple[str, str]  # key in the log, name on the plot

PANELS: tuple[tuple[str, tuple[Curve, ...]], ...] = (
    ("Reward", (("reward_mean", "mean reward"),)),
    (
        "Cost",
        (("cost_mean", "mean"), ("episode_cost", "window"), ("cost_cvar10", "worst 10 % (CVaR)")),
    ),
    ("λ", (("lambda", "λ"),)),
    ("Share of answers with cost above 0", (("cost_positive", "share"),)),
    ("Worst category: mean cost", (("worst_category_cost", "cost"),)),
    ("KL to the reference, an answer", (("kl_k1", "k1"), ("kl_k3", "k3"))),
    ("Entropy, a token", (("entropy", "-log π"),)),
    ("Clip fraction", (("clip_fraction", "actor"),)),
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
"""What is plotted, in this order; a panel without data is left out."""

_STYLE = """
:root{--ink:#1c2330;--soft:#667085;--rule:#d9dee7;--paper:#fff;--c0:#1f5fbf;--c1:#c2571a;--c2:#4b7f2a}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--rule:#343b48;--paper:#12161d}
:root{--c0:#7fb0ff;--c1:#ffab73;--c2:#a3d97b}}
body{background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem
auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0 0 .2rem}.soft,figcaption,text{color:var(--soft);fill:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1.2rem}
figure{margin:0}figcaption{font-weight:600;color:var(--ink)}svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.name{stroke:var(--paper);stroke-width:3;paint-order:stroke}
.rule{stroke:var(--rule)}.limit{stroke:var(--soft);stroke-dasharray:4 3}path{fill:none;stroke-width:1.6}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.k0{fill:var(--c0)}.k1{fill:var(--c1)}.k2{fill:var(--c2)}
li{margin:.3rem 0}table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0}
"""


def write_page(folder: str | Path) -> Path | None:
    """Writes `training.html` from the log; none where there is no step yet."""
    rows = list(read_log(folder))
    if not rows:
        return None
    path = Path(folder) / FILE
    replace_file(path, render(rows, title=Path(folder).name).encode())
    return path


def render(rows: Sequence[Mapping[str, Any]], *, title: str, threshold: float | None = None) -> str:
    """The page as text."""
    if threshold is None:
        threshold = _threshold(rows)
    figures = [
        f
        for name, curves in PANELS
        if (f := _panel(rows, name, curves, threshold if name == "Cost" else None))
    ]
    told = [(r["step"], w) for r in rows for w in str(r.get("warning", "")).split(" | ") if w]
    warnings = "".join(f"<li>step {s}: {escape(str(w))}</li>" for s, w in told) or "<li>none</li>"
    last = {
        k: v
        for k, v in rows[-1].items()
        if isinstance(v, (int, float)) and not k.startswith("seconds_")
    }
    table = "".join(f"<tr><td>{escape(k)}</td><td>{v:.5g}</td></tr>" for k, v in last.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f'<p class="soft">{len(rows)} steps, {float(rows[-1].get("seconds", 0)):.0f} s</p>'
        f'<div class="grid">{"".join(figures)}</div><h2>Warnings</h2><ul>{warnings}</ul>'
        f"<details><summary>Last step</summary><table>{table}</table></details></html>"
    )


def _threshold(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Window cost less violation, which every line of a constrained run holds."""
    for row in rows:
        cost, over = row.get("episode_cost"), row.get("violation")
        if isinstance(cost, (int, float)) and isinstance(over, (int, float)):
            return cost - over
    return None


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = [
        (float(r["step"]), float(r[key])) for r in rows if isinstance(r.get(key), (int, float))
    ]
    return [(x, y) for x, y in found if math.isfinite(y)]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range, two to six of them: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 3
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= raw * (1 - 1e-9))
    return [
        k * step for k in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    ]


def _panel(
    rows: Sequence[Mapping[str, Any]], name: str, curves: Sequence[Curve], limit: float | None
) -> str:
    drawn = [(label, p) for key, label in curves if (p := _points(rows, key))]
    if not drawn:
        return ""
    width, height, left, top, bottom = 340.0, 190.0, 46.0, 10.0, 22.0
    every = [y for _, p in drawn for _, y in p] + ([limit] if limit is not None else [])
    low, high = min(every), max(every)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    ticks = _ticks(low, high)
    low, high = ticks[0], ticks[-1]
    last = max(x for _, p in drawn for x, _ in p)
    first = min(x for _, p in drawn for x, _ in p)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / max(last - first, 1)
        return left + across * (width - left - 8), top + (high - y) / (high - low) * (
            height - top - bottom
        )

    parts = []
    for value in ticks:
        y = at(first, value)[1]
        parts.append(
            f'<line class="rule" x1="{left}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
        )
    parts.append(
        f'<text x="{left}" y="{height - 6}">{first:.0f}</text>'
        f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">step {last:.0f}</text>'
    )
    for k, (label, points) in enumerate(drawn):
        path = "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in (at(*p) for p in points))
        parts.append(
            f'<path class="s{k}" d="{path}"><title>{escape(label)}: {points[-1][1]:.4g} at the end</title></path>'
        )
    if limit is not None:
        y = at(first, limit)[1]
        parts.append(
            f'<line class="limit" x1="{left}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="name" x="{width - 8}" y="{y - 4:.1f}" text-anchor="end">'
            f"threshold {limit:.3g}</text>"
        )
    legend = (
        " ".join(
            f'<svg viewBox="0 0 10 10" style="width:.7em"><rect class="k{k}" width="10" height="10"/></svg> '
            f"{escape(label)}"
            for k, (label, _) in enumerate(drawn)
        )
        if len(drawn) > 1
        else ""
    )
    said = f"{name}: {', '.join(f'{label} from {p[0][1]:.3g} to {p[-1][1]:.3g}' for label, p in drawn)}"
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><svg viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
        f'<title>{escape(said)}</title>{"".join(parts)}</svg><div class="soft">{legend}</div></figure>'
    )
