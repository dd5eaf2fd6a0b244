"""Runs the command line in this process, for the tests of the commands."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from truing.cli import main


@dataclass(frozen=True)
class CommandResult:
    """The exit status of a command, and what it wrote to standard output and standard error."""

    status: int
    out: str
    err: str


def truing(command: str, *arguments: object) -> CommandResult:
    """Runs `truing COMMAND ARGUMENTS...`; `command` is split at blanks, `arguments` are not."""
    words = ["truing", *command.split(), *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", words),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return CommandResult(status, out.getvalue(), err.getvalue())


def run_truing(command: str, *arguments: object) -> str:
    """Runs a command that must succeed; returns its standard output."""
    result = truing(command, *arguments)
    assert result.status == 0, result.err
    return result.out
