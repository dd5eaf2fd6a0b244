"""The errors that truing raises. The world's trouble is no error: it is a `Failure` in the record.

TruingError
├── UserError            yours, raised before the first model call; carries every fault found
│   ├── SpecError        a spec string does not parse or names nothing
│   ├── PlanError        a plan, rules or config file is wrong (file, key path or line)
│   ├── DataError        a data file is wrong (file and line)
│   ├── MissingExtra     an optional part is not installed (the install line)
│   ├── RunError         a run folder is locked, of another plan, or unreadable
│   └── LineageError     a judge would measure what it chose or was trained on
└── BudgetExceeded       the run's own limit of tokens or requests was reached
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TruingError(Exception):
    """Everything that truing raises on purpose."""


class UserError(TruingError):
    """A fault in what the user gave; `faults` holds one line each."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class SpecError(UserError):
    """A spec string does not parse or names nothing that exists."""


class PlanError(UserError):
    """A plan, a rules file or a rails configuration is wrong."""


class DataError(UserError):
    """A data file is wrong; the message names file and line."""

    @classmethod
    def at(cls, path: object, line: int | None, what: str) -> DataError:
        """`path:line: what`."""
        return cls(f"{path}:{line}: {what}" if line is not None else f"{path}: {what}")


class MissingExtra(UserError):
    """An optional part is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an extra: pip install 'truing[{extra}]'")


class RunError(UserError):
    """A run folder is locked, belongs to another plan, or cannot be read or written."""


class LineageError(UserError):
    """A figure would come from a judge that chose, trained or blocked what it measures."""


class BudgetExceeded(TruingError):
    """The limit of tokens or requests that the user set was reached."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest valid name, or the list of valid names if it is short, or nothing."""
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid: {', '.join(names)}" if 0 < len(names) <= 24 else ""
