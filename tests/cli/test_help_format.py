"""The help is plain text, filled to the terminal's width, without a parser of Markdown."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.cli.command_line import run_truing


def test_line_breaks_of_docstrings_are_not_those_of_the_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run_truing("gate --help")
    flag = next(line for line in text.splitlines() if "--without-baseline" in line)
    assert "before the first run of the main branch; they are listed as not tested." in flag


def test_no_help_loads_a_parser_of_markdown() -> None:
    code = (
        "import sys\n"
        "from truing.cli import main\n"
        "sys.argv = ['truing', 'run', '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(sorted({'markdown_it', 'pygments'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: truing run" in done.stdout
