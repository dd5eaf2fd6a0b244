"""The live view of an RL run in a terminal; elsewhere a line every ten steps."""

from __future__ import annotations

import sys
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from truing.cli.tables import escape_line, print_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

_BLOCKS = "▁▂▃▄▅▆▇█"
# Keys of the log that are shown, with their labels; a line of a step shows the first eight.
_METRICS = (
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
    ("measured_harmful", "harmful (evaluation)"),
)
_METRICS_IN_LINE = 8
STEPS_PER_LINE = 10
MAX_ROWS = 200
MAX_WARNINGS = 4


def sparkline(values: list[float], width: int = 32) -> str:
    """Draws the last `width` values as blocks of eight heights; the newest is on the right."""
    newest = values[-width:]
    if not newest:
        return ""
    low = min(newest)
    span = max(newest) - low
    if span <= 1e-12:
        return _BLOCKS[3] * len(newest)
    return "".join(_BLOCKS[round((value - low) / span * 7)] for value in newest)


def format_step(row: dict[str, Any], steps: int) -> str:
    """Formats the main metrics of a step in one line."""
    metrics = [
        f"{label} {row[key]:.3g}"
        for key, label in _METRICS[:_METRICS_IN_LINE]
        if isinstance(row.get(key), (int, float))
    ]
    return f"step {row['step']}/{steps}: {', '.join(metrics)}"


class TrainingMonitor:
    """Shows the progress of a run; call it with each line of the log.

    `threshold` is the limit of the cost; a cost above it is shown in red. If `quiet`, nothing is
    shown.
    """

    def __init__(
        self, title: str, steps: int, *, threshold: float | None = None, quiet: bool = False
    ) -> None:
        self.title = title
        self.steps = steps
        self.threshold = threshold
        self.quiet = quiet
        self.rows: deque[dict[str, Any]] = deque(maxlen=MAX_ROWS)
        self.warnings: deque[str] = deque(maxlen=MAX_WARNINGS)
        self._live: Live | None = None

    def __enter__(self) -> TrainingMonitor:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, row: dict[str, Any]) -> None:
        """Takes a line of the log and shows it; called after each step."""
        self.rows.append(row)
        for warning in str(row.get("warning", "")).split(" | "):
            if warning:
                message = f"step {row['step']}: {warning}"
                self.warnings.append(message)
                if self._live is None and not self.quiet:
                    print_text(f"truing: {message}", file=sys.stderr)
        if self._live is not None:
            self._live.update(self.render())
        elif not self.quiet and (row["step"] % STEPS_PER_LINE == 0 or row["step"] == self.steps):
            print_text(format_step(row, self.steps), file=sys.stderr)

    def render(self) -> Group:
        """Returns the table of the terminal: the newest value and the course of each metric."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        last = self.rows[-1] if self.rows else {}
        seconds = sum(
            float(last.get(key, 0))
            for key in ("seconds_generate", "seconds_score", "seconds_learn")
        )
        # As plain text: the title names models and folders, a warning may quote what they say.
        title = Text(escape_line(self.title))
        title.append(f"  step {last.get('step', 0)}/{self.steps}  {seconds:.1f} s a step")
        table = Table(title=title, box=None)
        columns: tuple[tuple[str, Literal["left", "right"]], ...]
        columns = (("", "left"), ("now", "right"), ("course", "left"))
        for name, justify in columns:
            table.add_column(name, justify=justify)
        for key, label in _METRICS:
            values = [float(r[key]) for r in self.rows if isinstance(r.get(key), (int, float))]
            if values:
                style = "red" if key == "episode_cost" and self._exceeds(values[-1]) else ""
                table.add_row(label, Text(f"{values[-1]:.4g}", style=style), sparkline(values))
        return Group(table, *(Text(f"! {escape_line(w)}", style="yellow") for w in self.warnings))

    def _exceeds(self, cost: float) -> bool:
        return self.threshold is not None and cost > self.threshold
