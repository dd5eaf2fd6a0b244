"""Command-line flags that are made from settings, so that each setting is defined once.

Name, type and default of a flag are those of the field, and its help is what the docstring of the
settings class says under `Attributes:`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from cyclopts import Group, Parameter
from docstring_parser import google
from msgspec import Struct

from truing.cli.parameters import MORE_OPTIONS, Common

T = TypeVar("T")


class FlagField(NamedTuple):
    """A field of settings that becomes a flag."""

    name: str
    kind: Any  # its type, as annotated
    default: Any
    description: str


def fields_of(
    settings: type[Struct], names: Collection[str] = (), *, without: Collection[str] = ()
) -> list[FlagField]:
    """Returns the fields `names` of settings (all, if none are named) but those in `without`.

    Raises KeyError for a field that the docstrings do not describe.
    """
    hints, descriptions = _read_hints(settings), describe_fields(settings)
    return [
        FlagField(field.name, hints[field.name], field.default, descriptions[field.name])
        for field in msgspec.structs.fields(settings)
        if field.name not in without and (not names or field.name in names)
    ]


@cache
def describe_fields(settings: type[Struct]) -> dict[str, str]:
    """Returns the description of each field, from the docstrings of the class and its bases."""
    return {
        entry.arg_name: " ".join((entry.description or "").split())
        for cls in reversed(settings.__mro__)
        for entry in google.parse(cls.__doc__ or "").params
    }


@cache
def _read_hints(settings: type[Struct]) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


def flags_of(
    *fields: list[FlagField], common: Collection[str] = (), group: Group | None = MORE_OPTIONS
) -> Callable[[type[T]], type[T]]:
    """Returns a decorator that gives a class a flag for each of `fields`.

    The class becomes a frozen dataclass that cyclopts takes as a group of parameters; a field that
    it declares itself stays as it is. Flags in `common` are shown first in the help. Without a
    `group` they stand among the parameters of the command.
    """

    def decorate(cls: type[T]) -> type[T]:
        declared = dict(cls.__annotations__)
        generated: dict[str, Any] = {}
        for field in (field for list_of_fields in fields for field in list_of_fields):
            if field.name in declared:
                continue
            marks = [_make_parameter(field), *([Common] if field.name in common else [])]
            generated[field.name] = Annotated[field.kind, *marks]
            setattr(cls, field.name, field.default)
        cls.__annotations__ = {**generated, **declared}
        flags = dataclasses.dataclass(frozen=True)(cls)
        hints = get_type_hints(flags, include_extras=True)
        for entry in dataclasses.fields(flags):  # type: ignore[arg-type]
            # cyclopts would read the annotations of a base class by the names of this module.
            entry.type = hints[entry.name]
        place = Parameter(name="*") if group is None else Parameter(name="*", group=group)
        return place(flags)

    return decorate


def setting_values(flags: object, settings: type[Struct]) -> dict[str, Any]:
    """Returns the values of those flags that are fields of `settings`."""
    names = settings.__struct_fields__
    return {name: value for name, value in vars(flags).items() if name in names}


def _make_parameter(field: FlagField) -> Parameter:
    """Returns how cyclopts reads a field: `--no-NAME` only for what is true by default, and a list
    from several words.
    """
    if any(get_origin(kind) is tuple for kind in (field.kind, *get_args(field.kind))):
        return Parameter(
            help=field.description, consume_multiple=True, negative="", show_default=False
        )
    return Parameter(help=field.description, negative=None if field.default is True else "")
