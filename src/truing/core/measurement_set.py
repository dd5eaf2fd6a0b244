"""The frozen measurement set: prompts that measure judges and models, and train none of them.

The package contains only hashes of the prompts (`lineage.hash_prompt`), grouped by the published
set that they come from. Hashes are of the normalised text, so that a frozen prompt is also
recognised in another data set. `benchmarks/moderation/frozen_set.py` has the rule that selects the
prompts, and builds the list. A changed list needs a new `version`: the lineages of older judges
refer to the list that they were trained without.
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
    """The frozen prompts of one published set: the rule that selects rows, and sorted hashes."""

    rule: str
    hashes: tuple[str, ...]


class MeasurementSet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole list; `sources` maps the name of a published set to its frozen prompts."""

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
