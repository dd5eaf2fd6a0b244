"""Text and tables in the terminal: one console and one table style for all commands.

What is shown comes from files and models, which may hold escape sequences that take over a
terminal; both ways of writing put control characters into words.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from truing.core.text import escape_controls, escape_json_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Output to a file or a pipe has no width of its own; narrower tables would fold their figures.
PIPE_WIDTH = 150


def make_console() -> Console:
    """Returns a console on standard output, as wide as the terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    console.push_render_hook(_EscapingHook())  # type: ignore[arg-type]
    return console


class _EscapingHook:
    """Makes a console write control characters out (rich removes only five of them)."""

    def process_renderables(self, renderables: list[Any]) -> list[Any]:
        """Wraps what is printed; cursor movements of rich itself stay."""
        from rich.control import Control

        return [r if isinstance(r, Control) else _Escaped(r) for r in renderables]


class _Escaped:
    """Renders another object with its control characters written out."""

    def __init__(self, renderable: Any) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        for segment in console.render(self._renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escape_controls(segment.text), segment.style)


def escape_line(text: str) -> str:
    """Returns a text for one line of a live display, which does not escape what it shows."""
    return escape_controls(" ".join(text.split()))


def print_text(
    text: str = "", *, file: TextIO | None = None, end: str = "\n", flush: bool = False
) -> None:
    """Prints a line, on standard output if no file is given; control characters are written out.

    No other module of the command line calls `print`.
    """
    print(escape_controls(text), file=file, end=end, flush=flush)


def print_json(json_text: str | bytes, *, file: TextIO | None = None) -> None:
    """Prints a JSON text, on standard output if no file is given; it stays valid JSON."""
    text = json_text if isinstance(json_text, str) else json_text.decode()
    print(escape_json_controls(text), file=file)


def print_next_steps(commands: Sequence[str | Sequence[object]]) -> None:
    """Prints what a user may want to run next, one command a line.

    A command is a text, or its words, which are quoted for a shell where that is needed.
    """
    print_text("next:")
    for command in commands:
        text = command if isinstance(command, str) else shlex.join(str(word) for word in command)
        print_text(f"  {text}")


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


def make_text_table(*columns: str) -> Table:
    """Returns an empty table without figures: every column to the left."""
    table = make_table("", columns)
    for column in table.columns:
        column.justify = "left"
    return table


def strike(markup: str) -> str:
    """Returns a figure struck through: its judge helped to make the model that it measures."""
    return f"[strike]{markup}[/strike]"
