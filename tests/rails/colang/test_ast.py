"""The nodes: equality, and defaults that are not shared."""

from __future__ import annotations

from truing.rails.colang import ast


def test_nodes_are_compared_by_value() -> None:
    assert ast.UserIntent(3, None, "greet") == ast.UserIntent(line=3, intent="greet")
    assert ast.UserIntent(3, None, "greet") != ast.UserIntent(4, None, "greet")
    assert ast.Break() != ast.Continue()


def test_two_nodes_share_no_list() -> None:
    first, second = ast.If(), ast.If()
    first.body.append(ast.Break())
    assert second.body == []
    first_file, second_file = ast.ColangFile(), ast.ColangFile()
    first_file.user_messages["a"] = ["b"]
    assert second_file.user_messages == {}


def test_when_distinguishes_no_else_from_an_empty_one() -> None:
    assert ast.When().orelse is None
    assert ast.When(orelse=[]).orelse == []
