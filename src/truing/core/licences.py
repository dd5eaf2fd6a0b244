"""Licences of data, weights and labels: which permit any use, and which lie behind a component.

The list of free licences is short on purpose: what is not on it (no commercial use, share-alike,
terms of a model, "not stated") is not free.
"""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.lineage import ancestors
from truing.core.types import Lineage

FREE_LICENCES = (
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CC BY 3.0",
    "CC BY 4.0",
    "ISC",
    "MIT",
    "ODC-BY",
)
"""Licences that allow any use, also of what was learned under them, for at most an attribution."""

_FREE = frozenset(name.casefold().replace("-", " ") for name in FREE_LICENCES)


UNSTATED_LICENCES = ("not stated", "unverified")
"""What stands in place of a licence that nobody gave; it is not free, and no restriction either."""


def split_licences(text: str) -> tuple[str, ...]:
    """Returns the licences of a list such as ``MIT; CC BY 4.0``, in order, each once."""
    parts = (part.strip() for part in text.split(";"))
    return tuple(dict.fromkeys(part for part in parts if part))


def join_licences(*texts: str) -> str:
    """Returns one list of the licences of several, each once."""
    return "; ".join(dict.fromkeys(part for text in texts for part in split_licences(text)))


def is_free(licence: str) -> bool:
    """Returns whether a single licence permits any use, commercial use included."""
    return licence.strip().casefold().replace("-", " ") in _FREE


def find_unfree(licences: Iterable[str]) -> tuple[str, ...]:
    """Returns the licences of these lists that are not free, each once."""
    parts = (part for text in licences for part in split_licences(text))
    return tuple(dict.fromkeys(part for part in parts if not is_free(part)))


def collect_licences(lineage: Lineage) -> tuple[str, ...]:
    """Returns the licences of something and of all judges and teachers behind it."""
    texts = (origin.licence for origin in (lineage, *ancestors(lineage)))
    return tuple(dict.fromkeys(part for text in texts for part in split_licences(text)))


def describe_restriction(name: str, licences: Iterable[str]) -> str:
    """Returns the sentence that a judge or model is not free; empty if nothing restricts it.

    A licence that nobody stated (a user's own rows) is no restriction.
    """
    unfree = [text for text in find_unfree(licences) if text not in UNSTATED_LICENCES]
    if not unfree:
        return ""
    use = ": research only" if any("-NC" in text for text in unfree) else ""
    return f"{name} learned under licences that are not free ({'; '.join(unfree)}){use}"
