"""The texts that follow each other in a conversation, joined over the borders between them.

A text may be split over messages so that no rail sees the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

from truing.rails.runtime.client_texts import Row, join_over_borders, message_text

_NO_TEXT_ROLES = ("context", "exception")


class BorderPart(Struct, frozen=True):
    """A text beside others; `is_read_elsewhere`: rails of a stage of its own have let it pass."""

    text: str
    name: str = ""
    is_read_elsewhere: bool = False


BorderRun = tuple[BorderPart, ...]


def collect_border_runs(
    rows: Sequence[Row],
    *,
    skipped: Collection[int],
    trusted: Collection[str],
    has_tool_rails: bool,
    is_own_answer: Callable[[str], bool],
) -> list[BorderRun]:
    """Returns the texts between the runtime's own answers, in order.

    Trusted roles and the messages at the indexes `skipped` are left out.
    """
    runs: list[list[BorderPart]] = [[]]
    for index, row in enumerate(rows):
        role = "system" if row.get("role") == "developer" else str(row.get("role"))
        text = message_text(row)
        if not text or role in _NO_TEXT_ROLES or role in trusted or index in skipped:
            continue
        if role == "assistant" and is_own_answer(text):
            runs.append([])
        else:
            runs[-1].append(BorderPart(text, is_read_elsewhere=role == "tool" and has_tool_rails))
    return [tuple(run) for run in runs if len(run) > 1]


def collect_tool_runs(rows: Sequence[Row], trusted: Collection[str]) -> list[BorderRun]:
    """Returns the results of tools that follow each other directly."""
    runs: list[list[BorderPart]] = [[]]
    for row in rows if "tool" not in trusted else ():
        text = message_text(row)
        if row.get("role") != "tool":
            runs.append([])
        elif text:
            # A rail that always rewrites would also rewrite what it has let pass.
            name = str(row.get("name") or "unknown")
            runs[-1].append(BorderPart(text, name, is_read_elsewhere=True))
    return [tuple(run) for run in runs if len(run) > 1]


def join_parts(parts: Sequence[BorderPart]) -> list[str]:
    """Returns the texts to read for the borders of a run."""
    return join_over_borders([part.text for part in parts])
