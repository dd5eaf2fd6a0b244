"""What is shown in the terminal holds no control characters of files or models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.cli.tables import (
    make_console,
    make_table,
    print_json,
    print_next_steps,
    print_text,
)

HOSTILE = "a\x1b]52;c;x\x07b\x9b2Jc\x1b[31md"
WRITTEN_OUT = r"a\x1b]52;c;x\x07b\x9b2Jc\x1b[31md"


def test_text_and_tables_write_control_characters_out(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    console.print(HOSTILE, markup=False)
    table = make_table(HOSTILE, ["name"])
    table.add_row(HOSTILE)
    console.print(table)
    print_text(HOSTILE)
    output = capsys.readouterr().out
    assert not set(output) & {"\x1b", "\x07", "\x9b"}
    assert output.count("52;c;x") == 4
    assert output.splitlines()[-1] == WRITTEN_OUT


def test_the_next_commands_are_quoted_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    print_next_steps(["truing doctor", ("truing", "show", Path("my runs/a b"), "--n", 6)])
    assert capsys.readouterr().out == (
        "next:\n  truing doctor\n  truing show 'my runs/a b' --n 6\n"
    )


def test_json_stays_json_and_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"name": HOSTILE + "\u202e\x7f", "plain": "ß 你"}
    print_json(json.dumps(values, ensure_ascii=False, indent=1))
    print_json(json.dumps(values, ensure_ascii=False).encode())
    output = capsys.readouterr().out
    assert not set(output) & {"\x1b", "\x07", "\x9b", "\u202e", "\x7f"}
    first, second = output[: output.index("}") + 1], output[output.index("}") + 1 :]
    assert json.loads(first) == json.loads(second) == values
    assert "ß 你" in first


def test_styles_stay_in_a_terminal() -> None:
    console = make_console()
    with console.capture() as capture:
        console.options.legacy_windows = False
        console._force_terminal = True
        console.print("[bold]x[/bold]\x1b[31m")
    assert r"\x1b[31m" in capture.get()
