"""The exceptions that truing raises.

An error of an external service (a time-out, an unparsable answer) is not an exception: it is stored
as a `Failure` in the record, and the run goes on.

TruingError
├── UserError            wrong input; raised before the first model call, with every fault found
│   ├── SpecError        a spec string does not parse, or names an unknown kind
│   ├── PlanError        a plan, rules or configuration file is wrong (file, key path or line)
│   ├── DataError        a data file is wrong (file and line)
│   ├── MissingExtra     an optional dependency is not installed (with the install command)
│   ├── RunError         a run folder is locked, belongs to another plan, or is unreadable
│   └── LineageError     a judge would measure a model that it selected, labelled or blocked for
├── RequestRejected      a request to the pages is not allowed (`kind` says why)
├── BudgetExceeded       the run's own limit of requests or tokens is reached
└── ProcessFailed        another process of a distributed run failed, and reports why
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_LISTED_NAMES = 24


class TruingError(Exception):
    """Base class of all exceptions that truing raises deliberately."""


class UserError(TruingError):
    """The user's input is wrong; `faults` holds one message for each fault."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class SpecError(UserError):
    """A spec string does not parse, or names something that does not exist."""


class PlanError(UserError):
    """A plan, a rules file or a guardrails configuration is wrong."""


class DataError(UserError):
    """A data file is wrong; the message names file and line."""

    @classmethod
    def at(cls, path: object, line: int | None, what: str) -> DataError:
        """Returns the error `path:line: what` (`path: what` without a line number)."""
        return cls(f"{path}:{line}: {what}" if line is not None else f"{path}: {what}")


class MissingExtra(UserError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an extra: pip install 'truing[{extra}]'")


class RunError(UserError):
    """A run folder is locked, belongs to another plan, or cannot be read or written."""


class LineageError(UserError):
    """A judge would measure a model that it selected, labelled or blocked answers for."""


class BudgetExceeded(TruingError):
    """The limit of requests or tokens that the user set is reached."""


class ProcessFailed(TruingError):
    """Another process of a distributed run failed; that one reports why."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns a suffix for the error message about an unknown name.

    It is `; did you mean 'X'?` if a valid name is similar, else the list of valid names if that is
    short, else an empty string.
    """
    # Sorted, so that the message does not depend on the order of a set.
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid: {', '.join(names)}" if 0 < len(names) <= _MAX_LISTED_NAMES else ""


class RequestRejected(TruingError):
    """A request that the rules do not allow; `kind` is a code such as missing, late, invalid.

    `retry_after`: in how many seconds the same request may be allowed (0: not by waiting).
    """

    def __init__(self, kind: str, message: str, *, retry_after: float = 0.0) -> None:
        self.kind, self.retry_after = kind, retry_after
        super().__init__(message)
