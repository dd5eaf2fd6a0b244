"""Functions that `python:` specs name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from truing.core.errors import SpecError
from truing.specs.parser import parse_spec
from truing.specs.python_objects import is_async_function, load_function
from truing.specs.resolve import Args


def load(spec: str) -> object:
    return load_function(Args(parse_spec(spec)))


def test_a_function_in_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_functions_here.py").write_text("def answer(prompt):\n    return prompt\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    function = load("python:my_functions_here:answer")
    assert callable(function)
    assert function("x") == "x"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:", "expected python:package.module:function"),
        ("python:os", "expected python:package.module:function"),
        ("python:no_such_module_at_all:f", "there is no module 'no_such_module_at_all'"),
        ("python:os:no_such_name", "has no 'no_such_name'"),
        ("python:os:sep", "is no function"),
    ],
)
def test_what_cannot_be_loaded_says_why(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(spec)


def test_a_module_that_fails_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module_here.py").write_text("raise ValueError('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SpecError, match="ValueError: not today"):
        load("python:broken_module_here:f")


def test_async_functions_are_known_in_all_their_forms() -> None:
    async def later(text: str) -> str:
        return text

    class Later:
        async def __call__(self, text: str) -> str:
            return text

    functions = (later, partial(later, "x"), Later(), Later().__call__)
    assert all(is_async_function(function) for function in functions)
    assert not any(is_async_function(f) for f in (str, len, lambda text: text, partial(str)))
