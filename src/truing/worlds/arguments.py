"""The arguments of a tool as a type: its JSON Schema, and the check of what a model wrote.

schema = ArgumentSchema("send_mail", {"to": Parameter(type="string")})
schema.decode('{"to": "sam@example.org"}')     # {"to": "sam@example.org"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import NODEFAULT, Meta, Struct

MAX_ARGUMENT_CHARACTERS = 100_000
"""Longer arguments of a call are not read: they are invalid."""

ParameterType = Literal["string", "integer", "number", "boolean", "strings"]
_PYTHON_TYPES: dict[str, Any] = {
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

    def annotation(self) -> Any:
        """Returns the parameter as a Python type with msgspec's constraints."""
        kind = Literal[self.one_of] if self.one_of else _PYTHON_TYPES[self.type]
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
        if len(text) > MAX_ARGUMENT_CHARACTERS:
            raise ArgumentError(
                f"the arguments have more than {MAX_ARGUMENT_CHARACTERS} characters"
            )
        try:
            value = msgspec.json.decode(text or "{}", type=self._type, strict=False)
        except msgspec.ValidationError as error:
            raise ArgumentError(str(error)) from error
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ArgumentError(f"the arguments are no JSON: {error}") from error
        except RecursionError as error:
            raise ArgumentError("the arguments are nested too deeply") from error
        return {name: getattr(value, name) for name in value.__struct_fields__}


def _struct_type(tool: str, parameters: Mapping[str, Parameter]) -> type[Struct]:
    # Required fields come first, as in the signature of a function.
    ordered = sorted(parameters.items(), key=lambda item: item[1].optional)
    fields = [
        (name, parameter.annotation(), parameter.default if parameter.optional else NODEFAULT)
        for name, parameter in ordered
    ]
    return msgspec.defstruct(tool, fields, forbid_unknown_fields=True, frozen=True)
