"""Parameter types that the commands share, and the objects that their spec arguments name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from truing.core.errors import PlanError, UserError

if TYPE_CHECKING:
    from truing.specs.resolve import RoleName

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


@Parameter(name="*")
@dataclass(frozen=True)
class AddressFlags:
    """Where a server listens; a command derives its own class for its port and its help.

    Parameters
    ----------
    port
        Port to listen on.
    host
        Address to listen on.
    """

    port: int = 8000
    host: str = "127.0.0.1"

    def check(self) -> None:
        """Raises UserError for a port that no server can listen on."""
        if not 1 <= self.port <= 65535:
            raise UserError(f"--port {self.port}: must be from 1 to 65535")

    @property
    def url(self) -> str:
        """The address in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


def resolve_all(specs: Sequence[tuple[str | None, RoleName]]) -> list[Any]:
    """Returns the object of each spec, in order (None for None).

    Raises PlanError with the faults of all specs together, so that a user mends them in one go.
    """
    from truing.specs.resolve import resolve

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
