"""What a static check has to say: a place, how grave it is, what is wrong."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["error", "warning"]


class Finding(Struct, frozen=True, kw_only=True):
    """One fault of a configuration. `place` is ``file:line``; `kind` a short name for tools."""

    place: str
    kind: str
    what: str
    level: Level = "error"

    def __str__(self) -> str:
        return f"{self.place}: {self.level}: {self.what}"


def finding_sort_key(finding: Finding) -> tuple[str, int, str]:
    """Sorts by file, then line."""
    file, _, line = finding.place.rpartition(":")
    return (file, int(line), finding.what) if line.isdigit() else (finding.place, 0, finding.what)
