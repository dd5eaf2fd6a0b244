"""Writes the help of commands as plain text, whose lines are filled to the width of the terminal.

cyclopts renders docstrings as Markdown by default, for which every `--help` loads a parser of it;
its plain text keeps the line breaks of the docstrings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

# A break of a docstring's line, but neither of a paragraph nor before an item of a list.
_LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n|\s*[-*] )[ \t]*")


class HelpText:
    """A formatter for cyclopts: its default one, on texts without the line breaks of docstrings."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Prints a panel of commands or flags."""
        from cyclopts.help.formatters import DefaultFormatter

        for text in (panel.description, *(entry.description for entry in panel.entries)):
            _join_lines(text)
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Prints how the command is called."""
        from cyclopts.help.formatters import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Prints what the command does."""
        from cyclopts.help.formatters import DefaultFormatter

        _join_lines(description)
        DefaultFormatter().render_description(console, options, description)


def _join_lines(text: object) -> None:
    from rich.text import Text

    content = getattr(text, "primary_renderable", None)
    if isinstance(content, Text):
        content.plain = _LINE_BREAK.sub(" ", content.plain)
