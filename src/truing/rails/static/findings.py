"""A finding of a static check: where, how serious, and what is wrong."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

# An error is a fault: the configuration would not run, or does not do what it says. A difference
# runs otherwise than in NeMo Guardrails. Warnings and notes are advice.
Level = Literal["error", "difference", "warning", "note"]


class Finding(Struct, frozen=True, kw_only=True):
    """One fault of a configuration.

    `place` is ``file:line`` (or the file), `kind` a short name for tools, `what` the message.
    """

    place: str
    kind: str
    what: str
    level: Level = "error"

    def __str__(self) -> str:
        return f"{self.place}: {self.level}: {self.what}"


def finding_sort_key(finding: Finding) -> tuple[str, int, str]:
    """Returns a key that sorts by file, then by line as a number."""
    file, _, line = finding.place.rpartition(":")
    if line.isdigit():
        return file, int(line), finding.what
    return finding.place, 0, finding.what
