"""The validator of TOML tables: every fault, with its key path and what is expected."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from msgspec import Struct

from truing.core.struct_fields import describe_fault, read_struct_fields


class Settings(Struct):
    """Fields of every kind that plans have."""

    count: int = 0
    share: float = 0.0
    name: str = ""
    flag: bool = False
    mode: Literal["linear", "cosine"] = "linear"
    limit: int | None = None
    score: float | Literal["auto"] = "auto"
    judges: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


def test_values_that_fit_are_taken_as_they_are() -> None:
    faults: list[str] = []
    table = {"count": 3, "share": 1, "judges": ["a"], "limit": 5, "score": "auto", "flag": True}
    values = read_struct_fields(Settings, table, "plan: run", faults)
    assert faults == [] and values == {**table, "judges": ("a",)}
    assert type(values["share"]) is int  # hashes of plans hold it as it was written


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("count", "three", "expected int, got 'three'"),
        ("count", True, "expected int, got True"),
        ("share", True, "expected float or int, got True"),
        ("flag", 1, "expected bool, got 1"),
        ("mode", "linaer", "'linaer' is not a valid choice; did you mean 'linear'?"),
        ("mode", 3, "expected str, got 3"),
        ("limit", "all", "expected int, got 'all'"),
        ("score", "atuo", "'atuo' is not a valid choice; did you mean 'auto'?"),
        ("judges", "a", "expected list, got 'a'"),
        ("judges", ["a", 1], "expected a list of texts"),
        ("weights", ["a"], "expected a list of numbers"),
        ("name", {"a": 1}, "expected str, got {'a': 1}"),
    ],
)
def test_faults(key: str, value: Any, fault: str) -> None:
    faults: list[str] = []
    assert read_struct_fields(Settings, {key: value}, "plan: run", faults) == {}
    assert faults == [f"plan: run.{key}: {fault}"]


def test_unknown_keys_and_what_is_no_table() -> None:
    faults: list[str] = []
    read_struct_fields(Settings, {"cuont": 1, "name": "x"}, "p", faults, fields=["count"])
    assert faults[0] == "p.cuont: unknown key; did you mean 'count'?"
    assert faults[1].startswith("p.name: unknown key")
    assert read_struct_fields(Settings, 3, "p", faults) == {}
    assert faults[2] == "p: expected a table, got 3"


def test_a_value_that_fits_has_no_fault() -> None:
    assert describe_fault([1, 2.5], tuple[float, ...]) is None
