"""Writes the help and the usage errors of commands: plain text, filled to the terminal's width.

cyclopts renders docstrings as Markdown by default, for which every `--help` loads a parser of it,
and lays panels out as rich's tables, which takes a third of the time of a command with a hundred
flags. Its plain text keeps the line breaks of the docstrings.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import CycloptsError
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

# A break of a docstring's line, but neither of a paragraph nor before an item of a list.
_LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n|\s*[-*] )[ \t]*")
# Defaults that say nothing: a flag is off and a text is empty unless it is given.
_SILENT_DEFAULTS = ("False", '""', "''")
_NAME_STYLE, _NOTE_STYLE, _REQUIRED_STYLE = "cyan", "gray58", "red"
_BOX = ("╭", "─", "╮", "│", "╰", "╯")
_ASCII_BOX = ("+", "-", "+", "|", "+", "+")


class HelpText:
    """A formatter for cyclopts that draws panels of commands and flags line by line."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Prints a panel of commands or flags."""
        if panel.entries:
            # The lines are filled already: rich is to wrap and to colour nothing.
            console.print(_draw_panel(panel, console), soft_wrap=True, highlight=False)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Prints how the command is called."""
        from cyclopts.help.formatters import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Prints what the command does."""
        from cyclopts.help.formatters import DefaultFormatter
        from rich.text import Text

        content = getattr(description, "primary_renderable", None)
        if isinstance(content, Text):
            content.plain = _LINE_BREAK.sub(" ", content.plain)
        DefaultFormatter().render_description(console, options, description)


def format_usage_error(error: CycloptsError) -> Any:
    """Returns the panel of a usage error; words that no parameter takes are told plainly."""
    from cyclopts import CycloptsPanel, UnusedCliTokensError

    if not isinstance(error, UnusedCliTokensError):
        return CycloptsPanel(error)
    command = " ".join(["truing", *(error.command_chain or ())])
    words = " ".join(error.unused_tokens or ())
    return CycloptsPanel(f"{command} cannot place {words!r}: values follow the flag they are for.")


def _draw_panel(panel: HelpPanel, console: Console) -> Text:
    """Returns the lines of a panel: a box with the names at the left, what they do at the right."""
    from rich.text import Text

    box = _ASCII_BOX if console.options.ascii_only else _BOX
    top_left, rule, top_right, wall, bottom_left, bottom_right = box
    labels = [_read_label(entry, panel.format) for entry in panel.entries]
    mark_width = 2 if any(entry.required for entry in panel.entries) else 0
    name_width = min(max(map(len, labels)), math.ceil(console.width * 0.35))
    # The walls and the spaces beside them take four columns, the gap after the names two.
    text_width = max(console.width - 4 - mark_width - name_width - 2, 10)
    title = f"{top_left}{rule} {panel.title} "
    text = Text(title + rule * (console.width - len(title) - 1) + top_right + "\n")
    for entry, label in zip(panel.entries, labels, strict=True):
        names = textwrap.wrap(label, name_width, subsequent_indent="  ", break_on_hyphens=False)
        lines = list(_fill_description(entry, text_width))
        for i in range(max(len(names), len(lines))):
            name = names[i] if i < len(names) else ""
            described, note, note_style = lines[i] if i < len(lines) else ("", "", "")
            text.append(f"{wall} ")
            text.append(("*" if entry.required and i == 0 else "").ljust(mark_width), "bold red")
            text.append(name.ljust(name_width + 2), _NAME_STYLE)
            text.append(described)
            text.append(note, note_style)
            text.append(" " * (text_width - len(described) - len(note)) + f" {wall}\n")
    text.append(bottom_left + rule * (console.width - 2) + bottom_right)
    return text


def _read_label(entry: HelpEntry, kind: str) -> str:
    """Returns the names of a flag with its value, or those of a command."""
    if kind == "parameter":
        return " ".join(entry.display_labels_with_metavar)
    name, *aliases = entry.all_options or ("",)
    return f"{name} ({', '.join(aliases)})" if aliases else name


def _fill_description(entry: HelpEntry, width: int) -> Iterator[tuple[str, str, str]]:
    """Yields each line of what an entry does: the text, the notes after it, and their style."""
    content = getattr(entry.description, "primary_renderable", entry.description)
    description = _LINE_BREAK.sub(" ", getattr(content, "plain", str(content or ""))).rstrip()
    notes = [
        f"[{title}: {', '.join(words)}]"
        for title, words in (("choices", entry.choices), ("env var", entry.env_var))
        if words
    ]
    if entry.default is not None and entry.default not in _SILENT_DEFAULTS:
        notes.append(f"[default: {entry.default}]")
    if entry.required:
        notes.append("[required]")
    style = _REQUIRED_STYLE if entry.required else _NOTE_STYLE
    n_letters = len("".join(description.split()))  # what follows them are the notes
    for paragraph in " ".join(filter(None, [description, *notes])).split("\n"):
        for line in textwrap.wrap(paragraph, width, break_on_hyphens=False) or [""]:
            end = 0
            while end < len(line) and (n_letters > 0 or line[end] == " "):
                n_letters -= line[end] != " "
                end += 1
            yield line[:end], line[end:], style
