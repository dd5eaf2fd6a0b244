"""The frozen measurement set: prompts that measure judges and models, and train none of them.

It is a list of prompt hashes (`lineage.hash_prompt`), without any text, by the published set that
holds the prompts. A prompt belongs to it by its normalised form, whichever set it is met in.
`benchmarks/moderation/frozen_set.py` states the rule and builds the list. A change of the list
makes the lineages of older judges wrong: it gets a new `version`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import msgspec
from msgspec import Struct

from truing.core.lineage import hash_prompt
from truing.core.types import Conversation


class MeasurementSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The frozen prompts of one published set: which rows (`rule`), and their sorted hashes."""

    rule: str
    hashes: tuple[str, ...]


class MeasurementSet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole list, by the name of the published set."""

    version: int
    sources: dict[str, MeasurementSource]


@cache
def load_measurement_set() -> MeasurementSet:
    """Returns the list that ships with the package."""
    file = files("truing") / "resources" / "measurement" / "frozen.json"
    return msgspec.json.decode(file.read_bytes(), type=MeasurementSet)


@cache
def frozen_hashes() -> frozenset[str]:
    """Returns the hashes of all frozen prompts."""
    return frozenset().union(*(s.hashes for s in load_measurement_set().sources.values()))


def is_frozen(prompt: str) -> bool:
    """Returns whether a prompt belongs to the frozen measurement set."""
    return hash_prompt(prompt) in frozen_hashes()


def has_frozen_prompt(conversation: Conversation) -> bool:
    """Returns whether any user turn of a dialogue is a frozen prompt."""
    return any(is_frozen(m.content) for m in conversation.messages if m.role == "user")


def count_frozen_by_source(hashes: Iterable[str]) -> dict[str, int]:
    """Returns how many of the prompt hashes are frozen, by published set; without the zeros."""
    distinct = frozenset(hashes)
    counts = {
        name: len(distinct.intersection(source.hashes))
        for name, source in load_measurement_set().sources.items()
    }
    return {name: count for name, count in counts.items() if count}
