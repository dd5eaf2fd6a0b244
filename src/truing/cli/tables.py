"""Tables in the terminal: one console and one table style for all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Output to a file or a pipe has no width of its own; narrower tables would fold their figures.
PIPE_WIDTH = 150


def make_console() -> Console:
    """Returns a console on standard output, as wide as the terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def make_table(title: str, columns: Sequence[str]) -> Table:
    """Returns an empty table: the first column to the left, figures to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    return table


def strike(markup: str) -> str:
    """Returns a figure struck through: its judge helped to make the model that it measures."""
    return f"[strike]{markup}[/strike]"
