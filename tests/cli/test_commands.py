"""The table of commands, the help, and how errors end the process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command_line import run_truing, truing

from truing.cli import build_app
from truing.cli.commands import COMMANDS, GROUPS, SECTIONS
from truing.core.errors import RunError


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS.values()])
def test_every_path_leads_to_a_function_with_a_docstring(path: str) -> None:
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name)
    assert callable(function)
    assert function.__doc__


def test_every_group_has_a_line_of_help() -> None:
    assert {name.split()[0] for name in COMMANDS if " " in name} == set(GROUPS)


def test_help_lists_commands_without_importing_them() -> None:
    code = (
        "import sys\n"
        "from truing.cli import build_app\n"
        "build_app()(['--help'], result_action='return_value')\n"
        "heavy = {'torch', 'transformers', 'litestar', 'sqlalchemy', 'numpy', 'scipy'}\n"
        "commands = {m for m in sys.modules if m.startswith('truing.cli.')}\n"
        "shared = {f'truing.cli.{name}' for name in ('commands', 'help_format', 'tables')}\n"
        "print(sorted(heavy & set(sys.modules)), sorted(commands - shared))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "plan-size" in done.stdout
    assert done.stdout.splitlines()[-1] == "[] []"


def test_modules_of_commands_import_only_what_their_flags_need() -> None:
    """So that the help of every command comes at once: the work is imported when it begins."""
    code = (
        "import importlib, sys\n"
        "from truing.cli.commands import COMMANDS\n"
        "for path in {path.partition(':')[0] for path, _ in COMMANDS.values()}:\n"
        "    importlib.import_module(path)\n"
        "libraries = {'torch', 'litestar', 'sqlalchemy', 'numpy', 'scipy', 'aiohttp', 'jinja2'}\n"
        "layers = ('truing.analysis.', 'truing.gates.', 'truing.models.', 'truing.datasets.')\n"
        "work = {module for module in sys.modules if module.startswith(layers)}\n"
        "print(sorted(libraries & set(sys.modules)), sorted(work))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_help_and_version_are_status_0() -> None:
    assert "Usage: truing train ppo-lag" in run_truing("train ppo-lag --help")
    assert run_truing("--version").strip()


def test_errors_and_interrupts_end_with_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: BaseException) -> None:
        def command(**flags: object) -> int:
            raise error

        monkeypatch.setattr("truing.cli.weights.list_weights", command)

    fail(RunError("the folder is locked"))
    result = truing("weights list")
    assert (result.status, result.err) == (1, "truing: the folder is locked\n")
    fail(KeyboardInterrupt())
    assert truing("weights list").status == 130


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("evalute x", "truing --help"),
        ("gate", "truing gate --help"),
        ("evaluate scripted:comply builtin:helpful", "truing evaluate --help"),
        ("weights list --jsn", "truing weights list --help"),
        ("list model", "truing list --help"),
    ],
)
def test_a_usage_error_names_the_help_that_helps(words: str, command: str) -> None:
    assert truing(words).err.splitlines()[-1] == f"{command} shows what there is"


@pytest.mark.parametrize("words", ["weights list --jsn", "evalute", "evaluate --data", "rank"])
def test_a_usage_error_is_status_1_because_2_is_a_finding(words: str) -> None:
    result = truing(words)
    assert result.status == (0 if words == "rank" else 1)  # a group alone shows its help


def test_words_without_a_flag_are_told_plainly() -> None:
    result = truing("evaluate --model scripted:comply --data builtin:safety --out x extra words")
    assert result.status == 1 and "Unused" not in result.err
    assert "truing evaluate cannot place 'extra words'" in " ".join(result.err.split())


def test_every_command_stands_in_one_section_of_the_help() -> None:
    shown = [command for commands in SECTIONS.values() for command in commands]
    assert sorted(shown) == sorted({name.split()[0] for name in COMMANDS})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell_knows_the_commands(shell: str) -> None:
    script = build_app().generate_completion(shell=shell)
    assert "plan-size" in script


def test_what_a_command_prints_outlives_a_library_that_ends_the_process(tmp_path: Path) -> None:
    """As by `python -m truing`: Python flushes the output of a script earlier than of a module."""
    (tmp_path / "ends.py").write_text(
        "import atexit, os, sys\n"
        "from truing.cli import main\n"
        "atexit.register(os._exit, 0)\n"
        "sys.argv = ['truing', 'list', 'judges', '--json']\n"
        "main()\n"
    )
    words = [sys.executable, "-m", "ends"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
