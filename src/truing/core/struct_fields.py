"""Reads the keys of a TOML table into the fields of a settings class, with all faults at once.

    faults: list[str] = []
    values = read_struct_fields(RunPlan, table, "plan.toml: run", faults)

Plans, gate rules, studies and settings of the tone are validated here. Faults are unknown keys
(with the most similar field), values of a wrong type, and values that a `Literal` does not list.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from truing.core.errors import did_you_mean

_TYPE_NAMES: dict[Any, str] = {
    int: "int",
    float: "float or int",
    str: "str",
    bool: "bool",
    list: "list",
    tuple: "list",
    dict: "table",
}


@cache
def _field_types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def read_struct_fields(
    kind: type[msgspec.Struct],
    table: object,
    where: str,
    faults: list[str],
    *,
    fields: Collection[str] | None = None,
) -> dict[str, Any]:
    """Returns the values of a TOML table that are valid for the fields of a class.

    For each other key a message that begins with `where` and the key is added to `faults`. A
    `where` that ends with ": " is that of the whole file. With `fields`, only these may be set. A
    list becomes a tuple if the field is one.
    """
    if not isinstance(table, Mapping):
        faults.append(f"{where.removesuffix(': ')}: expected a table, got {table!r}")
        return {}
    prefix = where if where.endswith(": ") else f"{where}."
    known = tuple(kind.__struct_fields__ if fields is None else fields)
    valid_fields: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            faults.append(f"{prefix}{key}: unknown key{did_you_mean(key, known)}")
            continue
        expected = _field_types(kind)[key]
        fault = describe_fault(value, expected)
        if fault is not None:
            faults.append(f"{prefix}{key}: {fault}")
        elif isinstance(value, list | dict):
            valid_fields[key] = msgspec.convert(value, expected)
        else:
            # Not converted: an int in a float field stays an int, since the hash of a plan is
            # computed over its values as written.
            valid_fields[key] = value
    return valid_fields


def find_type_faults(value: object, expected: Any, where: str) -> Iterator[str]:
    """Yields what keeps a TOML value from being of a type: all unknown keys, missing keys and wrong
    types in it, each after its key path.

    `msgspec.convert` stops at the first one. Yields nothing for a value that it converts.
    """
    try:
        msgspec.convert(value, expected)
        return
    except msgspec.ValidationError as error:
        first_fault = str(error)
    faults = list(_find_inner_faults(value, expected, where))
    yield from faults or [f"{where}: {first_fault}".removeprefix(": ")]


def _find_inner_faults(value: object, expected: Any, where: str) -> Iterator[str]:
    for option in _without_none(expected):
        arguments = get_args(option)
        if isinstance(value, Mapping) and _is_struct(option):
            yield from _find_struct_faults(value, option, where)
            return
        if isinstance(value, Mapping) and get_origin(option) is dict:
            for key, item in value.items():
                yield from find_type_faults(item, arguments[1], f"{where}.{key}")
            return
        if isinstance(value, list) and get_origin(option) in (list, tuple):
            for index, item in enumerate(value):
                yield from find_type_faults(item, arguments[0], f"{where}[{index}]")
            return
        if _is_struct(option):
            yield f"{where}: expected a table with {', '.join(option.__struct_fields__)}"
            return
    yield f"{where}: {describe_fault(value, expected)}"


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _find_struct_faults(
    table: Mapping[str, object], kind: type[msgspec.Struct], where: str
) -> Iterator[str]:
    prefix = f"{where}." if where else ""
    types_by_field = _field_types(kind)
    for key, value in table.items():
        if key in types_by_field:
            yield from find_type_faults(value, types_by_field[key], f"{prefix}{key}")
        else:
            yield f"{prefix}{key}: unknown key{did_you_mean(key, kind.__struct_fields__)}"
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in table:
            yield f"{prefix}{field.name}: missing"


def describe_fault(value: object, expected: Any) -> str | None:
    """Returns an error message if a TOML value is not valid for a type, else None."""
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError:
        pass
    else:
        return None
    options = _without_none(expected)
    choices = [choice for t in options if get_origin(t) is Literal for choice in get_args(t)]
    if choices and isinstance(value, str):
        return f"{value!r} is not a valid choice{did_you_mean(value, choices)}"
    if isinstance(value, list) and any(get_origin(t) in (list, tuple) for t in options):
        return _describe_list_fault(value, options)
    names = dict.fromkeys(_TYPE_NAMES.get(get_origin(t) or t, "str") for t in options)
    return f"expected {' or '.join(names)}, got {value!r}"


def _without_none(expected: Any) -> tuple[Any, ...]:
    """Returns the members of a union except None; any other type alone."""
    is_union = get_origin(expected) in (Union, types.UnionType)
    options = get_args(expected) if is_union else (expected,)
    return tuple(t for t in options if t is not type(None))


def _describe_list_fault(values: list[Any], options: tuple[Any, ...]) -> str:
    item_types = [get_args(t)[0] for t in options if get_origin(t) in (list, tuple)]
    for item_type in item_types:
        if get_origin(item_type) is Literal:
            return next(fault for v in values if (fault := describe_fault(v, item_type)))
        if isinstance(item_type, type) and issubclass(item_type, msgspec.Struct):
            return f"expected tables with {', '.join(item_type.__struct_fields__)}"
    return f"expected a list of {'texts' if str in item_types else 'numbers'}"
