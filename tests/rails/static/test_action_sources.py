"""Actions found in Python files, without importing them."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.rails.static.action_sources import ActionSource, ActionSources, read_action_sources


def _read(folder: Path, source: str) -> ActionSources:
    path = folder / "actions.py"
    path.write_text(source)
    return read_action_sources([str(path)], folder)


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    sources = _read(tmp_path, f"open({str(mark)!r}, 'w')\n@action()\ndef f(a): ...\n")
    assert not mark.exists()
    assert list(sources.actions) == ["f"]


def test_parameters_of_a_function(tmp_path: Path) -> None:
    source = "@action(name='look up')\nasync def f(a, b=1, *, c, d=2, context, llm=None): ...\n"
    assert _read(tmp_path, source).actions == {
        "look up": ActionSource(
            "look up",
            "actions.py:2",
            parameters=frozenset({"a", "b", "c", "d", "context", "llm"}),
            required=frozenset({"a", "c"}),
            takes_llm=True,
        )
    }


@pytest.mark.parametrize(
    "source",
    [
        "from x import action as mark\n@mark(name='f')\ndef g(a): ...\n",
        "import x\n@x.action('sys', 'f')\ndef g(a): ...\n",
        "@action\ndef f(a): ...\n",
        "@action(name='f')\nclass G:\n  def run(self, a): ...\n",
        "def g(a): ...\ndef init(app):\n  app.register_action(g, 'f')\n",
        "def init(app):\n  app.register_action(f)\ndef f(a): ...\n",
    ],
)
def test_ways_to_register_an_action(tmp_path: Path, source: str) -> None:
    sources = _read(tmp_path, source)
    action = sources.actions["f"]
    assert action.parameters is not None
    assert action.parameters - {"self"} == {"a"}
    assert action.required == {"a"}
    assert not sources.open_ended


def test_any_keywords_have_no_list_of_parameters(tmp_path: Path) -> None:
    assert _read(tmp_path, "@action()\ndef f(a, **rest): ...\n").actions["f"].parameters is None


@pytest.mark.parametrize(
    "source",
    [
        "@action(name=NAME)\ndef f(): ...\n",
        "def init(app):\n  app.register_action(make(), NAME)\n",
        "def init(app):\n  app.register_actions(ALL)\n",
    ],
)
def test_registrations_that_cannot_be_read(tmp_path: Path, source: str) -> None:
    assert _read(tmp_path, source).open_ended


def test_context_updates_of_results(tmp_path: Path) -> None:
    source = "def f():\n  return ActionResult(1, None, {'a': 1})\n"
    source += "def g():\n  return x.ActionResult(context_updates={'b': 1, NAME: 2})\n"
    assert _read(tmp_path, source).updates == {"a", "b"}


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (finding,) = _read(tmp_path, "x = 1\ndef (:\n").findings
    assert str(finding) == "actions.py:2: error: invalid syntax"
    (tmp_path / "actions.py").write_bytes(b"\xff")
    (finding,) = read_action_sources([str(tmp_path / "actions.py")], tmp_path).findings
    assert str(finding) == "actions.py:1: error: not valid UTF-8"
