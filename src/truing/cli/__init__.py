"""Measure how unsafe a language model is, make it safer, put controls around it, and prove it.

One module per command, imported only when that command runs. `commands.py` lists all of them.
These modules import at their top what flags and types need, and the work inside the functions that
do it, so that `truing COMMAND --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from cyclopts import App, CycloptsError, Group

from truing.cli.commands import COMMANDS, GROUPS, SECTIONS
from truing.cli.help_format import HelpText, format_usage_error
from truing.cli.tables import print_text
from truing.core.errors import ProcessFailed, TruingError
from truing.core.private_files import restrict_umask
from truing.core.version import __version__


def build_app() -> App:
    """Returns the command tree.

    Commands are registered by dotted path: `truing --help` imports none of their modules.
    """
    app = App(
        name="truing",
        version=__version__,
        help=(__doc__ or "").splitlines()[0],
        help_format="plaintext",
        help_formatter=HelpText(),
        error_formatter=format_usage_error,
    )
    sections: dict[str, Group] = {}
    for position, (title, commands) in enumerate(SECTIONS.items()):
        sections |= dict.fromkeys(commands, Group(title, sort_key=position))
    # Within a section, in the order of `SECTIONS`.
    order = {command: i for commands in SECTIONS.values() for i, command in enumerate(commands)}
    groups: dict[str, App] = {}
    for command, (function_path, help_line) in COMMANDS.items():
        name, _, subcommand = command.partition(" ")
        place: Any = {"group": sections.get(name), "sort_key": order.get(name)}
        if not subcommand:
            app.command(function_path, name=command, help=help_line, **place)
            continue
        if name not in groups:
            groups[name] = App(name=name, help=GROUPS.get(name, ""), **place)
            app.command(groups[name])
        groups[name].command(function_path, name=subcommand, help=help_line)
    app.register_install_completion_command()
    return app


def expand_plan_command(words: list[str]) -> list[str]:
    """Returns the command with `train PLAN.toml` and `train --preset NAME` as `train plan ...`."""
    first = words[1] if words[:1] == ["train"] and len(words) > 1 else ""
    is_flag = first.startswith("--") and first not in ("--help", "--version")
    return ["train", "plan", *words[1:]] if first.endswith(".toml") or is_flag else words


def print_help(app: App, words: list[str]) -> bool:
    """Prints the help that `COMMAND --help` asks for; returns whether the words are that.

    `app(words)` prints the same, but first builds all flags of the command to look for one named
    `--help`, which is a fifth of the time of a command with a hundred flags.
    """
    if not words or words[-1] not in app.help_flags:
        return False
    _, _, unused_words = app.parse_commands(words[:-1])
    if unused_words:
        return False
    app.help_print(words[:-1])
    return True


def main() -> None:
    """Runs the command in sys.argv and exits with its status.

    0 done, 1 error (also a wrong flag or command), 2 a finding (a gate that failed, an error in a
    rails configuration), 3 inconclusive, 130 interrupted.
    """
    try:
        restrict_umask()
        # The arguments are passed on: cyclopts warns under pytest when it has to read sys.argv
        # itself.
        words = expand_plan_command(sys.argv[1:])
        app = build_app()
        if print_help(app, words):
            status = 0
        else:
            status = app(words, result_action="return_value", exit_on_error=False)
        # Before the end of Python, at which a library can end the process with its own status.
        sys.stdout.flush()
    except CycloptsError as error:
        # A wrong flag or command; cyclopts has printed what is wrong.
        command = " ".join(["truing", *(error.command_chain or ())])
        print_text(f"{command} --help shows what there is", file=sys.stderr)
        sys.exit(1)
    except ProcessFailed:
        sys.exit(1)  # that process prints the message
    except TruingError as error:
        print_text(f"truing: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has gone (`truing show RUN | head`). Python would report the same
        # error again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        file_prefix = f"{error.filename}: " if error.filename else ""
        print_text(f"truing: {file_prefix}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    # cyclopts returns None for --help and --version.
    sys.exit(status if isinstance(status, int) else 0)
