"""Parameter types that the commands share, and the objects that their spec arguments name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from truing.core.errors import PlanError, UserError
from truing.specs.resolve import RoleName, resolve

# cyclopts derives --no-NAME for every boolean and --empty-NAME for every list unless `negative` is
# empty. `consume_multiple`: "--judge A B" and "--judge A --judge B" mean the same.
Flag = Annotated[bool, Parameter(negative="")]
Strings = Annotated[list[str], Parameter(consume_multiple=True, negative="")]
KeyVariables = Annotated[list[str] | None, Parameter(name="--allow-key-env", negative="")]
OptionalStrings = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
OptionalFloats = Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")]
Common = Parameter(group=Group("Common options", sort_key=1))
"""Marks the flags that the help of a command with many of them shows first."""
MORE_OPTIONS = Group("More options", sort_key=2)
OptionalPaths = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]


def resolve_all(specs: Sequence[tuple[str | None, RoleName]]) -> list[Any]:
    """Returns the object of each spec, in order (None for None).

    Raises PlanError with the faults of all specs together, so that a user mends them in one go.
    """
    objects: list[Any] = []
    faults: list[str] = []
    for spec, role in specs:
        try:
            objects.append(None if spec is None else resolve(spec, role))
        except UserError as error:
            faults += error.faults
    if faults:
        raise PlanError(*faults)
    return objects
