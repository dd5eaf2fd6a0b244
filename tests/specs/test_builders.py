"""Every dotted path in the table of builders leads to a function that `Args` suffice for."""

from __future__ import annotations

import importlib
import inspect

import pytest

from truing.specs.builders import BUILDERS
from truing.specs.resolve import list_kinds

PATHS = sorted({path for kinds in BUILDERS.values() for path in kinds.values()})


@pytest.mark.parametrize("path", PATHS)
def test_the_builder_can_be_loaded(path: str) -> None:
    module, _, name = path.partition(":")
    builder = getattr(importlib.import_module(module), name)
    parameter, *optional = inspect.signature(builder).parameters.values()
    assert all(p.default is not inspect.Parameter.empty for p in optional)
    assert parameter.annotation in ("Args", "truing.specs.resolve.Args") or (
        getattr(parameter.annotation, "__name__", "") == "Args"
    )


def test_kinds_are_lower_case_words() -> None:
    for kinds in BUILDERS.values():
        for kind in kinds:
            assert kind.replace("-", "").replace("_", "").isalnum() and kind == kind.lower()


def test_list_kinds_contains_the_table() -> None:
    for role, kinds in BUILDERS.items():
        assert kinds.items() <= list_kinds(role).items()
