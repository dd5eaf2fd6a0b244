"""The help is plain text, filled to the terminal's width, without a parser of Markdown."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from cyclopts import App
from tests.cli.command_line import run_truing

from truing.cli import build_app, print_help


def test_line_breaks_of_docstrings_are_not_those_of_the_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run_truing("gate --help")
    flag = next(line for line in text.splitlines() if "--without-baseline" in line)
    assert "before the first run of the main branch; they are listed as not tested." in flag


@pytest.mark.parametrize("width", [40, 80, 130])
@pytest.mark.parametrize("command", ["", "train ppo-lag", "moderate", "redteam serve"])
def test_panels_are_boxes_of_the_terminals_width(
    monkeypatch: pytest.MonkeyPatch, command: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run_truing(f"{command} --help").splitlines()
    boxed = [line for line in lines if line[:1] in ("╭", "│", "╰")]
    assert len(boxed) > 10
    assert {len(line) for line in boxed} == {width}
    assert {line[-1] for line in boxed} == {"╮", "│", "╯"}


@pytest.mark.parametrize("width", [60, 80])
def test_no_flag_in_a_text_is_broken_at_its_hyphens(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [line.rstrip(" │") for line in run_truing("train grpo --help").splitlines()]
    assert [line for line in lines if line.endswith("-")] == []
    assert "--ptx-data" in " ".join(lines)


def test_a_flag_has_its_notes_and_no_default_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # each flag on one line
    lines = run_truing("moderate --help").splitlines()
    flags = {name: line for line in lines for name in line[:30].split() if name.startswith("--")}
    assert flags["--judge"].startswith("│ * --judge STR")
    assert "[required]" in flags["--judge"]
    assert "[default: 1.0]" in flags["--worker-cpus"]
    assert "[choices: jsonl, csv, tsv, parquet]" in "\n".join(lines)
    assert "[default:" not in flags["--skip-malformed"]  # off
    assert "[default:" not in flags["--prefix"]  # empty


@pytest.mark.parametrize("command", ["train", "train ppo-lag", "rank", "weights list", ""])
def test_the_short_way_to_the_help_prints_what_the_command_line_prints(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = [*command.split(), "--help"]
    assert print_help(build_app(), words)
    printed = capsys.readouterr().out
    build_app()(words, result_action="return_value")
    assert printed == capsys.readouterr().out


@pytest.mark.parametrize(
    "words", ["", "run", "run --data --help", "evalute --help", "run x --help"]
)
def test_the_short_way_leaves_other_command_lines_alone(words: str) -> None:
    assert not print_help(build_app(), words.split())


def test_a_help_builds_the_flags_of_its_command_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the usage and for the panels; with a hundred flags, that is most of its time."""
    built: list[str] = []
    build = App.assemble_argument_collection

    def count(app: App, **options: Any) -> Any:
        built.append(app.name[0])
        return build(app, **options)

    monkeypatch.setattr(App, "assemble_argument_collection", count)
    print_help(build_app(), ["train", "ppo-lag", "--help"])
    assert built == ["ppo-lag", "ppo-lag"]


def test_no_help_loads_a_parser_of_markdown() -> None:
    code = (
        "import sys\n"
        "from truing.cli import main\n"
        "sys.argv = ['truing', 'run', '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'markdown_it', 'pygments', 'torch', 'numpy'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Usage: truing run" in done.stdout
