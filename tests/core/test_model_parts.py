"""What a model is built of is found once, through truing's objects and the usual attributes of others."""

from __future__ import annotations

from typing import Any

from truing.core.model_parts import iterate_parts


class _Foreign:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class _Own(_Foreign):
    pass


_Own.__module__ = "truing.models.pool"


def test_parts_are_found_once_and_loops_end() -> None:
    leaf = _Foreign()
    inner = _Own(any_name=[{"deep": (leaf,)}], text="x")
    outer = _Foreign(model=inner, inner=leaf, other=_Own())
    inner.back = outer
    assert {id(part) for part in iterate_parts(outer)} == {id(outer), id(inner), id(leaf)}
    assert len(list(iterate_parts(outer))) == 3


def test_what_an_object_lists_as_parts_is_searched_and_caches_are_not() -> None:
    leaf, cached = _Foreign(), _Foreign()
    whole = _Own(parts=(leaf,), cache=[cached] * 1001)
    assert list(iterate_parts(whole)) == [whole, leaf]
