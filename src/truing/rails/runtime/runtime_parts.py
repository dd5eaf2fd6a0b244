"""What a runtime is given beside its model, and the error of a turn that it cannot finish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from truing.core.errors import TruingError
from truing.core.protocols import Model
from truing.core.types import Failure, Ruling
from truing.rails.runtime.embeddings import TextEncoder
from truing.rails.runtime.llm_client import LlmError


class RailsError(TruingError):
    """A turn that could not be finished; nothing of it may be shown. `failure` names the reason."""

    def __init__(self, kind: str, message: str) -> None:
        self.failure = Failure("rail", kind, message)
        self.rulings: tuple[Ruling, ...] = ()
        super().__init__(message)


def error_with_rulings(error: TruingError, rulings: Iterable[Ruling]) -> RailsError | LlmError:
    """Returns an error of a turn with the rulings up to it; others become a RailsError."""
    if not isinstance(error, RailsError | LlmError):
        error = RailsError("flow", str(error))
    error.rulings = tuple(rulings)
    return error


@dataclass(slots=True)
class RuntimeParts:
    """What a runtime can be given beside its model.

    Models by task, judges by spec, the clients of services by name, an encoder, actions by name,
    and parsers that prompts may name as their `output_parser`. `nemo_alias` lets `actions.py`
    import from `nemoguardrails`; None leaves that to the configuration.
    `ask_person(name, arguments)` asks a person whether a tool call is allowed; without it, the rail
    `ask a person` denies them.
    """

    models: Mapping[str, Model] = field(default_factory=dict)
    judges: Mapping[str, Any] = field(default_factory=dict)
    service_clients: Mapping[str, Any] = field(default_factory=dict)
    encoder: TextEncoder | None = None
    actions: Mapping[str, Any] = field(default_factory=dict)
    output_parsers: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    nemo_alias: bool | None = None
    ask_person: Callable[[str, str], Awaitable[bool]] | None = None
