"""The live view of an RL run in a terminal: figures, their course, the last warnings; a line every ten steps elsewhere."""

from __future__ import annotations

import sys
from collections import deque
from types import TracebackType
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = (
    ("reward_mean", "reward"),
    ("cost_mean", "cost"),
    ("episode_cost", "cost, window"),
    ("lambda", "λ"),
    ("cost_positive", "cost > 0"),
    ("cost_cvar10", "CVaR 10 %"),
    ("kl_k1", "KL (k1)"),
    ("kl_k3", "KL (k3)"),
    ("entropy", "entropy"),
    ("clip_fraction", "clipped"),
    ("reward_critic_explained", "explained, reward"),
    ("cost_critic_explained", "explained, cost"),
    ("length", "tokens"),
    ("truncated", "cut off"),
    ("measured_harmful", "harmful (apart)"),
)


def spark(values: list[float], width: int = 32) -> str:
    """A course as eighth blocks; the newest value is on the right."""
    some = values[-width:]
    if not some:
        return ""
    low, high = min(some), max(some)
    span = high - low
    return "".join(_BARS[round((v - low) / span * 7)] if span > 1e-12 else _BARS[3] for v in some)


class Live:
    """Hears each line of the log."""

    def __init__(
        self, title: str, steps: int, *, threshold: float | None = None, quiet: bool = False
    ) -> None:
        self.title, self.steps, self.threshold, self.quiet = title, steps, threshold, quiet
        self.rows: deque[dict[str, Any]] = deque(maxlen=200)
        self.warnings: deque[str] = deque(maxlen=4)
        self._live: Any = None

    def __enter__(self) -> Live:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live as Screen

            self._live = Screen(console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, row: dict[str, Any]) -> None:
        """After each step."""
        self.rows.append(row)
        for said in str(row.get("warning", "")).split(" | "):
            if said:
                self.warnings.append(f"step {row['step']}: {said}")
                if self._live is None and not self.quiet:
                    print(f"truing: step {row['step']}: {said}", file=sys.stderr)
        if self._live is not None:
            self._live.update(self.render())
        elif not self.quiet and (row["step"] % 10 == 0 or row["step"] == self.steps):
            print(line(row, self.steps), file=sys.stderr)

    def render(self) -> Any:
        """The table that the terminal shows."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        last = self.rows[-1] if self.rows else {}
        seconds = sum(
            float(last.get(k, 0)) for k in ("seconds_generate", "seconds_score", "seconds_learn")
        )
        table = Table(
            title=f"{self.title}  step {last.get('step', 0)}/{self.steps}  {seconds:.1f} s a step",
            box=None,
        )
        for name, how in (("", "left"), ("now", "right"), ("course", "left")):
            table.add_column(name, justify=how)  # type: ignore[arg-type]
        for key, word in _SHOWN:
            course = [float(r[key]) for r in self.rows if isinstance(r.get(key), (int, float))]
            if course:
                over = (
                    key == "episode_cost"
                    and self.threshold is not None
                    and course[-1] > self.threshold
                )
                table.add_row(
                    word, Text(f"{course[-1]:.4g}", style="red" if over else ""), spark(course)
                )
        return Group(table, *(Text(f"! {w}", style="yellow") for w in self.warnings))


def line(row: dict[str, Any], steps: int) -> str:
    """One step in one line."""
    shown = [
        f"{word} {row[key]:.3g}"
        for key, word in _SHOWN[:8]
        if isinstance(row.get(key), (int, float))
    ]
    return f"step {row['step']}/{steps}: {', '.join(shown)}"
