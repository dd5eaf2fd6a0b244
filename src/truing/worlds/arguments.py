"""The arguments of a tool as a type: its JSON Schema, and the check of what a model wrote.

schema = ArgumentSchema("send_mail", {"to": Parameter(type="string")})
schema.decode('{"to": "sam@example.org"}')     # {"to": "sam@example.org"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import NODEFAULT, Meta, Struct

MAX_ARGUMENT_CHARACTERS = 100_000
"""Longer arguments of a call are not read: they are invalid."""

MAX_NUMBER = 2.0**53
"""Above it not every integer is a number of JSON."""

ParameterType = Literal["string", "integer", "number", "boolean", "strings"]
_TYPES_BY_NAME: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "strings": list[str],
}


class ArgumentError(ValueError):
    """The arguments of a call are not what the tool takes; the message is written for the model."""


class Parameter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parameter of a tool.

    - `example`: a value, for the model that reads the schema
    - `optional`: it may be left out, and is `default` then
    - `one_of`: the texts that are allowed
    - `minimum`, `maximum`: of a number
    """

    type: ParameterType = "string"
    description: str = ""
    example: str | int | float | bool | None = None
    optional: bool = False
    default: str | int | float | bool | None = None
    one_of: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    def faults(self) -> Iterator[str]:
        """Yields what contradicts itself, each with the name of its field."""
        is_number = self.type in ("integer", "number")
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        for name, bound in bounds.items():
            if bound is None:
                continue
            if not is_number:
                yield f"{name}: is for a number, and the type is {self.type!r}"
            elif not abs(bound) <= MAX_NUMBER:
                yield f"{name}: {bound} is not from -2**53 to 2**53"
            elif self.type == "integer" and bound != int(bound):
                yield f"{name}: {bound:g} is no integer"
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            yield f"minimum: {self.minimum:g} is above the maximum, {self.maximum:g}"
        if self.one_of and self.type != "string":
            yield f"one_of: is for texts, and the type is {self.type!r}"
        elif self.default is not None and not self._allows(self.default):
            yield f"default: {self.default!r} is no value of the parameter"

    def _allows(self, argument: object) -> bool:
        """Whether a value has the type and keeps the constraints."""
        kinds = {"integer": int, "number": int | float, "string": str, "boolean": bool}
        kind = kinds.get(self.type)
        if kind is None or not isinstance(argument, kind):
            return False
        if isinstance(argument, bool):
            return self.type == "boolean"
        if isinstance(argument, str):
            return not self.one_of or argument in self.one_of
        lowest = -MAX_NUMBER if self.minimum is None else self.minimum
        highest = MAX_NUMBER if self.maximum is None else self.maximum
        return isinstance(argument, int | float) and lowest <= argument <= highest

    def annotation(self) -> Any:
        """Returns the parameter as a Python type with msgspec's constraints."""
        kind = Literal[self.one_of] if self.one_of else _TYPES_BY_NAME[self.type]
        constraints: dict[str, Any] = {}
        if self.description:
            constraints["description"] = self.description
        if self.example is not None:
            constraints["examples"] = [self.example]
        for name, bound in (("ge", self.minimum), ("le", self.maximum)):
            if bound is not None:
                constraints[name] = int(bound) if self.type == "integer" else bound
        annotated = Annotated[kind, Meta(**constraints)] if constraints else kind
        return annotated | None if self.optional and self.default is None else annotated


class ArgumentSchema:
    """The arguments of one tool: `json_schema` is the JSON Schema as JSON text."""

    def __init__(
        self, tool: str, parameters: Mapping[str, Parameter] | None = None, kind: Any = None
    ) -> None:
        self._type = kind or _struct_type(tool, parameters or {})
        # A schema without references: not all servers and chat templates resolve them.
        (reference,), components = msgspec.json.schema_components([self._type])
        schema = dict(components.pop(reference["$ref"].rsplit("/", 1)[1]))
        schema.pop("title", None)
        if components:
            schema["$defs"] = components
        self.json_schema = msgspec.json.encode(schema).decode()

    def decode(self, text: str) -> dict[str, Any]:
        """Returns the arguments in a JSON text.

        Numbers may be written as texts, as models often do. Raises ArgumentError.
        """
        value = _decode(text, self._type, strict=False)
        return {name: getattr(value, name) for name in value.__struct_fields__}


def read_arguments(text: str) -> dict[str, Any]:
    """Returns the arguments in a JSON text without a schema: an object, not too long.

    Raises ArgumentError.
    """
    value: dict[str, Any] = _decode(text, dict[str, Any], strict=True)
    return value


def _decode(text: str, kind: Any, *, strict: bool) -> Any:
    if len(text) > MAX_ARGUMENT_CHARACTERS:
        raise ArgumentError(f"the arguments have more than {MAX_ARGUMENT_CHARACTERS} characters")
    try:
        return msgspec.json.decode(text or "{}", type=kind, strict=strict)
    except msgspec.ValidationError as error:
        raise ArgumentError(str(error)) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ArgumentError(f"the arguments are no JSON: {error}") from error
    except RecursionError as error:
        raise ArgumentError("the arguments are nested too deeply") from error


def _struct_type(tool: str, parameters: Mapping[str, Parameter]) -> type[Struct]:
    # Required fields come first, as in the signature of a function.
    ordered = sorted(parameters.items(), key=lambda item: item[1].optional)
    fields = [
        (name, parameter.annotation(), parameter.default if parameter.optional else NODEFAULT)
        for name, parameter in ordered
    ]
    return msgspec.defstruct(tool, fields, forbid_unknown_fields=True, frozen=True)
