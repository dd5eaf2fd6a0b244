"""The rows that supervised training learns from, and the data sets that they come from."""

from __future__ import annotations

from msgspec import Struct, field

from truing.core.types import Conversation, Lineage


class TrainingExample(Struct, frozen=True, kw_only=True):
    """One training row: a prompt with one answer, or with two, the preferred one first.

    `signs` are the safety labels of the two answers (+1 safe, -1 unsafe; both are equal where there
    is one answer), `margin` the strength of the preference, `harms` the categories of harm that
    people named. `cut` marks an answer that a token limit ended: no end token is learned from it.
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
    """The examples of one data set, its weight in the mix, and how many rows were dropped and why.

    `weight` is how often each example is drawn in an epoch (1.5: once, and half of them twice).
    `judges` are the judges that labelled or chose the answers; they go into the lineage.
    `n_frozen` counts the rows of the frozen measurement set that are trained on nevertheless.
    """

    spec: str
    sha256: str
    items: tuple[TrainingExample, ...]
    weight: float = 1.0
    licence: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    judges: tuple[Lineage, ...] = ()
    n_frozen: int = 0
