"""The import of a folder's Python files, with and without NeMo's module names."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from truing.core.errors import PlanError
from truing.rails.actions import action
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.nemo_compat import (
    llm_call,
    load_config_code,
    nemo_import_alias,
    nemo_modules,
)

NEMO_ACTIONS = """
from nemoguardrails.actions import action
from nemoguardrails.actions.llm.utils import llm_call

@action(name="look_up")
async def find(text):
    return text

@action()
class ReadClock:
    def run(self):
        return 12

def helper():
    return 1
"""


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def trusted(file: str) -> RailsConfig:
    return RailsConfig(code=[file], trust_code=True)


def test_without_trust_no_file_is_imported(tmp_path: Path) -> None:
    file = write(tmp_path, "actions.py", "raise SystemExit('it ran')\n")
    with pytest.raises(PlanError, match=r"actions.py:1: Python code.*trust"):
        load_config_code(RailsConfig(path=str(tmp_path), code=[file]))


def test_actions_are_found_by_their_decorator(tmp_path: Path) -> None:
    loaded = load_config_code(trusted(write(tmp_path, "actions.py", NEMO_ACTIONS)), nemo_alias=True)
    assert set(loaded) == {"look_up", "ReadClock"}


def test_init_functions_come_under_their_file(tmp_path: Path) -> None:
    file = write(tmp_path, "config.py", "def init(app):\n    app.done = True\n")
    loaded = load_config_code(trusted(file))
    assert set(loaded) == {f"init:{file}"}


def test_the_alias_lasts_for_the_import_alone() -> None:
    with nemo_import_alias():
        from nemoguardrails.actions import action as aliased  # type: ignore[import-not-found]

        assert aliased is action
    assert "nemoguardrails" not in sys.modules


def test_a_real_module_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nemoguardrails", sys)
    with nemo_import_alias():
        assert sys.modules["nemoguardrails"] is not sys
    assert sys.modules["nemoguardrails"] is sys


def test_submodules_are_attributes_of_their_parents() -> None:
    modules = nemo_modules()
    root = modules["nemoguardrails"]
    assert root.actions.llm.utils is modules["nemoguardrails.actions.llm.utils"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a = 1\nb = (\n", "actions.py:2: SyntaxError"),
        ("a = 1\n\nraise ValueError('bad')\n", "actions.py:3: ValueError: bad"),
        ("raise SystemExit(2)\n", "actions.py:1: SystemExit"),
        ("import nemoguardrails\n", "nemo_alias: true"),
    ],
)
def test_a_failed_import_names_file_and_line(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(PlanError) as raised:
        load_config_code(trusted(write(tmp_path, "actions.py", source)))
    assert message in str(raised.value)


def test_llm_call_needs_an_llm() -> None:
    with pytest.raises(ValueError, match="no LLM"):
        asyncio.run(llm_call(None, "hello"))
