"""Training examples, and the sets that they come from."""

from __future__ import annotations

from msgspec import Struct, field

from truing.core.types import Conversation, Lineage


class TrainingExample(Struct, frozen=True, kw_only=True):
    """One training row: a prompt and one answer (sft, distil, kto) or two (pairs: the preferred one first).

    `cut` marks an answer that a limit of tokens ended, so that no end token is learned from it.
    """

    name: str
    conversation: Conversation
    answers: tuple[str, ...]
    signs: tuple[int, int] | None = None
    margin: float | None = None
    desirable: bool | None = None
    harms: tuple[str, ...] = ()
    benign: bool = False
    synthetic: bool = False
    cut: bool = False
    source: str = ""


class TrainingSet(Struct, frozen=True, kw_only=True):
    """Rows of one data set, with its weight in the mix and what was left out, by reason."""

    spec: str
    sha256: str
    items: tuple[TrainingExample, ...]
    weight: float = 1.0
    licence: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    judges: tuple[Lineage, ...] = ()
